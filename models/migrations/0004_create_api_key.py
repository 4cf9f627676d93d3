"""Create the table of API keys."""

from peewee import BlobField, Database, Model, TextField
from playhouse.migrate import SchemaMigrator


def up(migrator: SchemaMigrator, db: Database) -> None:
    class ApiKey(Model):
        name = TextField(primary_key=True)
        hash = BlobField()
        created_at = TextField()
        revoked_at = TextField(null=True)

        class Meta:
            database = db
            table_name = "api_key"

    db.create_tables([ApiKey], safe=False)
