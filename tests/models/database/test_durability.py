"""Acknowledged writes are on disk, other writes are applied completely or not at all, and no write harms another."""

import os
import random
import select
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support import wire
from tests.support.flushes import Flushes, FlushSocket
from tests.support.service import Service, Start

Request = tuple[str, str, dict[str, Any] | None]


@pytest.fixture
def flush_socket(tmp_path: Path) -> Iterator[FlushSocket]:
    with closing(FlushSocket(tmp_path / "flush_socket")) as flush_socket:
        yield flush_socket


@pytest.fixture
def service_and_flushes(start: Start, flush_socket: FlushSocket) -> tuple[Service, Flushes]:
    """Return a service that has one task, and the flushes of the service."""
    with ThreadPoolExecutor() as pool:
        flushes = pool.submit(flush_socket.accept)
        service = start(variables=flush_socket.variables)
        service.client.post("/api/tasks", json={"title": "first"})
        return service, flushes.result()


def titles(service: Service) -> list[str]:
    return [task["title"] for task in service.client.get("/api/tasks?limit=1000").json()]


def assert_intact(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


class Client:
    """A client that sends one request, and reads the response later."""

    def __init__(self, service: Service) -> None:
        self.connection = wire.connect(service.url)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        self.connection.sendall(wire.request(method, path, body))

    def response(self) -> wire.Response:
        with self.connection:
            return wire.read_response(self.connection)

    def has_response(self) -> bool:
        self.connection.setblocking(False)
        with suppress(BlockingIOError):
            return bool(self.connection.recv(1))
        self.connection.settimeout(30)
        return False


@pytest.mark.parametrize(
    ("request_", "after"),
    [
        (("POST", "/api/tasks", {"title": "second"}), ["first", "second"]),
        (("PUT", "/api/tasks/1", {"title": "changed"}), ["changed"]),
        (("DELETE", "/api/tasks/1", None), []),
    ],
    ids=["POST", "PUT", "DELETE"],
)
def test_flush_precedes_the_response(
    service_and_flushes: tuple[Service, Flushes], tmp_path: Path, request_: Request, after: list[str]
) -> None:
    service, flushes = service_and_flushes
    flushes.policy = flushes.hold
    client = Client(service)
    client.send(*request_)
    flush = flushes.held.get(timeout=30)

    # Readers do not wait for the flush, and see the previous commit.
    assert titles(service) == ["first"]
    assert not client.has_response()
    # Copy the files that would be on the disk if the power failed right after the flush.
    for file in ("tasks.db", "tasks.db-wal"):
        shutil.copy(tmp_path / file, tmp_path / f"after-{file}")
    with closing(sqlite3.connect(tmp_path / "after-tasks.db")) as database:
        assert [title for (title,) in database.execute("SELECT title FROM task")] == after

    flushes.policy = flushes.let_through
    flushes.let_through(flush)
    assert client.response().status in (200, 201)
    assert titles(service) == after


def send_all(service: Service, requests: list[Request]) -> list[Client]:
    """Send requests at the same time, each with its own client; return the clients once the service has read all."""
    clients = [Client(service) for _ in requests]
    for client, request in zip(clients, requests, strict=True):
        client.send(*request)
    # Before the service responds to a later request, it reads all requests that have arrived.
    for _ in range(3):
        service.client.get("/api/tasks/1")
    return clients


def create_requests(*names: str) -> list[Request]:
    return [("POST", "/api/tasks", {"title": name}) for name in names]


def test_waiting_writes_share_a_flush(service_and_flushes: tuple[Service, Flushes]) -> None:
    service, flushes = service_and_flushes
    flushes.policy = flushes.hold
    (first,) = send_all(service, create_requests("second"))
    flush = flushes.held.get(timeout=30)
    others = send_all(service, [*create_requests(*"abcdefgh"), ("PUT", "/api/tasks/1", {"title": "x"})])
    before = flushes.count
    flushes.policy = flushes.let_through
    flushes.let_through(flush)

    assert [client.response().status for client in (first, *others)] == [201] * 9 + [200]
    assert flushes.count == before + 1
    assert titles(service) == ["x", "second", *"abcdefgh"]


TRIGGER = "CREATE TRIGGER refuse BEFORE INSERT ON task WHEN NEW.title = 'refused' BEGIN SELECT RAISE({}, 'no'); END"


@pytest.mark.parametrize("action", ["ABORT", "FAIL", "ROLLBACK"])
def test_failing_write_fails_alone(service_and_flushes: tuple[Service, Flushes], tmp_path: Path, action: str) -> None:
    """If `action` is ROLLBACK, SQLite rolls back the whole batch, but its other writes must still succeed."""
    service, flushes = service_and_flushes
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        database.execute(TRIGGER.format(action))
    flushes.policy = flushes.hold
    clients = send_all(service, create_requests("second"))
    flush = flushes.held.get(timeout=30)
    clients += send_all(service, [*create_requests("a", "refused", "b"), ("PUT", "/api/tasks/1", {"title": "x"})])
    flushes.policy = flushes.let_through
    flushes.let_through(flush)

    assert [client.response().status for client in clients] == [201, 201, 500, 201, 200]
    assert titles(service) == ["x", "second", "a", "b"]
    assert service.log().count("Error: no\n") == 1
    assert "savepoint" not in service.log()


def test_writes_are_retried_one_by_one_after_a_failed_flush(
    service_and_flushes: tuple[Service, Flushes], tmp_path: Path
) -> None:
    """After the flush of a batch has failed, a write fails only if its own flush fails too."""
    service, flushes = service_and_flushes
    flushes.policy = flushes.hold
    (first,) = send_all(service, create_requests("second"))
    flush = flushes.held.get(timeout=30)
    clients = send_all(service, create_requests("a", "b", "c"))
    flushes.let_through(flush)
    for decide in (flushes.fail, flushes.let_through, flushes.fail, flushes.let_through):
        decide(flushes.held.get(timeout=30))

    assert first.response().status == 201
    responses = [client.response() for client in clients]
    assert [response.status for response in responses] == [201, 500, 201]
    assert responses[1].json()["detail"] == "Failed to create task"
    assert titles(service) == ["first", "second", "a", "c"]
    flushes.policy = flushes.let_through
    assert service.client.post("/api/tasks", json={"title": "d"}).status_code == 201
    assert service.client.delete("/api/tasks/1").status_code == 200
    assert service.log().count("disk I/O error\n") == 1
    assert_intact(tmp_path / "tasks.db")


def test_disconnected_client_leaves_a_complete_write(service_and_flushes: tuple[Service, Flushes]) -> None:
    service, flushes = service_and_flushes
    flushes.policy = flushes.hold
    clients = send_all(service, create_requests("second"))
    flush = flushes.held.get(timeout=30)
    clients += send_all(service, [*create_requests("third"), ("DELETE", "/api/tasks/1", None)])
    for client in clients:
        client.connection.close()
    (last,) = send_all(service, create_requests("fourth"))
    flushes.policy = flushes.let_through
    flushes.let_through(flush)

    assert last.response().json()["id"] == 4
    assert titles(service) == ["second", "third", "fourth"]
    assert service.log() == ""


def test_sigterm_waits_for_accepted_writes(service_and_flushes: tuple[Service, Flushes], tmp_path: Path) -> None:
    service, flushes = service_and_flushes
    flushes.policy = flushes.hold
    clients = send_all(service, create_requests("second"))
    flush = flushes.held.get(timeout=30)
    clients += send_all(service, [*create_requests("third"), ("DELETE", "/api/tasks/1", None)])
    service.process.terminate()
    flushes.policy = flushes.let_through
    flushes.let_through(flush)

    assert [client.response().status for client in clients] == [201, 201, 200]
    assert service.process.wait(timeout=30) == 0
    assert service.log() == ""
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        assert database.execute("SELECT title FROM task").fetchall() == [("second",), ("third",)]


class Writer:
    """A client that creates, changes and deletes its own tasks, and records the acknowledged changes."""

    def __init__(self, number: int, acknowledged: Callable[[], None]) -> None:
        self.known: dict[int, str | None] = {}  # last acknowledged title by task id; None if deleted
        self.pending: tuple[int | None, str | None] = (None, None)  # id and title of the change without a response
        self._number = number
        self._acknowledged = acknowledged
        self._steps = 0

    def write(self, url: str) -> None:
        """Create, change and delete tasks until the service closes the connection."""
        with wire.connect(url) as connection, suppress(AssertionError, ConnectionError):
            while True:
                self._create(connection)
                for id in list(self.known)[-2:]:
                    self._send(connection, "PUT", id)
                self._send(connection, "DELETE", random.choice(list(self.known)))

    def _create(self, connection: Any) -> None:
        self._steps += 1
        self.pending = (None, f"{self._number}: {self._steps}")
        response = wire.call(connection, "POST", "/api/tasks", {"title": self.pending[1]})
        assert response.status == 201
        self._record(response.json()["id"])

    def _send(self, connection: Any, method: str, id: int) -> None:
        if self.known[id] is None:
            return
        self._steps += 1
        self.pending = (id, f"{self._number}: {self._steps}" if method == "PUT" else None)
        body = {"title": self.pending[1]} if method == "PUT" else None
        response = wire.call(connection, method, f"/api/tasks/{id}", body)
        assert response.status == 200
        self._record(id)

    def _record(self, id: int) -> None:
        self.known[id] = self.pending[1]
        self.pending = (None, None)
        self._acknowledged()


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_loses_no_acknowledged_write(start: Start, tmp_path: Path, seed: int) -> None:
    randomness = random.Random(seed)
    everything: dict[int, str | None] = {}
    for workers in (1, 1, 1, 1, 2):
        service = start("--workers", str(workers))
        acknowledgements = threading.Semaphore(0)
        writers = [Writer(number, acknowledgements.release) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(writer.write, service.url) for writer in writers]
            for _ in range(randomness.randrange(20, 400)):
                assert acknowledgements.acquire(timeout=30)
            kill_all(service)
            for run in running:
                run.result()

        kept = everything.copy()
        pending = []
        for writer in writers:
            kept |= writer.known
            pending.append(writer.pending)
        everything = check_tasks(tmp_path / "tasks.db", kept, pending)
    assert_intact(tmp_path / "tasks.db")


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_keeps_task_and_response_together(start: Start, tmp_path: Path, seed: int) -> None:
    """If a client retries a POST after the crash, both requests together create exactly one task."""
    service = start("--workers", str(1 + seed % 2))
    acknowledgements = threading.Semaphore(0)
    ids: dict[str, int] = {}
    keys: list[str] = []

    def write(client: int) -> None:
        with suppress(OSError, AssertionError), wire.connect(service.url) as connection:
            for number in count():
                key = f"{client}.{number}"
                keys.append(key)
                created = wire.call(connection, "POST", "/api/tasks", {"title": key}, {"Idempotency-Key": key})
                ids[key] = created.json()["id"]
                acknowledgements.release()

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(write, client) for client in range(8)]
        for _ in range(random.Random(seed).randrange(20, 300)):
            assert acknowledgements.acquire(timeout=30)
        kill_all(service)
        for run in running:
            run.result()

    client = start().client
    for key in keys:
        again = client.post("/api/tasks", json={"title": key}, headers={"Idempotency-Key": key})
        assert again.status_code == 201
        assert ids.setdefault(key, again.json()["id"]) == again.json()["id"]
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        assert dict(database.execute("SELECT title, id FROM task").fetchall()) == ids
        assert database.execute("SELECT count(*) FROM task").fetchall() == [(len(keys),)]


