"""Calls that several tests make, and what they expect of the answers."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from handlers.contract import document as contract
from models.schemas import Problem
from tests.support.inside import run
from tests.support.project import PATIENCE
from tests.support.stores import Store

# Those that a path of a contract can have (OpenAPI 3.0.3, Path Item Object).
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
# A method that no contract can have, since OpenAPI has no operation of this name.
FOREIGN_METHOD = "PROPFIND"
# A call that reads or writes in each way, and what it says if it fails.
CALLS = [
    ("GET", "/api/tasks", "Failed to fetch tasks"),
    ("POST", "/api/tasks", "Failed to create task"),
    ("GET", "/api/tasks/1", "Failed to fetch task"),
    ("PUT", "/api/tasks/1", "Failed to update task"),
    ("DELETE", "/api/tasks/1", "Failed to delete task"),
]
UNAVAILABLE = "The tasks are temporarily unavailable; retry in a moment"
TASK = {"title": "Write the tutorial", "completed": False}


def methods(template: str) -> list[str]:
    """Return the methods that a path of the contract takes, in its order."""
    item = [name.upper() for name in contract.document()["paths"][template] if name in METHODS]
    return [*(method for name in item for method in ([name, "HEAD"] if name == "GET" else [name])), "OPTIONS"]


def call(client: httpx.Client, method: str, path: str) -> httpx.Response:
    return client.request(method, path, json={"title": "a"} if method in ("POST", "PUT") else None)


def assert_unavailable(answer: httpx.Response) -> None:
    """It may be tried again, and says no more than the contract does."""
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": UNAVAILABLE,
    }


def assert_is_problem(status: int, answer: httpx.Response) -> None:
    """The answer is a problem in the one shape that there is."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.content)
    assert (problem.type, problem.status) == ("about:blank", status)
    assert problem.title
    assert problem.detail
    # What does not apply is left out.
    assert list(answer.json()) == ["type", "title", "status", "detail", "errors"][: 5 if problem.errors else 4]
    assert status == 400 or not problem.errors
    for violation in problem.errors or []:
        assert (violation.pointer is None) != (violation.parameter is None)
    assert answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (409, 503))
    assert answer.headers["cache-control"] == "no-store"
    assert ("allow" in answer.headers) == (status == 405)


def make_key(store: Store, folder: Path, name: str = "app") -> str:
    """Make a key with the command, and return it."""
    made = run(folder, "key", "new", name, variables={"DATABASE_URL": store.url})
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def revoke_key(store: Store, folder: Path, name: str = "app") -> None:
    """Revoke a key with the command."""
    assert run(folder, "key", "revoke", name, variables={"DATABASE_URL": store.url}).returncode == 0


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def wait_for(client: httpx.Client, status: int, path: str = "/api/tasks", **options: object) -> float:
    """Ask until the answer has a status, and return how many seconds that took."""
    start = monotonic()
    while client.get(path, **options).status_code != status:  # type: ignore[arg-type]
        assert monotonic() - start < PATIENCE
        sleep(0.01)
    return monotonic() - start


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    give_up = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < give_up
        sleep(0.01)


def create(client: httpx.Client, count: int) -> list[int]:
    """Create tasks of which every second one is completed, and return their ids."""
    answers = [client.post("/api/tasks", json={"title": f"Task {i}", "completed": i % 2 == 1}) for i in range(count)]
    return [answer.json()["id"] for answer in answers]


def walk(client: httpx.Client, url: str) -> list[list[int]]:
    """Return the ids on each page of the list, from the first page to the last."""
    page = client.get(url)
    pages = [[task["id"] for task in page.json()]]
    while "next" in page.links:
        page = client.get(page.links["next"]["url"])
        pages.append([task["id"] for task in page.json()])
    return pages


def post(client: httpx.Client, key: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return client.post("/api/tasks", json=body or TASK, headers={"Idempotency-Key": key, **headers})


def titles(client: httpx.Client) -> list[str]:
    return [task["title"] for task in client.get("/api/tasks?limit=1000").json()]


def lasting(answer: httpx.Response) -> dict[str, str]:
    passing = ("date", "idempotency-replayed", "x-request-id")
    return {name: value for name, value in answer.headers.items() if name not in passing}


def assert_replayed(again: httpx.Response, first: httpx.Response) -> None:
    """The answer is the first one once more, and says so."""
    assert (again.status_code, again.content, lasting(again)) == (201, first.content, lasting(first))
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
