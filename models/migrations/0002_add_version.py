"""Add the version of a task, which every change increments."""

from peewee import Database
from playhouse.migrate import SchemaMigrator


def up(migrator: SchemaMigrator, db: Database) -> None:
    # Use SQL, because Peewee would copy the whole table and would omit the default.
    db.execute_sql("ALTER TABLE task ADD COLUMN version BIGINT NOT NULL DEFAULT 1")
