"""Create the table of stored responses to requests with an idempotency key."""

from peewee import BlobField, Database, IntegerField, Model, TextField
from playhouse.migrate import SchemaMigrator


def up(migrator: SchemaMigrator, db: Database) -> None:
    class KeptAnswer(Model):
        key = BlobField(primary_key=True)
        fingerprint = BlobField()
        status = IntegerField()
        headers = TextField()
        body = BlobField()
        created_at = TextField(index=True)

        class Meta:
            database = db
            table_name = "kept_answer"

    db.create_tables([KeptAnswer], safe=False)
