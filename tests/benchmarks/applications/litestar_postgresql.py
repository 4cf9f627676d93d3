"""A peer: the API in Litestar with msgspec and asyncpg, as in its documentation (docs.litestar.dev)."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import asyncpg
from litestar import Litestar, get, post, put
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import Parameter

from tests.benchmarks.applications.litestar_schemas import Task, TaskInput

COLUMNS = "id, title, description, completed, created_at"


@asynccontextmanager
async def open_pool(app: Litestar) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["BENCHMARK_DATABASE"], min_size=10, max_size=10) as app.state.pool:
        yield


def to_task(row: asyncpg.Record | None) -> Task:
    if row is None:
        raise NotFoundException
    return Task(*row)


@get("/api/tasks")
async def list_tasks(state: State, limit: Annotated[int, Parameter(ge=1, le=1000)] = 100, after: int = 0) -> list[Task]:
    select = f"SELECT {COLUMNS} FROM task WHERE id > $1 ORDER BY id LIMIT $2"
    return [to_task(row) for row in await state.pool.fetch(select, after, limit)]


@get("/api/tasks/{id:int}")
async def get_task(state: State, id: int) -> Task:
    return to_task(await state.pool.fetchrow(f"SELECT {COLUMNS} FROM task WHERE id = $1", id))


@post("/api/tasks")
async def create_task(state: State, data: TaskInput) -> Task:
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    insert = "INSERT INTO task (title, description, completed, created_at) VALUES ($1, $2, $3, $4)"
    values = (data.title, data.description, data.completed, created_at)
    return to_task(await state.pool.fetchrow(f"{insert} RETURNING {COLUMNS}", *values))


@put("/api/tasks/{id:int}")
async def replace_task(state: State, id: int, data: TaskInput) -> Task:
    update = "UPDATE task SET title = $1, description = $2, completed = $3 WHERE id = $4"
    values = (data.title, data.description, data.completed, id)
    return to_task(await state.pool.fetchrow(f"{update} RETURNING {COLUMNS}", *values))


app = Litestar([list_tasks, get_task, create_task, replace_task], lifespan=[open_pool])
