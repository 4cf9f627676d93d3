"""What was acknowledged is on disk, what was not is wholly there or not at all, and one write spoils no other."""

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
def asked(start: Start, flush_socket: FlushSocket) -> tuple[Service, Flushes]:
    """A service that has one task, and its flushes."""
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


class Caller:
    """A caller that makes one request, and looks for the answer later."""

    def __init__(self, service: Service) -> None:
        self.connection = wire.connect(service.url)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        self.connection.sendall(wire.request(method, path, body))

    def answer(self) -> wire.Answer:
        with self.connection:
            return wire.read_answer(self.connection)

    def has_an_answer(self) -> bool:
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
def test_flush_precedes_the_answer(
    asked: tuple[Service, Flushes], tmp_path: Path, request_: Request, after: list[str]
) -> None:
    service, flushes = asked
    flushes.policy = flushes.hold
    caller = Caller(service)
    caller.send(*request_)
    flush = flushes.held.get(timeout=30)

    # Readers do not wait for it, and see the commit before.
    assert titles(service) == ["first"]
    assert not caller.has_an_answer()
    # What the disk has when the power fails right after the flush.
    for file in ("tasks.db", "tasks.db-wal"):
        shutil.copy(tmp_path / file, tmp_path / f"after-{file}")
    with closing(sqlite3.connect(tmp_path / "after-tasks.db")) as database:
        assert [title for (title,) in database.execute("SELECT title FROM task")] == after

    flushes.policy = flushes.let_through
    flushes.let_through(flush)
    assert caller.answer().status in (200, 201)
    assert titles(service) == after


def accepted(service: Service, requests: list[Request]) -> list[Caller]:
    """Make requests at once, and return their callers when the service has accepted all of them."""
    callers = [Caller(service) for _ in requests]
    for caller, request in zip(callers, requests, strict=True):
        caller.send(*request)
    # It reads whatever has arrived before it answers a later request.
    for _ in range(3):
        service.client.get("/api/tasks/1")
    return callers


def creations(*names: str) -> list[Request]:
    return [("POST", "/api/tasks", {"title": name}) for name in names]


def test_writes_that_wait_share_a_flush(asked: tuple[Service, Flushes]) -> None:
    service, flushes = asked
    flushes.policy = flushes.hold
    (first,) = accepted(service, creations("second"))
    flush = flushes.held.get(timeout=30)
    others = accepted(service, [*creations(*"abcdefgh"), ("PUT", "/api/tasks/1", {"title": "x"})])
    before = flushes.count
    flushes.policy = flushes.let_through
    flushes.let_through(flush)

    assert [caller.answer().status for caller in (first, *others)] == [201] * 9 + [200]
    assert flushes.count == before + 1
    assert titles(service) == ["x", "second", *"abcdefgh"]


TRIGGER = "CREATE TRIGGER refuse BEFORE INSERT ON task WHEN NEW.title = 'refused' BEGIN SELECT RAISE({}, 'no'); END"


@pytest.mark.parametrize("undone", ["ABORT", "FAIL", "ROLLBACK"])
def test_failing_write_fails_alone(asked: tuple[Service, Flushes], tmp_path: Path, undone: str) -> None:
    """With ROLLBACK, SQLite undoes the transaction of all."""
    service, flushes = asked
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        database.execute(TRIGGER.format(undone))
    flushes.policy = flushes.hold
    callers = accepted(service, creations("second"))
    flush = flushes.held.get(timeout=30)
    callers += accepted(service, [*creations("a", "refused", "b"), ("PUT", "/api/tasks/1", {"title": "x"})])
    flushes.policy = flushes.let_through
    flushes.let_through(flush)

    assert [caller.answer().status for caller in callers] == [201, 201, 500, 201, 200]
    assert titles(service) == ["x", "second", "a", "b"]
    assert service.log().count("Error: no\n") == 1
    assert "savepoint" not in service.log()


def test_flush_that_fails(asked: tuple[Service, Flushes], tmp_path: Path) -> None:
    """Of the writes that shared it, those fail for which it fails again."""
    service, flushes = asked
    flushes.policy = flushes.hold
    (first,) = accepted(service, creations("second"))
    flush = flushes.held.get(timeout=30)
    callers = accepted(service, creations("a", "b", "c"))
    flushes.let_through(flush)
    for decide in (flushes.fail, flushes.let_through, flushes.fail, flushes.let_through):
        decide(flushes.held.get(timeout=30))

    assert first.answer().status == 201
    answers = [caller.answer() for caller in callers]
    assert [answer.status for answer in answers] == [201, 500, 201]
    assert answers[1].json()["detail"] == "Failed to create task"
    assert titles(service) == ["first", "second", "a", "c"]
    flushes.policy = flushes.let_through
    assert service.client.post("/api/tasks", json={"title": "d"}).status_code == 201
    assert service.client.delete("/api/tasks/1").status_code == 200
    assert service.log().count("disk I/O error\n") == 1
    assert_intact(tmp_path / "tasks.db")


def test_caller_that_goes_leaves_a_whole_write(asked: tuple[Service, Flushes]) -> None:
    service, flushes = asked
    flushes.policy = flushes.hold
    callers = accepted(service, creations("second"))
    flush = flushes.held.get(timeout=30)
    callers += accepted(service, [*creations("third"), ("DELETE", "/api/tasks/1", None)])
    for caller in callers:
        caller.connection.close()
    (last,) = accepted(service, creations("fourth"))
    flushes.policy = flushes.let_through
    flushes.let_through(flush)

    assert last.answer().json()["id"] == 4
    assert titles(service) == ["second", "third", "fourth"]
    assert service.log() == ""


