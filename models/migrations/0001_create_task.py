"""Create the table of tasks."""

from peewee import SQL, BigAutoField, BooleanField, Database, Model, Node, SqliteDatabase, TextField
from playhouse.migrate import SchemaMigrator


def up(migrator: SchemaMigrator, db: Database) -> None:
    # Without AUTOINCREMENT, SQLite reuses the id of the last task after its deletion.
    autoincrement: list[Node] = [SQL("AUTOINCREMENT")] if isinstance(db, SqliteDatabase) else []

    class Task(Model):
        id = BigAutoField(constraints=autoincrement)
        title = TextField()
        description = TextField(null=True)
        completed = BooleanField()
        created_at = TextField()

        class Meta:
            database = db
            table_name = "task"
            indexes = ((("completed", "id"), False),)

    db.create_tables([Task], safe=False)
