"""The table of tasks, and its queries.

The database itself writes the JSON of the contract. For a list of fifty tasks, Python would need twice the time.
"""

from collections.abc import Callable, Collection
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import peewee
from peewee import SQL, ColumnBase, Node, NodeList, Query, Select, fn
from pydantic import BaseModel

from models import schemas
from models.database.address import Database
from models.database.clock import now
from models.database.errors import ChangedError, MissingError
from models.database.statements import Execute, Statement, parameter

# The versions of a task that a request may change; None allows every version.
Versions = Collection[int] | None


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


class StoredTask(NamedTuple):
    """A task in the database: its id, its version, and the JSON object for responses."""

    id: int
    version: int
    json: bytes


class Page(NamedTuple):
    """A page of the list: a JSON array of tasks, the id of the last task, and whether another page follows."""

    json: bytes
    last_id: int | None
    has_more: bool


class TaskQueries:
    """The SQL statements for the table, rendered once per database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        stored = Task.id, Task.version, database.as_bytes(_json(Task, database))
        columns = {name: parameter(name) for name in [*Task._meta.get_default_dict(), *schemas.TaskInput.model_fields]}
        self._select = Statement(Task.select(*stored).where(_by_id()), database)
        self._insert = Statement(Task.insert(columns).returning(*stored), database)
        # The fingerprint of the JSON format is part of every entity tag, so the tags change with the format.
        self.fingerprint = sha256(self._select.sql.encode()).hexdigest()[:8]

        def update(versions: int | None, *names: str) -> Statement:
            values: dict[str, Node] = {name: parameter(name) for name in names}
            query = Task.update({**values, "version": Task.version + SQL("1")})
            return Statement(query.where(_by_id(versions)).returning(*stored), database)

        def delete(versions: int | None) -> Statement:
            return Statement(Task.delete().where(_by_id(versions)).returning(Task.id), database)

        # Clients choose how many versions a request names, so the number of cached statements must be limited.
        self._update, self._delete = lru_cache(update), lru_cache(delete)
        self._select_page = cache(lambda filters: Statement(_page(database, filters), database))

    async def select_page(self, limit: int, after: int, **filters: Any) -> Page:
        """Return the first `limit` tasks with an id greater than `after`. A filter that is None is ignored."""
        statement = self._select_page(tuple(name for name, value in filters.items() if value is not None))
        rows = await self._database.read(statement.sql, statement.order({"limit": limit, "after": after, **filters}))
        return Page(*rows[0])

    async def select(self, id: int) -> StoredTask:
        """Return a task. Raise MissingError if no task has this id."""
        rows = await self._database.read(self._select.sql, [id])
        if not rows:
            raise MissingError
        return StoredTask(*rows[0])

    async def insert(self, execute: Execute, task: schemas.TaskInput) -> StoredTask:
        """Insert a task, and return it."""
        rows = await execute(self._insert.sql, self._insert.order({**Task._meta.get_default_dict(), **_values(task)}))
        return StoredTask(*rows[0])

    async def update(self, execute: Execute, id: int, task: BaseModel, versions: Versions) -> StoredTask:
        """Update a task, and return it. Raise MissingError if there is none, ChangedError if its version differs."""
        return StoredTask(*await self._change(execute, self._update, id, _values(task), versions))

    async def delete(self, execute: Execute, id: int, versions: Versions) -> None:
        """Delete a task. Raise MissingError if there is none, ChangedError if its version differs."""
        await self._change(execute, self._delete, id, {}, versions)

    async def _change(
        self, execute: Execute, change: Callable[..., Statement], id: int, values: dict[str, Any], versions: Versions
    ) -> tuple[Any, ...]:
        statement = change(None if versions is None else len(versions), *values)
        for number, version in enumerate(versions or ()):
            values[f"version{number}"] = version
        values["id"] = id
        while not (rows := await execute(statement.sql, statement.order(values))):
            if versions is None or not (found := await execute(self._select.sql, [id])):
                raise MissingError
            # If another transaction has just set one of these versions, the next attempt succeeds.
            if StoredTask(*found[0]).version not in versions:
                raise ChangedError
        return rows[0]


def _page(database: Database, filters: tuple[str, ...]) -> Query:
    """Return the query of a page, with conditions for the named filters."""

    def narrow(query: Select, after: Node) -> Select:
        # Add the condition of a new filter here. Its value is `parameter("name_of_the_filter")`.
        if "completed" not in filters:
            return query.where(Task.id > after).order_by(Task.id)
        keyset = database.keyset_condition(Task.completed, parameter("completed"), Task.id, after)
        return query.where(keyset).order_by(Task.completed, Task.id)

    tasks = narrow(Task.select(), parameter("after")).limit(parameter("limit"))
    array = database.as_bytes(database.json_array(_json(tasks.c, database), tasks.c.id))
    page = Select([tasks], [array.alias("json"), fn.max(tasks.c.id).alias("last")])
    # With EXISTS, PostgreSQL would scan the whole table if the last page is requested.
    more = NodeList((narrow(Task.select(Task.id), page.c.last).limit(SQL("1")), SQL("IS NOT NULL")))
    return Select([page], [page.c.json, page.c.last, more])


def _json(table: Any, database: Database) -> ColumnBase:
    """Return an SQL expression for a task as the contract's JSON object."""
    names = {info.alias or name: name for name, info in schemas.Task.model_fields.items()}
    columns = {alias: (getattr(table, name), Task._meta.fields[name]) for alias, name in names.items()}
    return database.json_object(columns)


def _by_id(versions: int | None = None) -> Node:
    """Return the condition for a task's id and, unless `versions` is None, for one of that many versions."""
    condition = Task.id == parameter("id")
    if versions is not None:
        condition &= Task.version.in_([parameter(f"version{number}") for number in range(versions)])
    return condition


def _values(task: BaseModel) -> dict[str, Any]:
    return {name: Task._meta.fields[name].db_value(value) for name, value in task.__dict__.items()}
