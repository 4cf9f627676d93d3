"""Graceful shutdown: complete requests are answered, incomplete requests get 503, and no task is lost."""

import os
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from threading import Event
from time import monotonic
from unittest.mock import Mock
from uuid import uuid4

import httpx
import pytest

from handlers.server import serve
from tests.support import wire
from tests.support.calls import wait_until
from tests.support.service import Service, Start
from tests.support.stores import Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each implements these guarantees in its own way."""
    return str(request.param)


PARTIAL_REQUEST = wire.request("POST", "/api/tasks", {"title": "a"})[:-5]


@pytest.fixture
def workers(backend: str) -> str:
    """Return the usual number of workers: one with SQLite, two with PostgreSQL."""
    return "1" if backend == "sqlite" else "2"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def refuses_connections(service: Service) -> bool:
    """Return whether the service refuses new connections."""
    try:
        wire.connect(service.url).close()
    except ConnectionRefusedError:
        return True
    return False


def test_shutdown_answers_requests_that_have_arrived(start: Start, store: Store, workers: str) -> None:
    """New connections are refused; incomplete requests and idle connections do not delay the shutdown."""
    service = start("--workers", workers)
    with (
        wire.connect(service.url) as arrived,
        wire.connect(service.url) as both,
        wire.connect(service.url) as slow,
        wire.connect(service.url) as idle,
    ):
        assert wire.call(idle, "GET", "/api/tasks").status == 200
        slow.sendall(PARTIAL_REQUEST)
        with store.block_writes():
            arrived.sendall(wire.request("POST", "/api/tasks", {"title": "Arrived"}))
            both.sendall(wire.request("POST", "/api/tasks", {"title": "Arrived"}) + PARTIAL_REQUEST)
            # Once this later request is answered, the service has read the earlier requests.
            assert wire.call(idle, "GET", "/api/tasks").status == 200
            service.process.send_signal(signal.SIGTERM)
            (refused,) = wire.parse_responses(wire.read_to_end(slow))
            assert wire.read_to_end(idle) == b""
            wait_until(lambda: refuses_connections(service))
        (completed,) = wire.parse_responses(wire.read_to_end(arrived))
        statuses = [response.status for response in wire.parse_responses(wire.read_to_end(both))]
    service.process.communicate(timeout=30)

    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert completed.status == 201
    assert statuses == [201, 503]
    assert completed.headers["connection"] == "close"
    assert service.process.returncode == 0
    assert store.execute("SELECT title FROM task") == [("Arrived",)] * 2
    assert service.log() == ""


@pytest.mark.parametrize("seconds", [0, 1])
def test_request_over_the_shutdown_timeout_gets_503(start: Start, store: Store, seconds: int) -> None:
    service = start("--shutdown-timeout", str(seconds))
    with wire.connect(service.url) as connection, wire.connect(service.url) as other:
        assert wire.call(other, "GET", "/api/tasks").status == 200
        with store.block_writes():
            connection.sendall(wire.request("POST", "/api/tasks", {"title": "a"}))
            assert wire.call(other, "GET", "/api/tasks").status == 200
            service.process.send_signal(signal.SIGTERM)
            began = monotonic()
            (refused,) = wire.parse_responses(wire.read_to_end(connection))
        service.process.communicate(timeout=30)

    assert refused.status == 503
    assert refused.json()["status"] == 503
    assert monotonic() - began >= seconds
    assert service.process.returncode == 0
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("flags", [(), ("--workers", "2"), ("--reload",)])
def test_second_ctrl_c_ends_the_service_at_once(start: Start, store: Store, flags: tuple[str, ...]) -> None:
    """The first one waits for a request that the database blocks."""
    service = start("--shutdown-timeout", "60", *flags)
    with wire.connect(service.url) as blocked, wire.connect(service.url) as other, store.block_writes():
        blocked.sendall(wire.request("POST", "/api/tasks", {"title": "a"}))
        assert wire.call(other, "GET", "/api/tasks").status == 200
        for _ in range(2):
            service.process.send_signal(signal.SIGINT)
            wait_until(lambda: refuses_connections(service))
        began = monotonic()
        assert service.process.wait(timeout=30) == 0
        assert monotonic() - began < 30

    assert "Traceback" not in service.log()


def test_second_ctrl_c_kills_the_workers_before_it_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, signals = Mock(), Mock()
    monkeypatch.setattr(signal, "sigwait", signals.sigwait)
    monkeypatch.setattr(os, "kill", signals.kill)
    monkeypatch.setattr(os, "_exit", Mock(side_effect=SystemExit))
    monkeypatch.setattr(serve, "active_children", Mock(side_effect=[[worker], []]))

    with pytest.raises(SystemExit):
        serve._await_interrupts()

    signals.kill.assert_called_once_with(os.getpid(), signal.SIGTERM)
    worker.kill.assert_called_once_with()
    assert signals.sigwait.call_count == 3


def test_shutdown_without_requests_reports_no_error(start: Start) -> None:
    service = start("--shutdown-timeout", "0")
    service.client.get("/api/tasks")

    assert service.stop() == 0
    assert service.log() == ""


def test_restart_under_load_fails_no_request(start: Start, store: Store, tmp_path: Path, workers: str) -> None:
    """Although clients retry after a connection error or a 503, every POST creates exactly one task."""
    flags = ("--workers", workers)
    port = free_port()
    service = start(*flags, port=port)
    url = service.url
    done, statuses, titles = Event(), Counter[int](), count()

    def request_with_retries(client: httpx.Client, method: str, **options: object) -> int:
        for _ in range(2000):
            try:
                status = client.request(method, "/api/tasks", **options).status_code  # type: ignore[arg-type]
            except httpx.TransportError:
                done.wait(0.01)
                continue
            if status != 503:
                return status
        return 0

    def create_tasks() -> list[str]:
        created = []
        with httpx.Client(base_url=url, timeout=30) as client:
            while not done.is_set():
                title = f"{next(titles)}"
                key = {"Idempotency-Key": str(uuid4())}
                statuses[request_with_retries(client, "POST", json={"title": title}, headers=key)] += 1
                statuses[request_with_retries(client, "GET", params={"limit": 1})] += 1
                created.append(title)
                done.wait(0.01)
        return created

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(create_tasks) for _ in range(4)]
        try:
            wait_until(lambda: statuses.total() >= 40 or any(load.done() for load in loads))
            assert not any(load.done() for load in loads)
            assert service.stop() == 0
            service = start(*flags, port=port)
            before = statuses.total()
            wait_until(lambda: statuses.total() >= before + 40 or any(load.done() for load in loads))
            assert not any(load.done() for load in loads)
        finally:
            done.set()
        created = [title for load in loads for title in load.result()]

    assert set(statuses) == {200, 201}
    assert sorted(title for (title,) in store.execute("SELECT title FROM task")) == sorted(created)
    assert "Traceback" not in service.log()
