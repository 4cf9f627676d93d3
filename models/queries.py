"""The statements on the table of tasks, each rendered once, and the functions that run them."""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from peewee import Field, Query, Value

from models import schemas
from models.database import database
from models.task import Task


class Statement(NamedTuple):
    """SQL, and the names of its parameters in the order of their places."""

    sql: str
    names: tuple[str, ...]

    def order(self, values: Mapping[str, Any]) -> list[Any]:
        return [values[name] for name in self.names]


async def select_page(limit: int, after: int, completed: bool | None) -> list[schemas.Task]:
    """Return the first `limit` tasks with an id greater than `after`, in ascending id.

    Args:
        limit: How many tasks at the most.
        after: The id behind which to begin.
        completed: Only tasks that are completed, or that are not; None for both.
    """
    statement = _select_page() if completed is None else _select_page_by_completed()
    values = {"limit": limit, "after": after, "completed": completed}
    rows = await database.read(statement.sql, statement.order(values))
    return [_task(row) for row in rows]


async def select(id: int) -> schemas.Task | None:
    """Return the task, or None if there is none."""
    rows = await database.read(_select().sql, [id])
    return _task(rows[0]) if rows else None


async def insert(task: schemas.TaskInput) -> schemas.Task:
    """Keep a new task, and return it with its id and time of creation."""
    statement = _insert()
    values = {name: field.default() for name, field in _generated().items()} | _values(task)
    rows = await database.write(statement.sql, statement.order(values))
    return _task(rows[0])


async def update(id: int, task: schemas.TaskInput) -> schemas.Task | None:
    """Put `task` in the place of what the task held, and return it, or None if there is none."""
    statement = _update()
    rows = await database.write(statement.sql, statement.order({"id": id} | _values(task)))
    return _task(rows[0]) if rows else None


async def delete(id: int) -> bool:
    """Remove the task, and return whether there was one."""
    return bool(await database.write(_delete().sql, [id]))


def _values(task: schemas.TaskInput) -> dict[str, Any]:
    return {name: Task._meta.fields[name].db_value(value) for name, value in task.__dict__.items()}


def _task(row: tuple[Any, ...]) -> schemas.Task:
    # Not strict: SQLite has no booleans.
    return schemas.Task.model_validate(dict(zip(_columns(), row, strict=True)), strict=False)


@cache
def _columns() -> dict[str, Field]:
    fields = schemas.Task.model_fields.items()
    return {info.alias or name: Task._meta.fields[name] for name, info in fields}


@cache
def _generated() -> dict[str, Field]:
    return {name: field for name, field in Task._meta.fields.items() if callable(field.default)}


@cache
def _select_page() -> Statement:
    return _render(_page())


@cache
def _select_page_by_completed() -> Statement:
    return _render(_page().where(Task.completed == _parameter("completed")))


@cache
def _select() -> Statement:
    return _render(Task.select(*_columns().values()).where(Task.id == _parameter("id")))


@cache
def _insert() -> Statement:
    names = [*_generated(), *schemas.TaskInput.model_fields]
    query = Task.insert({name: _parameter(name) for name in names})
    return _render(query.returning(*_columns().values()))


@cache
def _update() -> Statement:
    query = Task.update({name: _parameter(name) for name in schemas.TaskInput.model_fields})
    return _render(query.where(Task.id == _parameter("id")).returning(*_columns().values()))


@cache
def _delete() -> Statement:
    return _render(Task.delete().where(Task.id == _parameter("id")).returning(Task.id))


def _page() -> Query:
    page = Task.select(*_columns().values()).where(Task.id > _parameter("after"))
    return page.order_by(Task.id).limit(_parameter("limit"))


def _parameter(name: str) -> Value:
    return Value(name, converter=False)


def _render(query: Query) -> Statement:
    sql, names = query.sql()
    return Statement(sql, tuple(names))
