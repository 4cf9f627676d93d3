"""Concurrent reads and writes are linearizable: each takes effect at a moment between its request and response."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest

from tests.support import wire
from tests.support.linearizability import Operation, is_linearizable

# The state of all tasks: the id of each task, with a pair of its entity tag and title.
Tasks = tuple[tuple[int, tuple[str, str]], ...]
# A request: its method, task id, title, and entity tag in If-Match.
Call = tuple[str, int | None, str | None, str | None]
# A response: its status, entity tag and content (the title or id of a task, or the ids and titles of all tasks).
Response = tuple[int, str | None, Any]

CLIENTS = 8
REQUESTS = 100


def step(tasks: Tasks, call: Call, response: Response) -> Tasks | None:
    """Return the tasks after a call, or None if the response contradicts the tasks before the call."""
    method, id, title, condition = call
    if id is None:
        return _step_of_collection(tasks, method, title, response)
    tags_and_titles = dict(tasks)
    status, tag, content = response
    if id not in tags_and_titles:
        return tasks if status == 404 else None
    current, current_title = tags_and_titles[id]
    if method == "GET":
        return tasks if response == (200, current, current_title) else None
    if condition not in (None, current):
        return tasks if status == 412 else None
    replaced = method == "PUT" and tag != current and content == title
    if status != 200 or not (replaced or method == "DELETE"):
        return None
    others = {other: task for other, task in tags_and_titles.items() if other != id}
    return tuple(sorted({**others, **({id: (str(tag), str(title))} if replaced else {})}.items()))


def _step_of_collection(tasks: Tasks, method: str, title: str | None, response: Response) -> Tasks | None:
    status, tag, content = response
    if method == "GET":
        return tasks if content == [(id, title) for id, (_, title) in tasks] else None
    is_new = status == 201 and content > max(dict(tasks), default=0)
    return (*tasks, (content, (str(tag), str(title)))) if is_new else None


def operations(urls: list[str], seed: int) -> Iterator[Operation]:
    """Send random requests for a few tasks, and yield each request with its response."""
    rng = random.Random(seed)
    seen: dict[int, str] = {}
    connection = wire.connect(urls[0])
    for number in range(REQUESTS):
        if number % 10 == 0:
            # Reconnect, because the next connection may reach another worker or node.
            connection.close()
            connection = wire.connect(rng.choice(urls))
        method = rng.choice(["GET"] * 4 + ["PUT"] * 4 + ["LIST"] + ["POST"] * (seed == 0) + ["DELETE"] * (seed == 1))
        id = None if method in ("LIST", "POST") else rng.randint(1, 4) if number < REQUESTS // 2 else rng.randint(4, 7)
        title = f"{seed}.{number}" if method in ("PUT", "POST") else None
        condition = seen.get(id) if id and method in ("PUT", "DELETE") and rng.random() < 0.6 else None
        called = monotonic()
        response = wire.call(
            connection,
            "GET" if method == "LIST" else method,
            f"/api/tasks/{id}" if id else "/api/tasks",
            {"title": title} if title else None,
            {"If-Match": condition} if condition else {},
        )
        returned = monotonic()
        tag = response.headers.get("etag") if method != "LIST" else None
        body = response.json()
        content: Any = None
        if method == "LIST":
            content = [(task["id"], task["title"]) for task in body]
        elif method == "POST":
            content = body["id"]
        elif method != "DELETE" and response.status == 200:
            content = body["title"]
        if id and tag:
            seen[id] = tag
        yield Operation(
            called,
            returned,
            ("GET" if method == "LIST" else method, id, title, condition),
            (response.status, tag, content),
        )
    connection.close()


def test_history_is_linearizable(urls: list[str]) -> None:
    no_tasks: Tasks = ()
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(lambda seed: list(operations(urls, seed)), seed) for seed in range(CLIENTS)]
        history = [operation for client in clients for operation in client.result()]

    assert len(history) == CLIENTS * REQUESTS
    overlaps = sum(other.called < one.called < other.returned for one in history for other in history)
    statuses = {operation.response[0] for operation in history}
    # The history proves something only if the requests of different clients overlapped.
    assert overlaps > len(history)
    assert statuses == {200, 201, 404, 412}
    assert is_linearizable(history, no_tasks, step)


TASKS: Tasks = ((1, ("a1", "a")),)
READ_A: tuple[Call, Response] = (("GET", 1, None, None), (200, "a1", "a"))
READ_B: tuple[Call, Response] = (("GET", 1, None, None), (200, "b1", "b"))
WRITE_B: tuple[Call, Response] = (("PUT", 1, "b", "a1"), (200, "b1", "b"))
WRITE_C: tuple[Call, Response] = (("PUT", 1, "c", "a1"), (200, "c1", "c"))
STALE_WRITE: tuple[Call, Response] = (("PUT", 1, "c", "a1"), (412, None, None))
DELETED: tuple[Call, Response] = (("DELETE", 1, None, None), (200, None, None))
NOT_FOUND: tuple[Call, Response] = (("GET", 1, None, None), (404, None, None))
CREATED: tuple[Call, Response] = (("POST", None, "d", None), (201, "d1", 1))
LISTED: tuple[Call, Response] = (("GET", None, None, None), (200, None, [(1, "b")]))


@pytest.mark.parametrize(
    ("history", "linearizable"),
    [
        ([(0, 1, *WRITE_B), (2, 3, *READ_B)], True),
        ([(0, 1, *WRITE_B), (2, 3, *READ_A)], False),
        ([(0, 3, *WRITE_B), (1, 2, *READ_A)], True),
        ([(0, 9, *WRITE_B), (1, 2, *READ_B), (3, 4, *READ_A)], False),
        ([(0, 9, *WRITE_B), (1, 2, *READ_A), (3, 4, *READ_B), (5, 6, *LISTED)], True),
        ([(0, 3, *WRITE_B), (1, 4, *WRITE_C)], False),
        ([(0, 3, *WRITE_B), (1, 4, *STALE_WRITE)], True),
        ([(0, 1, *STALE_WRITE), (2, 3, *WRITE_B)], False),
        ([(0, 5, *DELETED), (1, 2, *READ_A), (3, 4, *NOT_FOUND)], True),
        ([(0, 1, *DELETED), (2, 3, *READ_A)], False),
        ([(0, 1, *DELETED), (2, 3, *DELETED)], False),
        ([(0, 1, *NOT_FOUND)], False),
        ([(0, 1, *CREATED)], False),
        ([(0, 1, *LISTED)], False),
    ],
)
def test_checker_recognizes_linearizable_histories(history: list[Any], linearizable: bool) -> None:
    assert is_linearizable([Operation(*operation) for operation in history], TASKS, step) == linearizable
