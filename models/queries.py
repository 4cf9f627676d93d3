"""The statements on the table of tasks, each rendered once, and the functions that run them.

The database itself writes the JSON that the contract describes: a list of fifty takes it half the time that rows take
which Python turns into objects and then into JSON.
"""

from collections.abc import Callable, Collection
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from peewee import SQL, ColumnBase, Field, Node, NodeList, Query, Select, fn
from pydantic import BaseModel

from models import schemas
from models.database.address import database
from models.database.errors import ChangedError, MissingError
from models.database.statements import Execute, Rows, Statement, parameter, render
from models.task import Task


class StoredTask(NamedTuple):
    """A task as the database keeps it, and as the contract writes it."""

    id: int
    version: int
    json: bytes


class Page(NamedTuple):
    """Some tasks that follow each other, as the contract writes them."""

    json: bytes
    last: int | None  # the id of the last task on the page
    more: bool  # whether there are tasks behind it


async def select_page(limit: int, after: int, **filters: Any) -> Page:
    """Return the first `limit` tasks with an id greater than `after`, in ascending id.

    Args:
        limit: How many tasks at the most.
        after: The id behind which to begin.
        filters: The filters of the list, by the names of their parameters; None where a parameter was not given.
    """
    statement = _select_page(tuple(name for name, value in filters.items() if value is not None))
    values = {"limit": limit, "after": after, **filters}
    return Page(*(await database.read(statement.sql, statement.order(values)))[0])


async def select(id: int) -> StoredTask:
    """Return the task.

    Raises:
        MissingError: There is none.
    """
    rows = await database.read(_select().sql, [id])
    if not rows:
        raise MissingError
    return StoredTask(*rows[0])


async def insert(execute: Execute, task: schemas.TaskInput) -> StoredTask:
    """Keep a new task, and return it with its id and time of creation."""
    statement = _insert()
    values = {name: field.default() for name, field in _generated().items()} | _values(task)
    return StoredTask(*(await execute(statement.sql, statement.order(values)))[0])


async def update(execute: Execute, id: int, task: schemas.TaskInput, versions: Collection[int] | None) -> StoredTask:
    """Put `task` in the place of what the task held, and return it.

    Args:
        execute: What runs the statements.
        id: The id of the task.
        task: What it is to hold.
        versions: Those that it may have had before; None for any.

    Raises:
        MissingError: There is none.
        ChangedError: Its version is none of these.
    """
    values = _values(task)
    rows = await _change(execute, _update(tuple(values), _count(versions)), id, versions, values)
    return StoredTask(*rows[0])


async def delete(execute: Execute, id: int, versions: Collection[int] | None) -> None:
    """Remove the task.

    Args:
        execute: What runs the statements.
        id: The id of the task.
        versions: Those that it may have; None for any.

    Raises:
        MissingError: There is none.
        ChangedError: Its version is none of these.
    """
    await _change(execute, _delete(_count(versions)), id, versions, {})


@cache
def representation() -> str:
    """Return a name for the way in which tasks are written, which is another one where they are written otherwise."""
    return sha256(_select().sql.encode()).hexdigest()[:8]


async def _change(
    execute: Execute, statement: Statement, id: int, versions: Collection[int] | None, values: dict[str, Any]
) -> Rows:
    values["id"] = id
    for number, version in enumerate(versions or ()):
        values[f"version{number}"] = version
    while not (rows := await execute(statement.sql, statement.order(values))):
        # A look of its own, so what it sees may be newer; then the statement has another try.
        found = await execute(_select().sql, [id]) if versions is not None else ()
        if not found:
            raise MissingError
        if StoredTask(*found[0]).version not in (versions or ()):
            raise ChangedError
    return rows


def _values(task: BaseModel) -> dict[str, Any]:
    return {name: Task._meta.fields[name].db_value(value) for name, value in task.__dict__.items()}


@cache
def _generated() -> dict[str, Field]:
    return {name: field for name, field in Task._meta.fields.items() if callable(field.default)}


@cache
def _select_page(filters: tuple[str, ...]) -> Statement:
    """Return the statement for a page of the list with these filters: one for each set that is given."""

    def narrow(query: Select, after: Node) -> Select:
        # Another filter is another condition here, whose value is `parameter("the name of the filter")`.
        if "completed" not in filters:
            return query.where(Task.id > after).order_by(Task.id)
        # By the columns of an index, in its order.
        behind = database.behind(Task.completed, parameter("completed"), Task.id, after)
        return query.where(behind).order_by(Task.completed, Task.id)

    return render(_page(narrow))


@cache
def _select() -> Statement:
    return render(Task.select(*_stored()).where(Task.id == parameter("id")))


@cache
def _insert() -> Statement:
    names = [*_generated(), *schemas.TaskInput.model_fields]
    query = Task.insert({name: parameter(name) for name in names})
    return render(query.returning(*_stored()))


# How many versions a caller names is the caller's choice, so not every statement is kept.
@lru_cache
def _update(names: tuple[str, ...], versions: int | None) -> Statement:
    """Return the statement that changes the columns with these names."""
    values: dict[str, Node] = {name: parameter(name) for name in names}
    query = Task.update({**values, "version": Task.version + SQL("1")})
    return render(_narrow(query, versions).returning(*_stored()))


@lru_cache
def _delete(versions: int | None) -> Statement:
    return render(_narrow(Task.delete(), versions).returning(Task.id))


def _narrow(query: Any, versions: int | None) -> Any:
    """Return the query for the task with one id, and with one of so many versions, or any."""
    query = query.where(Task.id == parameter("id"))
    if versions is None:
        return query
    return query.where(Task.version.in_([parameter(f"version{n}") for n in range(versions)]))


def _count(versions: Collection[int] | None) -> int | None:
    return None if versions is None else len(versions)


def _page(narrow: Callable[[Select, Node], Select]) -> Query:
    """Return the query of a page: its tasks as one array, the id of the last, and whether there are more.

    Args:
        narrow: Puts the tasks behind an id into their order, and perhaps leaves some out.
    """
    tasks = narrow(Task.select(), parameter("after")).limit(parameter("limit"))
    array = database.as_bytes(database.json_array(_json(tasks.c), tasks.c.id))
    page = Select([tasks], [array.alias("json"), fn.max(tasks.c.id).alias("last")])
    # Not `EXISTS`, for which PostgreSQL reads the whole table.
    more = NodeList((narrow(Task.select(Task.id), page.c.last).limit(SQL("1")), SQL("IS NOT NULL")))
    return Select([page], [page.c.json, page.c.last, more]).bind(database)


def _stored() -> tuple[Node, ...]:
    return Task.id, Task.version, database.as_bytes(_json(Task))


def _json(table: Any) -> ColumnBase:
    """Return a task of `table` as the contract writes it."""
    names = {info.alias or name: name for name, info in schemas.Task.model_fields.items()}
    columns = {alias: (getattr(table, name), Task._meta.fields[name]) for alias, name in names.items()}
    json: ColumnBase = database.json_object(columns)
    return json
