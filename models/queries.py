"""The statements on the table of tasks, each rendered once, and the functions that run them.

The database itself writes the JSON that the contract describes: a list of fifty takes it half the time that rows take
which Python turns into objects and then into JSON.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from peewee import SQL, BooleanField, Field, FloatField, Function, Node, Query, Select, Value, fn

from models import schemas
from models.database import database
from models.task import Task


class StoredTask(NamedTuple):
    """A task as the database keeps it, and as the contract writes it."""

    id: int
    json: bytes


class Page(NamedTuple):
    """Some tasks that follow each other, as the contract writes them."""

    json: bytes
    last: int | None  # the id of the last task on the page
    more: bool  # whether there are tasks behind it


class Statement(NamedTuple):
    """SQL, and the names of its parameters in the order of their places."""

    sql: str
    names: tuple[str, ...]

    def order(self, values: Mapping[str, Any]) -> list[Any]:
        return [values[name] for name in self.names]


async def select_page(limit: int, after: int, completed: bool | None) -> Page:
    """Return the first `limit` tasks with an id greater than `after`, in ascending id.

    Args:
        limit: How many tasks at the most.
        after: The id behind which to begin.
        completed: Only tasks that are completed, or that are not; None for both.
    """
    statement = _select_page() if completed is None else _select_page_by_completed()
    values = {"limit": limit, "after": after, "completed": completed}
    return Page(*(await database.read(statement.sql, statement.order(values)))[0])


async def select(id: int) -> StoredTask | None:
    """Return the task, or None if there is none."""
    return _one(await database.read(_select().sql, [id]))


async def insert(task: schemas.TaskInput) -> StoredTask:
    """Keep a new task, and return it with its id and time of creation."""
    statement = _insert()
    values = {name: field.default() for name, field in _generated().items()} | _values(task)
    return StoredTask(*(await database.write(statement.sql, statement.order(values)))[0])


async def update(id: int, task: schemas.TaskInput) -> StoredTask | None:
    """Put `task` in the place of what the task held, and return it, or None if there is none."""
    statement = _update()
    return _one(await database.write(statement.sql, statement.order({"id": id} | _values(task))))


async def delete(id: int) -> bool:
    """Remove the task, and return whether there was one."""
    return bool(await database.write(_delete().sql, [id]))


def _one(rows: list[tuple[Any, ...]]) -> StoredTask | None:
    return StoredTask(*rows[0]) if rows else None


def _values(task: schemas.TaskInput) -> dict[str, Any]:
    return {name: Task._meta.fields[name].db_value(value) for name, value in task.__dict__.items()}


@cache
def _generated() -> dict[str, Field]:
    return {name: field for name, field in Task._meta.fields.items() if callable(field.default)}


@cache
def _select_page() -> Statement:
    return _render(_page(lambda query: query))


@cache
def _select_page_by_completed() -> Statement:
    return _render(_page(lambda query: query.where(Task.completed == _parameter("completed"))))


@cache
def _select() -> Statement:
    return _render(Task.select(*_stored()).where(Task.id == _parameter("id")))


@cache
def _insert() -> Statement:
    names = [*_generated(), *schemas.TaskInput.model_fields]
    query = Task.insert({name: _parameter(name) for name in names})
    return _render(query.returning(*_stored()))


@cache
def _update() -> Statement:
    query = Task.update({name: _parameter(name) for name in schemas.TaskInput.model_fields})
    return _render(query.where(Task.id == _parameter("id")).returning(*_stored()))


@cache
def _delete() -> Statement:
    return _render(Task.delete().where(Task.id == _parameter("id")).returning(Task.id))


def _page(narrow: Callable[[Select], Select]) -> Query:
    """Return the query of a page: its tasks as one array, the id of the last, and whether there are more."""
    tasks = narrow(Task.select().where(Task.id > _parameter("after"))).order_by(Task.id).limit(_parameter("limit"))
    array = fn.printf(SQL("'[%s]'"), fn.group_concat(_json(tasks.c)))
    page = Select([tasks], [array.cast("blob").alias("json"), fn.max(tasks.c.id).alias("last")])
    more = fn.exists(narrow(Task.select(SQL("1")).where(Task.id > page.c.last)))
    return Select([page], [page.c.json, page.c.last, more])


def _stored() -> tuple[Node, ...]:
    return Task.id, _json(Task).cast("blob")


def _json(table: Any) -> Function:
    """Return a task of `table` as the contract writes it."""
    properties = []
    for name, info in schemas.Task.model_fields.items():
        properties += [SQL(f"'{info.alias or name}'"), _json_value(getattr(table, name), Task._meta.fields[name])]
    return fn.json_object(*properties)


def _json_value(column: Node, field: Field) -> Node:
    match field:
        # SQLite has no booleans.
        case BooleanField():
            return fn.json(fn.iif(column, SQL("'true'"), SQL("'false'")))
        # Of the digits of a number, SQLite's JSON has only the first 15.
        case FloatField():
            return fn.json(fn.printf(SQL("'%!.17g'"), column))
        case _:
            return column


def _parameter(name: str) -> Value:
    return Value(name, converter=False)


def _render(query: Query) -> Statement:
    sql, names = query.sql()
    return Statement(sql, tuple(names))
