"""The table of tasks."""

from datetime import UTC, datetime

import peewee

from models.database import database


def now() -> str:
    """Return the current time as the contract writes it: RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Task(peewee.Model):
    """A row of the table; its fields bear the names of the contract's properties, in snake case."""

    id = peewee.BigAutoField()
    title = peewee.TextField()
    description = peewee.TextField(null=True)
    completed = peewee.BooleanField()
    created_at = peewee.TextField(default=now)

    class Meta:
        database = database
        table_name = "task"
        indexes = ((("completed", "id"), False),)
