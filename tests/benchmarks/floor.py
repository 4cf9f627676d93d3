"""The floor: a bare ASGI function, `sqlite3` and orjson. It checks nothing, and nothing in Python can do much less.

`sqlite3` and the flush of each commit (`synchronous=FULL`) are those of the service.
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


def task(row: tuple[Any, ...]) -> dict[str, Any]:
    id, title, description, completed, created_at = row
    return {
        "id": id,
        "title": title,
        "description": description,
        "completed": bool(completed),
        "createdAt": created_at,
    }


def page(query: bytes) -> bytes:
    given = parse_qs(query.decode())
    limit, after = int(given["limit"][0]), int(given.get("after", ["0"])[0])
    rows = database.execute(f"SELECT {COLUMNS} FROM task WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    return orjson.dumps([task(row) for row in rows])


def get(id: int) -> bytes:
    rows = database.execute(f"SELECT {COLUMNS} FROM task WHERE id = ?", (id,)).fetchall()
    return orjson.dumps(task(rows[0])) if rows else NOT_FOUND


def create(given: dict[str, Any]) -> bytes:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = (given["title"], given.get("description"), given.get("completed", False), moment)
    insert = "INSERT INTO task (title, description, completed, created_at) VALUES (?, ?, ?, ?)"
    return orjson.dumps(task(database.execute(f"{insert} RETURNING {COLUMNS}", values).fetchall()[0]))


def replace(id: int, given: dict[str, Any]) -> bytes:
    values = (given["title"], given.get("description"), given.get("completed", False), id)
    update = "UPDATE task SET title = ?, description = ?, completed = ? WHERE id = ?"
    rows = database.execute(f"{update} RETURNING {COLUMNS}", values).fetchall()
    return orjson.dumps(task(rows[0])) if rows else NOT_FOUND


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    id = scope["path"].removeprefix("/api/tasks").lstrip("/")
    status = 200
    if scope["method"] == "GET":
        body = get(int(id)) if id else page(scope["query_string"])
    else:
        received = await receive()
        given = orjson.loads(received["body"])
        body = replace(int(id), given) if id else create(given)
        status = 200 if id else 201
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
