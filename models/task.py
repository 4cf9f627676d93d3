"""The table of tasks."""

import peewee
from peewee import SQL

from models import schemas
from models.database.address import Database
from models.database.clock import now
from models.resource import Filter, Resource


class Task(peewee.Model):
    """A row of the table: a task. The fields have the names of the contract's properties in snake case."""

    id = peewee.BigAutoField()
    title = peewee.TextField()
    description = peewee.TextField(null=True)
    completed = peewee.BooleanField()
    created_at = peewee.TextField(default=now)
    # Every change increments the version, which is part of the entity tag but not of the JSON.
    version = peewee.BigIntegerField(constraints=[SQL("DEFAULT 1")])

    class Meta:
        table_name = "task"
        indexes = ((("completed", "id"), False),)


# The filters of the list: a field that must have the value, or a function that returns the condition for a value.
FILTERS: dict[str, Filter] = {
    "completed": Task.completed,
}


def tasks(database: Database) -> Resource:
    """Return the queries of the table."""
    return Resource(database, Task, schemas.Task, FILTERS)
