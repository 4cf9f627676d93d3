"""The table of tasks."""

from datetime import UTC, datetime, timedelta

import peewee

from models.database import database


def now(ago: timedelta = timedelta(0)) -> str:
    """Return the current time, or what it was some time ago, as the contract writes it: RFC 3339, UTC, milliseconds."""
    return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Task(peewee.Model):
    """A row of the table; its fields bear the names of the contract's properties, in snake case.

    The version, which the contract does not show, grows with every change.
    """

    id = peewee.BigAutoField()
    title = peewee.TextField()
    description = peewee.TextField(null=True)
    completed = peewee.BooleanField()
    created_at = peewee.TextField(default=now)
    version = peewee.BigIntegerField(constraints=[peewee.SQL("DEFAULT 1")])

    class Meta:
        database = database
        table_name = "task"
        indexes = ((("completed", "id"), False),)
