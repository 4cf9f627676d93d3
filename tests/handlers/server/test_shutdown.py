"""The end of a service: what has arrived is answered, what has not is told, and nobody loses anything."""

import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from threading import Event
from time import monotonic
from uuid import uuid4

import httpx
import pytest

from tests.support import wire
from tests.support.calls import wait_until
from tests.support.service import Service, Start
from tests.support.stores import Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each keeps what is promised in a way of its own."""
    return str(request.param)


BEGUN = wire.request("POST", "/api/tasks", {"title": "a"})[:-5]


@pytest.fixture
def workers(backend: str) -> str:
    """One of them with a file, several with a server, as is usual."""
    return "1" if backend == "sqlite" else "2"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def refuses(service: Service) -> bool:
    """Tell whether the service takes no connections any more."""
    try:
        wire.connect(service.url).close()
    except ConnectionRefusedError:
        return True
    return False


def test_request_that_has_arrived_is_answered(start: Start, store: Store, workers: str) -> None:
    """While nothing new is accepted; what has not arrived, and an idle connection, do not keep the service."""
    service = start("--workers", workers)
    with (
        wire.connect(service.url) as arrived,
        wire.connect(service.url) as both,
        wire.connect(service.url) as slow,
        wire.connect(service.url) as idle,
    ):
        assert wire.call(idle, "GET", "/api/tasks").status == 200
        slow.sendall(BEGUN)
        with store.writes_held():
            arrived.sendall(wire.request("POST", "/api/tasks", {"title": "Arrived"}))
            both.sendall(wire.request("POST", "/api/tasks", {"title": "Arrived"}) + BEGUN)
            # It has been read once the one after it on the same connection would be.
            assert wire.call(idle, "GET", "/api/tasks").status == 200
            service.process.send_signal(signal.SIGTERM)
            (told,) = wire.answers(wire.read_to_end(slow))
            assert wire.read_to_end(idle) == b""
            wait_until(lambda: refuses(service))
        (answered,) = wire.answers(wire.read_to_end(arrived))
        statuses = [answer.status for answer in wire.answers(wire.read_to_end(both))]
    service.process.communicate(timeout=30)

    assert (told.status, told.headers["retry-after"]) == (503, "1")
    assert answered.status == 201
    assert statuses == [201, 503]
    assert answered.headers["connection"] == "close"
    assert service.process.returncode == 0
    assert store.execute("SELECT title FROM task") == [("Arrived",)] * 2
    assert service.log() == ""


@pytest.mark.parametrize("seconds", [0, 1])
def test_request_that_takes_too_long_is_told_so(start: Start, store: Store, seconds: int) -> None:
    service = start("--shutdown-timeout", str(seconds))
    with wire.connect(service.url) as connection, wire.connect(service.url) as other:
        assert wire.call(other, "GET", "/api/tasks").status == 200
        with store.writes_held():
            connection.sendall(wire.request("POST", "/api/tasks", {"title": "a"}))
            assert wire.call(other, "GET", "/api/tasks").status == 200
            service.process.send_signal(signal.SIGTERM)
            began = monotonic()
            (told,) = wire.answers(wire.read_to_end(connection))
        service.process.communicate(timeout=30)

    assert told.status == 503
    assert told.json()["status"] == 503
    assert monotonic() - began >= seconds
    assert service.process.returncode == 0
    assert "Traceback" not in service.log()


def test_restart_under_load_fails_no_request(start: Start, store: Store, tmp_path: Path, workers: str) -> None:
    """Behind clients that ask again where they got no answer, or a 503: each POST is done, and done once."""
    flags = ("--workers", workers)
    port = free_port()
    service = start(*flags, port=port)
    url = service.url
    done, statuses, titles = Event(), Counter[int](), count()

    def ask(client: httpx.Client, method: str, **options: object) -> int:
        for _ in range(2000):
            try:
                status = client.request(method, "/api/tasks", **options).status_code  # type: ignore[arg-type]
            except httpx.TransportError:
                done.wait(0.01)
                continue
            if status != 503:
                return status
        return 0

    def load() -> list[str]:
        created = []
        with httpx.Client(base_url=url, timeout=30) as client:
            while not done.is_set():
                title = f"{next(titles)}"
                key = {"Idempotency-Key": str(uuid4())}
                statuses[ask(client, "POST", json={"title": title}, headers=key)] += 1
                statuses[ask(client, "GET", params={"limit": 1})] += 1
                created.append(title)
                done.wait(0.01)
        return created

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load) for _ in range(4)]
        try:
            wait_until(lambda: statuses.total() >= 40 or any(one.done() for one in loads))
            assert not any(one.done() for one in loads)
            assert service.stop() == 0
            service = start(*flags, port=port)
            before = statuses.total()
            wait_until(lambda: statuses.total() >= before + 40 or any(one.done() for one in loads))
            assert not any(one.done() for one in loads)
        finally:
            done.set()
        created = [title for one in loads for title in one.result()]

    assert set(statuses) == {200, 201}
    assert sorted(title for (title,) in store.execute("SELECT title FROM task")) == sorted(created)
    assert "Traceback" not in service.log()
