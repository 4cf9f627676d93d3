"""The table of tasks."""

import peewee

from models.database.address import database
from models.database.clock import now


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
