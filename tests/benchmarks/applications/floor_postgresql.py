"""The floor on PostgreSQL: a bare ASGI function with asyncpg and orjson, which validates nothing."""

import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import asyncpg
import orjson
from starlette.types import Receive, Scope, Send

COLUMNS = "id, title, description, completed, created_at"
NOT_FOUND = b'{"title":"Not Found"}'


class Pool:
    """The pool of connections, which exists while the server runs."""

    current: asyncpg.Pool


def to_document(row: asyncpg.Record) -> dict[str, Any]:
    id, title, description, completed, created_at = row
    return {"id": id, "title": title, "description": description, "completed": completed, "createdAt": created_at}


async def list_page(query: bytes) -> bytes:
    parameters = parse_qs(query.decode())
    limit, after = int(parameters["limit"][0]), int(parameters.get("after", ["0"])[0])
    select = f"SELECT {COLUMNS} FROM task WHERE id > $1 ORDER BY id LIMIT $2"
    return orjson.dumps([to_document(row) for row in await Pool.current.fetch(select, after, limit)])


async def get(id: int) -> bytes:
    row = await Pool.current.fetchrow(f"SELECT {COLUMNS} FROM task WHERE id = $1", id)
    return orjson.dumps(to_document(row)) if row else NOT_FOUND


async def create(task: dict[str, Any]) -> bytes:
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = (task["title"], task.get("description"), task.get("completed", False), created_at)
    insert = "INSERT INTO task (title, description, completed, created_at) VALUES ($1, $2, $3, $4)"
    return orjson.dumps(to_document(await Pool.current.fetchrow(f"{insert} RETURNING {COLUMNS}", *values)))


async def replace(id: int, task: dict[str, Any]) -> bytes:
    values = (task["title"], task.get("description"), task.get("completed", False), id)
    update = "UPDATE task SET title = $1, description = $2, completed = $3 WHERE id = $4"
    row = await Pool.current.fetchrow(f"{update} RETURNING {COLUMNS}", *values)
    return orjson.dumps(to_document(row)) if row else NOT_FOUND


async def run_lifespan(receive: Receive, send: Send) -> None:
    await receive()
    async with asyncpg.create_pool(os.environ["BENCHMARK_DATABASE"], min_size=10, max_size=10) as Pool.current:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await run_lifespan(receive, send)
        return
    id = scope["path"].removeprefix("/api/tasks").lstrip("/")
    status = 200
    if scope["method"] == "GET":
        body = await (get(int(id)) if id else list_page(scope["query_string"]))
    else:
        message = await receive()
        task = orjson.loads(message["body"])
        body = await (replace(int(id), task) if id else create(task))
        status = 200 if id else 201
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
