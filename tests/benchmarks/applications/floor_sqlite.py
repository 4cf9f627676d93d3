"""The peer that does the least: a bare ASGI function with `sqlite3` and orjson, which validates nothing.

Like the service, this function flushes each commit (`synchronous=FULL`).
"""

import os
import sqlite3
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import orjson
from starlette.types import Receive, Scope, Send

COLUMNS = "id, title, description, completed, created_at"
NOT_FOUND = b'{"title":"Not Found"}'

database = sqlite3.connect(os.environ["BENCHMARK_DATABASE"], isolation_level=None)
database.execute("PRAGMA journal_mode = wal")
database.execute("PRAGMA synchronous = full")


def to_document(row: tuple[Any, ...]) -> dict[str, Any]:
    id, title, description, completed, created_at = row
    return {
        "id": id,
        "title": title,
        "description": description,
        "completed": bool(completed),
        "createdAt": created_at,
    }


def list_page(query: bytes) -> bytes:
    parameters = parse_qs(query.decode())
    limit, after = int(parameters["limit"][0]), int(parameters.get("after", ["0"])[0])
    rows = database.execute(f"SELECT {COLUMNS} FROM task WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    return orjson.dumps([to_document(row) for row in rows])


def get(id: int) -> bytes:
    rows = database.execute(f"SELECT {COLUMNS} FROM task WHERE id = ?", (id,)).fetchall()
    return orjson.dumps(to_document(rows[0])) if rows else NOT_FOUND


def create(task: dict[str, Any]) -> bytes:
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = (task["title"], task.get("description"), task.get("completed", False), created_at)
    insert = "INSERT INTO task (title, description, completed, created_at) VALUES (?, ?, ?, ?)"
    return orjson.dumps(to_document(database.execute(f"{insert} RETURNING {COLUMNS}", values).fetchall()[0]))


def replace(id: int, task: dict[str, Any]) -> bytes:
    values = (task["title"], task.get("description"), task.get("completed", False), id)
    update = "UPDATE task SET title = ?, description = ?, completed = ? WHERE id = ?"
    rows = database.execute(f"{update} RETURNING {COLUMNS}", values).fetchall()
    return orjson.dumps(to_document(rows[0])) if rows else NOT_FOUND


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    id = scope["path"].removeprefix("/api/tasks").lstrip("/")
    status = 200
    if scope["method"] == "GET":
        body = get(int(id)) if id else list_page(scope["query_string"])
    else:
        message = await receive()
        task = orjson.loads(message["body"])
        body = replace(int(id), task) if id else create(task)
        status = 200 if id else 201
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
