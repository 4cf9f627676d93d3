"""Every answer is right at some moment between the request and the answer, whoever else reads and writes."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest

from tests.support import wire
from tests.support.linearizability import Operation, is_linearizable

# By id: the entity tag and the title of each task.
Tasks = tuple[tuple[int, tuple[str, str]], ...]
# Method, id, title, entity tag in If-Match.
Call = tuple[str, int | None, str | None, str | None]
# Status, entity tag, and the title, or the ids and titles of all tasks.
Answer = tuple[int, str | None, Any]

CALLERS = 8
CALLS = 100


def step(tasks: Tasks, call: Call, answer: Answer) -> Tasks | None:
    """Return the tasks after a call, or None if the answer is another one than the tasks give."""
    method, id, title, condition = call
    if id is None:
        return _step_of_all(tasks, method, title, answer)
    kept = dict(tasks)
    status, tag, said = answer
    if id not in kept:
        return tasks if status == 404 else None
    current, current_title = kept[id]
    if method == "GET":
        return tasks if answer == (200, current, current_title) else None
    if condition not in (None, current):
        return tasks if status == 412 else None
    replaced = method == "PUT" and tag != current and said == title
    if status != 200 or not (replaced or method == "DELETE"):
        return None
    others = {other: task for other, task in kept.items() if other != id}
    return tuple(sorted({**others, **({id: (str(tag), str(title))} if replaced else {})}.items()))


def _step_of_all(tasks: Tasks, method: str, title: str | None, answer: Answer) -> Tasks | None:
    status, tag, said = answer
    if method == "GET":
        return tasks if said == [(id, title) for id, (_, title) in tasks] else None
    is_new = status == 201 and said > max(dict(tasks), default=0)
    return (*tasks, (said, (str(tag), str(title)))) if is_new else None


def operations(urls: list[str], seed: int) -> Iterator[Operation]:
    """Make random calls to a few tasks, and yield each with its answer."""
    chance = random.Random(seed)
    seen: dict[int, str] = {}
    connection = wire.connect(urls[0])
    for number in range(CALLS):
        if number % 10 == 0:
            # Perhaps with another worker, or to another node.
            connection.close()
            connection = wire.connect(chance.choice(urls))
        method = chance.choice(["GET"] * 4 + ["PUT"] * 4 + ["LIST"] + ["POST"] * (seed == 0) + ["DELETE"] * (seed == 1))
        id = (
            None
            if method in ("LIST", "POST")
            else chance.randint(1, 4)
            if number < CALLS // 2
            else chance.randint(4, 7)
        )
        title = f"{seed}.{number}" if method in ("PUT", "POST") else None
        condition = seen.get(id) if id and method in ("PUT", "DELETE") and chance.random() < 0.6 else None
        called = monotonic()
        answer = wire.call(
            connection,
            "GET" if method == "LIST" else method,
            f"/api/tasks/{id}" if id else "/api/tasks",
            {"title": title} if title else None,
            {"If-Match": condition} if condition else {},
        )
        returned = monotonic()
        tag = answer.headers.get("etag") if method != "LIST" else None
        body = answer.json()
        said: Any = None
        if method == "LIST":
            said = [(task["id"], task["title"]) for task in body]
        elif method == "POST":
            said = body["id"]
        elif method != "DELETE" and answer.status == 200:
            said = body["title"]
        if id and tag:
            seen[id] = tag
        yield Operation(
            called, returned, ("GET" if method == "LIST" else method, id, title, condition), (answer.status, tag, said)
        )
    connection.close()


def test_history_is_linearizable(urls: list[str]) -> None:
    nothing: Tasks = ()
    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(lambda seed: list(operations(urls, seed)), seed) for seed in range(CALLERS)]
        history = [operation for caller in callers for operation in caller.result()]

    assert len(history) == CALLERS * CALLS
    together = sum(other.called < one.called < other.returned for one in history for other in history)
    statuses = {operation.answer[0] for operation in history}
    # Callers really came in each other's way.
    assert together > len(history)
    assert statuses == {200, 201, 404, 412}
    assert is_linearizable(history, nothing, step)


TASKS: Tasks = ((1, ("a1", "a")),)
READ_A: tuple[Call, Answer] = (("GET", 1, None, None), (200, "a1", "a"))
READ_B: tuple[Call, Answer] = (("GET", 1, None, None), (200, "b1", "b"))
WRITE_B: tuple[Call, Answer] = (("PUT", 1, "b", "a1"), (200, "b1", "b"))
WRITE_C: tuple[Call, Answer] = (("PUT", 1, "c", "a1"), (200, "c1", "c"))
REFUSED: tuple[Call, Answer] = (("PUT", 1, "c", "a1"), (412, None, None))
DELETED: tuple[Call, Answer] = (("DELETE", 1, None, None), (200, None, None))
MISSED: tuple[Call, Answer] = (("GET", 1, None, None), (404, None, None))
CREATED: tuple[Call, Answer] = (("POST", None, "d", None), (201, "d1", 1))
LISTED: tuple[Call, Answer] = (("GET", None, None, None), (200, None, [(1, "b")]))


@pytest.mark.parametrize(
    ("history", "right"),
    [
        ([(0, 1, *WRITE_B), (2, 3, *READ_B)], True),
        ([(0, 1, *WRITE_B), (2, 3, *READ_A)], False),
        ([(0, 3, *WRITE_B), (1, 2, *READ_A)], True),
        ([(0, 9, *WRITE_B), (1, 2, *READ_B), (3, 4, *READ_A)], False),
        ([(0, 9, *WRITE_B), (1, 2, *READ_A), (3, 4, *READ_B), (5, 6, *LISTED)], True),
        ([(0, 3, *WRITE_B), (1, 4, *WRITE_C)], False),
        ([(0, 3, *WRITE_B), (1, 4, *REFUSED)], True),
        ([(0, 1, *REFUSED), (2, 3, *WRITE_B)], False),
        ([(0, 5, *DELETED), (1, 2, *READ_A), (3, 4, *MISSED)], True),
        ([(0, 1, *DELETED), (2, 3, *READ_A)], False),
        ([(0, 1, *DELETED), (2, 3, *DELETED)], False),
        ([(0, 1, *MISSED)], False),
        ([(0, 1, *CREATED)], False),
        ([(0, 1, *LISTED)], False),
    ],
)
def test_check_tells_right_from_wrong(history: list[Any], right: bool) -> None:
    assert is_linearizable([Operation(*operation) for operation in history], TASKS, step) == right
