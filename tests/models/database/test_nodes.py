"""What many callers at once are promised, by one process, by the workers of one node, and by two nodes."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from threading import Event

import httpx
import psutil

from tests.support import wire
from tests.support.calls import TASK, create, titles, wait_until, walk
from tests.support.service import Start


def test_no_update_is_lost(urls: list[str]) -> None:
    """16 callers count together, each with what it has read last."""
    httpx.post(f"{urls[0]}/api/tasks", json={"title": "counter", "description": "0"})
    path, goal = "/api/tasks/1", 100

    def count(url: str) -> int:
        counted = 0
        with wire.connect(url) as connection:
            while True:
                read = wire.call(connection, "GET", path)
                number = int(read.json()["description"])
                if number >= goal:
                    return counted
                body = {"title": "counter", "description": str(number + 1)}
                written = wire.call(connection, "PUT", path, body, {"If-Match": read.headers["etag"]})
                assert written.status in (200, 412)
                counted += written.status == 200

    with ThreadPoolExecutor(16) as pool:
        counts = [future.result() for future in [pool.submit(count, url) for _, url in zip(range(16), cycle(urls))]]

    assert sum(counts) == goal
    kept = httpx.get(f"{urls[-1]}{path}")
    assert kept.json()["description"] == str(goal)
    assert kept.headers["etag"].startswith(f'"{goal + 1}-')


def test_two_workers_share_the_connections_and_the_tasks(start: Start) -> None:
    """Else one would do nearly all the work."""
    service = start("--workers", "2")
    with ExitStack() as stack:
        connections = [stack.enter_context(wire.connect(service.url)) for _ in range(64)]
        ids = [wire.call(connection, "POST", "/api/tasks", TASK).json()["id"] for connection in connections]
        port = httpx.URL(service.url).port
        held = [
            sum(connection.status == "ESTABLISHED" and connection.laddr[1] == port for connection in found)
            for worker in psutil.Process(service.process.pid).children()
            if (found := worker.net_connections())
        ]

    assert ids == list(range(1, 65))
    assert sum(held) == 64
    assert len(held) == 2
    assert min(held) > 8
    assert walk(service.client, "/api/tasks?limit=7")[-1] == [64]
    assert service.stop() == 0
    assert service.log() == ""


def test_walk_neither_misses_nor_repeats_a_task(urls: list[str]) -> None:
    """While others create and delete: every task that is there all the time is visited once."""
    with (
        ThreadPoolExecutor(8) as pool,
        httpx.Client(base_url=urls[0]) as client,
        httpx.Client(base_url=urls[-1]) as other,
    ):
        lasting = create(client, 60)
        passing: set[int] = set()
        done = Event()

        def write() -> None:
            while not done.is_set():
                created = other.post("/api/tasks", json={"title": "Passing"}).json()["id"]
                passing.add(created)
                other.delete(f"/api/tasks/{created}")

        writers = [pool.submit(write) for _ in range(4)]
        try:
            wait_until(lambda: bool(passing))
            before = len(passing)
            walks = [pool.submit(walk, client, f"/api/tasks?limit={limit}") for limit in (1, 2, 3, 7)]
            visits = [[id for page in future.result() for id in page] for future in walks]
            assert len(passing) > before
        finally:
            done.set()
        for writer in writers:
            writer.result()

    for visited in visits:
        assert visited == sorted(set(visited))
        assert set(lasting) <= set(visited) <= set(lasting) | passing


def test_one_task_comes_of_many_requests_with_one_key(urls: list[str]) -> None:
    def post(url: str) -> wire.Answer:
        with wire.connect(url) as connection:
            while True:
                answer = wire.call(connection, "POST", "/api/tasks", TASK, {"Idempotency-Key": "key"})
                if answer.status != 409:
                    return answer

    with ThreadPoolExecutor(32) as pool:
        answers = [future.result() for future in [pool.submit(post, url) for _, url in zip(range(32), cycle(urls))]]

    with httpx.Client(base_url=urls[-1]) as client:
        assert titles(client) == [TASK["title"]]
    assert {(answer.status, answer.body) for answer in answers} == {(201, answers[0].body)}
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 31
    assert len({(answer.headers["location"], answer.headers["etag"]) for answer in answers}) == 1
