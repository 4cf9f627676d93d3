"""Add the version of a task, which grows with every change."""

from peewee import Database
from playhouse.migrate import SchemaMigrator


def up(migrator: SchemaMigrator, db: Database) -> None:
    # As SQL, because Peewee would copy the whole table, and leave out the default.
    db.execute_sql("ALTER TABLE task ADD COLUMN version BIGINT NOT NULL DEFAULT 1")