def kill_all(service: Service) -> None:
    """Kill a service and its workers, and wait until all of their threads have ended."""
    pid = service.process.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    processes = [os.pidfd_open(int(process)) for process in (str(pid), *workers)]
    for process in processes:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    for process in processes:
        assert select.select([process], [], [], 30)[0]
        os.close(process)


def check_tasks(
    path: Path, kept: dict[int, str | None], pending: list[tuple[int | None, str | None]]
) -> dict[int, str | None]:
    """Assert that a file agrees with the acknowledged and pending changes; return each title (None if deleted)."""
    with closing(sqlite3.connect(path)) as database:
        found: dict[int, str | None] = dict(database.execute("SELECT id, title FROM task").fetchall())
    possible = {id: {title} for id, title in kept.items()}
    created = {title for id, title in pending if id is None}
    for id, title in pending:
        if id is not None:
            possible[id].add(title)
    for id, titles in possible.items():
        assert found.get(id) in titles
    for id in found.keys() - possible.keys():
        assert found[id] in created
    return {id: found.get(id) for id in possible.keys() | found.keys()}


def test_two_workers_write_one_file(start: Start, tmp_path: Path) -> None:
    service = start("--workers", "2")

    def write(_: int) -> set[int]:
        with wire.connect(service.url) as connection:
            created = wire.call(connection, "POST", "/api/tasks", {"title": "0"})
            path = f"/api/tasks/{created.json()['id']}"
            changed = [wire.call(connection, "PUT", path, {"title": str(count)}) for count in range(1, 101)]
            return {response.status for response in (created, *changed)}

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(write, range(16))) == [{200, 201}] * 16
    assert titles(service) == ["100"] * 16
    assert service.log() == ""
    assert service.stop() == 0
    assert_intact(tmp_path / "tasks.db")
