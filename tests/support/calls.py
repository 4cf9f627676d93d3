"""Requests that several tests send, and assertions on their responses."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from handlers.contract import document
from handlers.contract.validation import Rules
from tests.support.inside import run
from tests.support.project import TIMEOUT
from tests.support.stores import Store

# The methods that a Path Item Object may define (OpenAPI 3.0.3).
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
# A method that no contract can define, because OpenAPI has no field for it.
UNKNOWN_METHOD = "PROPFIND"
# A request for each operation, and the `detail` of its 500 response.
CALLS = [
    ("GET", "/api/tasks", "Failed to fetch tasks"),
    ("POST", "/api/tasks", "Failed to create task"),
    ("GET", "/api/tasks/1", "Failed to fetch task"),
    ("PUT", "/api/tasks/1", "Failed to update task"),
    ("DELETE", "/api/tasks/1", "Failed to delete task"),
]
UNAVAILABLE = "The service is temporarily unavailable; retry in a moment"
PROBLEM = Rules({"$ref": "#/components/schemas/Problem"}, "the problem")
TASK = {"title": "Write the tutorial", "completed": False}


def methods(template: str) -> list[str]:
    """Return the methods that a path of the contract allows, including HEAD and OPTIONS."""
    item = [name.upper() for name in document.raw()["paths"][template] if name in METHODS]
    return [*(method for name in item for method in ([name, "HEAD"] if name == "GET" else [name])), "OPTIONS"]


def call(client: httpx.Client, method: str, path: str) -> httpx.Response:
    return client.request(method, path, json={"title": "a"} if method in ("POST", "PUT") else None)


def assert_unavailable(response: httpx.Response) -> None:
    """Assert that the response is a 503 that allows a retry and does not reveal the cause."""
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    assert response.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": UNAVAILABLE,
    }


def assert_is_problem(status: int, response: httpx.Response) -> None:
    """Assert that the response is a well-formed problem document with the given status."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert list(PROBLEM.violations(problem)) == []
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert problem["title"]
    assert problem["detail"]
    assert status == 400 or "errors" not in problem
    for violation in problem.get("errors", []):
        assert ("pointer" in violation) != ("parameter" in violation)
    assert response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (status in (409, 503))
    assert response.headers["cache-control"] == "no-store"
    assert ("allow" in response.headers) == (status == 405)


def make_key(store: Store, folder: Path, name: str = "app") -> str:
    """Create an API key with the command `tasks-api key new`, and return the key."""
    made = run(folder, "key", "new", name, variables={"DATABASE_URL": store.url})
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def revoke_key(store: Store, folder: Path, name: str = "app") -> None:
    """Revoke an API key with the command `tasks-api key revoke`."""
    assert run(folder, "key", "revoke", name, variables={"DATABASE_URL": store.url}).returncode == 0


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def wait_for(client: httpx.Client, status: int, path: str = "/api/tasks", **options: object) -> float:
    """Poll until the response has the given status; return the elapsed seconds."""
    start = monotonic()
    while client.get(path, **options).status_code != status:  # type: ignore[arg-type]
        assert monotonic() - start < TIMEOUT
        sleep(0.01)
    return monotonic() - start


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until the condition holds."""
    deadline = monotonic() + TIMEOUT
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


def create(client: httpx.Client, count: int) -> list[int]:
    """Create tasks, every second one completed, and return their ids."""
    responses = [client.post("/api/tasks", json={"title": f"Task {i}", "completed": i % 2 == 1}) for i in range(count)]
    return [response.json()["id"] for response in responses]


def walk(client: httpx.Client, url: str) -> list[list[int]]:
    """Follow the `next` links of the list; return the ids on each page."""
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


def stable_headers(response: httpx.Response) -> dict[str, str]:
    varying = ("date", "idempotency-replayed", "x-request-id")
    return {name: value for name, value in response.headers.items() if name not in varying}


def assert_replayed(replay: httpx.Response, first: httpx.Response) -> None:
    """Assert that a response replays the first response, and is marked as a replay."""
    assert (replay.status_code, replay.content, stable_headers(replay)) == (201, first.content, stable_headers(first))
    assert "idempotency-replayed" not in first.headers
    assert replay.headers["idempotency-replayed"] == "true"