def test_sigterm_waits_for_accepted_writes(asked: tuple[Service, Flushes], tmp_path: Path) -> None:
    service, flushes = asked
    flushes.policy = flushes.hold
    callers = accepted(service, creations("second"))
    flush = flushes.held.get(timeout=30)
    callers += accepted(service, [*creations("third"), ("DELETE", "/api/tasks/1", None)])
    service.process.terminate()
    flushes.policy = flushes.let_through
    flushes.let_through(flush)

    assert [caller.answer().status for caller in callers] == [201, 201, 200]
    assert service.process.wait(timeout=30) == 0
    assert service.log() == ""
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        assert database.execute("SELECT title FROM task").fetchall() == [("second",), ("third",)]


class Writer:
    """A caller that creates, changes and deletes tasks of its own, and knows what it was told of each."""

    def __init__(self, number: int, acknowledged: Callable[[], None]) -> None:
        self.known: dict[int, str | None] = {}  # the title of each task, as it was last acknowledged
        self.asked: tuple[int | None, str | None] = (None, None)  # what was not answered
        self._number = number
        self._acknowledged = acknowledged
        self._steps = 0

    def write(self, url: str) -> None:
        """Write until the connection ends."""
        with wire.connect(url) as connection, suppress(AssertionError, ConnectionError):
            while True:
                self._create(connection)
                for id in list(self.known)[-2:]:
                    self._ask(connection, "PUT", id)
                self._ask(connection, "DELETE", random.choice(list(self.known)))

    def _create(self, connection: Any) -> None:
        self._steps += 1
        self.asked = (None, f"{self._number}: {self._steps}")
        answer = wire.call(connection, "POST", "/api/tasks", {"title": self.asked[1]})
        assert answer.status == 201
        self._take(answer.json()["id"])

    def _ask(self, connection: Any, method: str, id: int) -> None:
        if self.known[id] is None:
            return
        self._steps += 1
        self.asked = (id, f"{self._number}: {self._steps}" if method == "PUT" else None)
        body = {"title": self.asked[1]} if method == "PUT" else None
        answer = wire.call(connection, method, f"/api/tasks/{id}", body)
        assert answer.status == 200
        self._take(id)

    def _take(self, id: int) -> None:
        self.known[id] = self.asked[1]
        self.asked = (None, None)
        self._acknowledged()


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_loses_nothing_that_was_acknowledged(start: Start, tmp_path: Path, seed: int) -> None:
    randomness = random.Random(seed)
    everything: dict[int, str | None] = {}
    for workers in (1, 1, 1, 1, 2):
        # What is killed says nothing of what it reached.
        service = start("--workers", str(workers))
        enough = threading.Semaphore(0)
        writers = [Writer(number, enough.release) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(writer.write, service.url) for writer in writers]
            for _ in range(randomness.randrange(20, 400)):
                assert enough.acquire(timeout=30)
            kill_all(service)
            for run in running:
                run.result()

        kept = everything.copy()
        unanswered = []
        for writer in writers:
            kept |= writer.known
            unanswered.append(writer.asked)
        everything = check(tmp_path / "tasks.db", kept, unanswered)
    assert_intact(tmp_path / "tasks.db")


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_keeps_task_and_answer_together(start: Start, tmp_path: Path, seed: int) -> None:
    """What a caller asks again after the crash, because it had no answer, was done once or is done now."""
    service = start("--workers", str(1 + seed % 2))
    enough = threading.Semaphore(0)
    answered: dict[str, int] = {}
    asked: list[str] = []

    def write(caller: int) -> None:
        with suppress(OSError, AssertionError), wire.connect(service.url) as connection:
            for number in count():
                key = f"{caller}.{number}"
                asked.append(key)
                created = wire.call(connection, "POST", "/api/tasks", {"title": key}, {"Idempotency-Key": key})
                answered[key] = created.json()["id"]
                enough.release()

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(write, caller) for caller in range(8)]
        for _ in range(random.Random(seed).randrange(20, 300)):
            assert enough.acquire(timeout=30)
        kill_all(service)
        for run in running:
            run.result()

    client = start().client
    for key in asked:
        again = client.post("/api/tasks", json={"title": key}, headers={"Idempotency-Key": key})
        assert again.status_code == 201
        assert answered.setdefault(key, again.json()["id"]) == again.json()["id"]
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        assert dict(database.execute("SELECT title, id FROM task").fetchall()) == answered
        assert database.execute("SELECT count(*) FROM task").fetchall() == [(len(asked),)]


def kill_all(service: Service) -> None:
    """Kill a service and its workers, if it has some, and wait until the last of their threads is gone."""
    pid = service.process.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    processes = [os.pidfd_open(int(process)) for process in (str(pid), *workers)]
    for process in processes:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    for process in processes:
        assert select.select([process], [], [], 30)[0]
        os.close(process)


def check(
    path: Path, kept: dict[int, str | None], unanswered: list[tuple[int | None, str | None]]
) -> dict[int, str | None]:
    """Hold the file against what callers know, and return the tasks in it."""
    with closing(sqlite3.connect(path)) as database:
        found: dict[int, str | None] = dict(database.execute("SELECT id, title FROM task").fetchall())
    possible = {id: {title} for id, title in kept.items()}
    created = {title for id, title in unanswered if id is None}
    for id, title in unanswered:
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
            return {answer.status for answer in (created, *changed)}

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(write, range(16))) == [{200, 201}] * 16
    assert titles(service) == ["100"] * 16
    assert service.log() == ""
    assert service.stop() == 0
    assert_intact(tmp_path / "tasks.db")
