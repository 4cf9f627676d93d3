"""Refusals and failures: one shape, the contract's words, and nothing of the cause."""

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from models.schemas import Problem
from tests.conftest import Start

CALLS = [
    ("GET", "/api/tasks", "Failed to fetch tasks"),
    ("POST", "/api/tasks", "Failed to create task"),
    ("GET", "/api/tasks/1", "Failed to fetch task"),
    ("PUT", "/api/tasks/1", "Failed to update task"),
    ("DELETE", "/api/tasks/1", "Failed to delete task"),
]


def call(client: httpx.Client, method: str, path: str) -> httpx.Response:
    return client.request(method, path, json={"title": "a"} if method in ("POST", "PUT") else None)


@pytest.mark.parametrize(
    ("status", "method", "path", "options"),
    [
        (400, "GET", "/api/tasks?limit=0", {}),
        (400, "POST", "/api/tasks", {"json": {}}),
        (404, "GET", "/api/tasks/9999", {}),
        (404, "GET", "/nowhere", {}),
        (404, "GET", "/docs/assets/nothing", {}),
        (405, "PATCH", "/api/tasks", {}),
        (405, "POST", "/docs", {}),
        (413, "POST", "/api/tasks", {"json": {"title": "a" * 70000}}),
        (415, "POST", "/api/tasks", {"content": b"title"}),
    ],
)
def test_every_refusal_has_the_shape_of_the_contract(
    shared_client: httpx.Client, status: int, method: str, path: str, options: dict[str, object]
) -> None:
    answer = shared_client.request(method, path, **options)  # type: ignore[arg-type]

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.content)
    assert problem.status == status
    assert bool(problem.errors) == (status == 400)


def test_failure_says_what_failed_but_not_why(start: Start, tmp_path: Path) -> None:
    service = start()
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        database.execute("DROP TABLE task")

    for method, path, detail in CALLS:
        answer = call(service.client, method, path)
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json() == {
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "detail": detail,
        }
        assert f"{method} {path} failed" in service.log()
    assert "no such table: task" in service.log()


def test_locked_database_is_unavailable_for_writes_only(start: Start, tmp_path: Path) -> None:
    service = start()
    service.client.post("/api/tasks", json={"title": "a"})
    with closing(sqlite3.connect(tmp_path / "tasks.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        refused = service.client.put("/api/tasks/1", json={"title": "b"})
        read = service.client.get("/api/tasks/1")
        database.execute("ROLLBACK")

    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["detail"] == "The tasks are out of reach for a moment; try again"
    assert read.json()["title"] == "a"
    assert "Traceback" not in service.log()
    assert service.client.put("/api/tasks/1", json={"title": "b"}).status_code == 200


def test_caller_who_leaves_during_the_body_does_no_harm(start: Start) -> None:
    service = start()

    def body() -> object:
        yield b'{"title": '
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        service.client.post("/api/tasks", content=body(), headers={"Content-Type": "application/json"})  # type: ignore[arg-type]

    assert service.client.get("/api/tasks").json() == []
    assert service.log() == ""
