"""The table of tasks, and its queries.

The database itself writes the JSON of the contract. For a list of fifty tasks that takes half the time of turning rows
into objects and objects into JSON in Python.
"""

from collections.abc import Callable, Collection
from functools import cache, lru_cache, partial
from hashlib import sha256
from typing import Any, NamedTuple

import peewee
from peewee import SQL, ColumnBase, Node, NodeList, Query, Select, fn
from pydantic import BaseModel

from models import schemas
from models.database.address import Database
from models.database.clock import now
from models.database.errors import ChangedError, MissingError
from models.database.statements import Execute, Rows, Statement, parameter, render


class Task(peewee.Model):
    """A row of the table. Its fields have the names of the contract's properties, in snake case."""

    id = peewee.BigAutoField()
    title = peewee.TextField()
    description = peewee.TextField(null=True)
    completed = peewee.BooleanField()
    created_at = peewee.TextField(default=now)
    # Incremented by every change, for entity tags; not part of the contract.
    version = peewee.BigIntegerField(constraints=[SQL("DEFAULT 1")])

    class Meta:
        table_name = "task"
        indexes = ((("completed", "id"), False),)


class StoredTask(NamedTuple):
    """A task in the database, with the JSON object of the contract."""

    id: int
    version: int
    json: bytes


class Page(NamedTuple):
    """A page of the list: a JSON array of tasks, the id of the last one, and whether a page follows."""

    json: bytes
    last_id: int | None
    has_more: bool


class TaskQueries:
    """The statements on the table, rendered once for a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        stored = Task.id, Task.version, database.as_bytes(_json(Task, database))
        by_id = Task.id == parameter("id")
        self._generated = {name: field for name, field in Task._meta.fields.items() if callable(field.default)}
        columns = {name: parameter(name) for name in [*self._generated, *schemas.TaskInput.model_fields]}
        self._select = render(Task.select(*stored).where(by_id), database)
        self._insert = render(Task.insert(columns).returning(*stored), database)
        # Fingerprint of the JSON format, so that entity tags change when it does.
        self.fingerprint = sha256(self._select.sql.encode()).hexdigest()[:8]

        def update(names: tuple[str, ...], versions: int | None) -> Statement:
            values: dict[str, Node] = {name: parameter(name) for name in names}
            query = Task.update({**values, "version": Task.version + SQL("1")})
            return render(query.where(by_id, *_one_of(versions)).returning(*stored), database)

        def delete(versions: int | None) -> Statement:
            return render(Task.delete().where(by_id, *_one_of(versions)).returning(Task.id), database)

        # The client chooses how many versions it names, so the number of cached statements is limited.
        self._update, self._delete = lru_cache(update), lru_cache(delete)
        self._select_page = cache(lambda filters: render(_page(database, filters), database))

    async def select_page(self, limit: int, after: int, **filters: Any) -> Page:
        """Return the first `limit` tasks with an id greater than `after`, in ascending id.

        Args:
            limit: The maximum number of tasks.
            after: The cursor: the last id of the page before, or 0.
            filters: The values of the filters by name; None for no filter.
        """
        statement = self._select_page(tuple(name for name, value in filters.items() if value is not None))
        rows = await self._database.read(statement.sql, statement.order({"limit": limit, "after": after, **filters}))
        return Page(*rows[0])

    async def select(self, id: int) -> StoredTask:
        """Return a task; raise MissingError if there is none with this id."""
        rows = await self._database.read(self._select.sql, [id])
        if not rows:
            raise MissingError
        return StoredTask(*rows[0])

    async def insert(self, execute: Execute, task: schemas.TaskInput) -> StoredTask:
        """Insert a task, and return it."""
        values = {name: field.default() for name, field in self._generated.items()} | _values(task)
        return StoredTask(*(await execute(self._insert.sql, self._insert.order(values)))[0])

    async def update(self, execute: Execute, id: int, task: BaseModel, versions: Collection[int] | None) -> StoredTask:
        """Update a task's columns, and return it.

        Args:
            execute: Runs statements in the transaction.
            id: The id of the task.
            task: The new values.
            versions: The versions that may be changed; None for any.

        Raises:
            MissingError: No task has this id.
            ChangedError: The task has another version.
        """
        values = _values(task)
        rows = await self._change(execute, partial(self._update, tuple(values)), id, versions, values)
        return StoredTask(*rows[0])

    async def delete(self, execute: Execute, id: int, versions: Collection[int] | None) -> None:
        """Delete a task. The arguments and errors are those of `update`."""
        await self._change(execute, self._delete, id, versions, {})

    async def _change(
        self,
        execute: Execute,
        statement_for: Callable[[int | None], Statement],
        id: int,
        versions: Collection[int] | None,
        values: dict[str, Any],
    ) -> Rows:
        statement = statement_for(None if versions is None else len(versions))
        values["id"] = id
        for number, version in enumerate(versions or ()):
            values[f"version{number}"] = version
        while not (rows := await execute(statement.sql, statement.order(values))):
            found = await execute(self._select.sql, [id]) if versions is not None else ()
            if not found:
                raise MissingError
            # If another transaction has just set one of the versions, the statement succeeds on the next attempt.
            if StoredTask(*found[0]).version not in (versions or ()):
                raise ChangedError
        return rows


def _page(database: Database, filters: tuple[str, ...]) -> Query:
    """Return the query of a page, with conditions for the named filters."""

    def narrow(query: Select, after: Node) -> Select:
        # Add a condition for each new filter here, with the value `parameter("the name of the filter")`.
        if "completed" not in filters:
            return query.where(Task.id > after).order_by(Task.id)
        keyset = database.keyset_condition(Task.completed, parameter("completed"), Task.id, after)
        return query.where(keyset).order_by(Task.completed, Task.id)

    tasks = narrow(Task.select(), parameter("after")).limit(parameter("limit"))
    array = database.as_bytes(database.json_array(_json(tasks.c, database), tasks.c.id))
    page = Select([tasks], [array.alias("json"), fn.max(tasks.c.id).alias("last")])
    # Not EXISTS, for which PostgreSQL scans the table on the last page.
    more = NodeList((narrow(Task.select(Task.id), page.c.last).limit(SQL("1")), SQL("IS NOT NULL")))
    return Select([page], [page.c.json, page.c.last, more])


def _json(table: Any, database: Database) -> ColumnBase:
    """Return a task as the contract's JSON object."""
    names = {info.alias or name: name for name, info in schemas.Task.model_fields.items()}
    columns = {alias: (getattr(table, name), Task._meta.fields[name]) for alias, name in names.items()}
    return database.json_object(columns)


def _one_of(versions: int | None) -> list[Node]:
    """Return the condition that a task has one of so many versions; none for any version."""
    return [] if versions is None else [Task.version.in_([parameter(f"version{n}") for n in range(versions)])]


def _values(task: BaseModel) -> dict[str, Any]:
    return {name: Task._meta.fields[name].db_value(value) for name, value in task.__dict__.items()}
