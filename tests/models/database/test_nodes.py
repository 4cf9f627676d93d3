"""Guarantees for concurrent clients of a single process, of the workers of one node, and of two nodes."""

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
    """16 clients increment a counter: each client adds one to the value that it read last."""
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
    """If the workers did not share the connections, one worker would do nearly all the work."""
    service = start("--workers", "2")
    with ExitStack() as stack:
        connections = [stack.enter_context(wire.connect(service.url)) for _ in range(64)]
        ids = [wire.call(connection, "POST", "/api/tasks", TASK).json()["id"] for connection in connections]
        port = httpx.URL(service.url).port
        counts = [
            sum(connection.status == "ESTABLISHED" and connection.laddr[1] == port for connection in found)
            for worker in psutil.Process(service.process.pid).children()
            if (found := worker.net_connections())
        ]

    assert ids == list(range(1, 65))
    assert sum(counts) == 64
    assert len(counts) == 2
    assert min(counts) > 8
    assert walk(service.client, "/api/tasks?limit=7")[-1] == [64]
    assert service.stop() == 0
    assert service.log() == ""


def test_pagination_neither_misses_nor_repeats_a_task(urls: list[str]) -> None:
    """While other clients create and delete tasks, a client visits every other task exactly once."""
    with (
        ThreadPoolExecutor(8) as pool,
        httpx.Client(base_url=urls[0]) as client,
        httpx.Client(base_url=urls[-1]) as other,
    ):
        permanent = create(client, 60)
        temporary: set[int] = set()
        done = Event()

        def write() -> None:
            while not done.is_set():
                created = other.post("/api/tasks", json={"title": "Temporary"}).json()["id"]
                temporary.add(created)
                other.delete(f"/api/tasks/{created}")

        writers = [pool.submit(write) for _ in range(4)]
        try:
            wait_until(lambda: bool(temporary))
            before = len(temporary)
            walks = [pool.submit(walk, client, f"/api/tasks?limit={limit}") for limit in (1, 2, 3, 7)]
            visits = [[id for page in future.result() for id in page] for future in walks]
            assert len(temporary) > before
        finally:
            done.set()
        for writer in writers:
            writer.result()

    for visited in visits:
        assert visited == sorted(set(visited))
        assert set(permanent) <= set(visited) <= set(permanent) | temporary


def test_many_requests_with_one_key_create_one_task(urls: list[str]) -> None:
    def post(url: str) -> wire.Response:
        with wire.connect(url) as connection:
            while True:
                response = wire.call(connection, "POST", "/api/tasks", TASK, {"Idempotency-Key": "key"})
                if response.status != 409:
                    return response

    with ThreadPoolExecutor(32) as pool:
        responses = [future.result() for future in [pool.submit(post, url) for _, url in zip(range(32), cycle(urls))]]

    with httpx.Client(base_url=urls[-1]) as client:
        assert titles(client) == [TASK["title"]]
    assert {(response.status, response.body) for response in responses} == {(201, responses[0].body)}
    assert sum("idempotency-replayed" in response.headers for response in responses) == 31
    assert len({(response.headers["location"], response.headers["etag"]) for response in responses}) == 1
