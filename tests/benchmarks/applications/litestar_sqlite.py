"""A peer: the API in Litestar with msgspec and `sqlite3`, as in its documentation (docs.litestar.dev)."""

import os
import sqlite3
from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Litestar, get, post, put
from litestar.exceptions import NotFoundException
from litestar.params import Parameter

from tests.benchmarks.applications.litestar_schemas import Task, TaskInput

COLUMNS = "id, title, description, completed, created_at"

database = sqlite3.connect(os.environ["BENCHMARK_DATABASE"], isolation_level=None)
database.execute("PRAGMA journal_mode = wal")
database.execute("PRAGMA synchronous = full")


def to_task(row: tuple[Any, ...] | None) -> Task:
    if row is None:
        raise NotFoundException
    id, title, description, completed, created_at = row
    return Task(id, title, description, bool(completed), created_at)


@get("/api/tasks", sync_to_thread=False)
def list_tasks(limit: Annotated[int, Parameter(ge=1, le=1000)] = 100, after: int = 0) -> list[Task]:
    rows = database.execute(f"SELECT {COLUMNS} FROM task WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    return [to_task(row) for row in rows]


@get("/api/tasks/{id:int}", sync_to_thread=False)
def get_task(id: int) -> Task:
    rows = database.execute(f"SELECT {COLUMNS} FROM task WHERE id = ?", (id,)).fetchall()
    return to_task(rows[0] if rows else None)


@post("/api/tasks", sync_to_thread=False)
def create_task(data: TaskInput) -> Task:
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    insert = "INSERT INTO task (title, description, completed, created_at) VALUES (?, ?, ?, ?)"
    values = (data.title, data.description, data.completed, created_at)
    return to_task(database.execute(f"{insert} RETURNING {COLUMNS}", values).fetchall()[0])


@put("/api/tasks/{id:int}", sync_to_thread=False)
def replace_task(id: int, data: TaskInput) -> Task:
    update = "UPDATE task SET title = ?, description = ?, completed = ? WHERE id = ?"
    values = (data.title, data.description, data.completed, id)
    rows = database.execute(f"{update} RETURNING {COLUMNS}", values).fetchall()
    return to_task(rows[0] if rows else None)


app = Litestar([list_tasks, get_task, create_task, replace_task])
