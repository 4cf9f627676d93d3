"""The access log: a line for each request, whatever became of it, and nothing in it that is not ours."""

import asyncio
import json
import logging
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from handlers.observability import access_log
from handlers.observability.observation import Observation
from tests.support.calls import FOREIGN_METHOD
from tests.support.project import PATIENCE, ROOT
from tests.support.service import Service, Start, run, running
from tests.support.stores import SqliteStore
from tests.support.wire import HOST, JSON, call, connect, exchange, read_answer, read_to_end, request

pytestmark = pytest.mark.slow

FIELDS = ["time", "method", "route", "status", "duration_ms", "request_id", "key"]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
GET = b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /api/tasks HTTP/1.1\r\n" + HOST + JSON
BROKEN = POST + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"
LENGTH = b"Content-Length: 14\r\n\r\n"
BODY = b'{"title": "a"}'
CONNECTIONS = 20


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that writes the log."""
    folder = tmp_path_factory.mktemp("logged")
    flags = ("--access-log", "--request-timeout", "2", "--max-connections", str(CONNECTIONS))
    with running("sqlite", folder, *flags, variables={"DATABASE_URL": f"sqlite:///{folder / 'tasks.db'}"}) as service:
        yield service
        assert service.log() == ""


def written(service: Service, count: int) -> list[str]:
    """Return what is written next: so many lines and no more."""
    assert service.process.stdout
    source, received = service.process.stdout.fileno(), b""
    while received.count(b"\n") < count:
        assert select.select([source], [], [], PATIENCE)[0], received
        piece = os.read(source, 65536)
        assert piece, received
        received += piece
    # Nothing more comes if the service has ended.
    while select.select([source], [], [], 0.1)[0] and (piece := os.read(source, 65536)):
        received += piece
    lines = received.decode("ascii").splitlines()
    assert len(lines) == count, lines
    return lines


def entries(service: Service, count: int) -> list[dict[str, Any]]:
    """Return what the next lines say."""
    return [json.loads(line) for line in written(service, count)]


@pytest.mark.parametrize(
    ("asked", "options", "route", "status"),
    [
        ("POST /api/tasks", {"json": {"title": "a"}}, "/api/tasks", 201),
        ("POST /api/tasks", {"json": {"title": ""}}, "/api/tasks", 400),
        ("POST /api/tasks", {"json": {"title": "a" * 70000}}, "/api/tasks", 413),
        ("GET /api/tasks?limit=1", {}, "/api/tasks", 200),
        ("HEAD /api/tasks", {}, "/api/tasks", 200),
        ("GET /api/tasks", {"headers": {"If-None-Match": "*"}}, "/api/tasks", 304),
        ("OPTIONS /api/tasks/1", {}, "/api/tasks/{id}", 204),
        ("GET /api/tasks/9999", {}, "/api/tasks/{id}", 404),
        (f"{FOREIGN_METHOD} /api/tasks/1", {}, "/api/tasks/{id}", 405),
        (f"{FOREIGN_METHOD} /api/tasks/1%2F2", {}, None, 404),
        (f"{FOREIGN_METHOD} /api%2Ftasks", {}, None, 404),
        ("GET /docs", {}, "/docs", 200),
        ("POST /docs", {}, "/docs", 405),
        ("GET /docs/", {}, None, 307),
        ("GET /docs/assets/swagger-ui.css", {}, "/docs/assets", 200),
        ("GET /health/live", {}, "/health/live", 200),
        ("GET /nowhere", {}, None, 404),
    ],
)
def test_a_line_says_what_became_of_a_request(
    logged: Service, asked: str, options: dict[str, Any], route: str | None, status: int
) -> None:
    method, path = asked.split()
    answer = logged.client.request(method, path, **options)

    (line,) = written(logged, 1)
    entry = json.loads(line)
    assert list(entry) == FIELDS
    assert (entry["method"], entry["route"], entry["status"]) == (method, route, status)
    assert answer.status_code == status
    assert entry["request_id"] == answer.headers["x-request-id"]
    assert MOMENT.fullmatch(entry["time"])
    assert re.search(r'"duration_ms":\d+\.\d{1,3},', line)
    assert 0 < entry["duration_ms"] < 10000
    assert entry["key"] is None


@pytest.mark.parametrize(
    ("bytes_", "lines"),
    [
        (b"nonsense\r\n\r\n", [(None, None, 400)]),
        (GET + b"nonsense\r\n\r\n", [("GET", "/api/tasks", 200), (None, None, 400)]),
        (b"GET / HTTP/1.1\r\n\r\n", [(None, None, 400)]),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", [(None, None, 414)]),
        (GET[:-2] + b"A: " + b"a" * 17000 + b"\r\n\r\n", [(None, None, 431)]),
        (BROKEN, [("POST", "/api/tasks", 400)]),
        (GET + BROKEN, [("GET", "/api/tasks", 200), ("POST", "/api/tasks", 400)]),
        # The caller leaves.
        (GET[:-2], []),
        (POST + LENGTH + BODY[:-1], [("POST", "/api/tasks", None)]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_the_protocol_ends_has_one_line(
    logged: Service, bytes_: bytes, lines: list[tuple[str | None, str | None, int | None]]
) -> None:
    answers = exchange(logged.url, bytes_)

    # A refusal is written in the turn in which the answer before it is.
    found = sorted(entries(logged, len(lines)), key=lambda entry: entry["status"] or 0)
    assert [(entry["method"], entry["route"], entry["status"]) for entry in found] == lines
    names = [answer.headers["x-request-id"] for answer in answers]
    assert [entry["request_id"] for entry in found if entry["status"]] == names


@pytest.mark.parametrize(
    ("piece", "line"),
    [(GET[:-2], (None, None, 408)), (POST + LENGTH + BODY[:-1], ("POST", "/api/tasks", 408))],
    ids=["head", "body"],
)
def test_request_that_takes_too_long_has_one_line(
    logged: Service, piece: bytes, line: tuple[str | None, str | None, int]
) -> None:
    with connect(logged.url) as connection:
        connection.sendall(piece.replace(HOST, b"X-Request-ID: slow\r\n" + HOST))
        assert read_answer(connection).headers["x-request-id"] == "slow"
        read_to_end(connection)

    (entry,) = entries(logged, 1)
    assert (entry["method"], entry["route"], entry["status"]) == line
    assert entry["request_id"] == "slow"


def test_connection_too_many_has_a_line(logged: Service) -> None:
    logged.client.close()
    logged.client = httpx.Client(base_url=logged.url, timeout=30)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            assert call(stack.enter_context(connect(logged.url)), "GET", "/api/tasks").status == 200
        one_more = stack.enter_context(connect(logged.url))
        assert read_answer(one_more).status == 503

    found = entries(logged, CONNECTIONS + 1)
    assert [entry["status"] for entry in found] == [200] * CONNECTIONS + [503]


@pytest.mark.parametrize("with_reset", [False, True])
def test_answer_that_nobody_waits_for_has_no_status(logged: Service, with_reset: bool) -> None:
    store = SqliteStore(Path(f"/proc/{logged.process.pid}/cwd/tasks.db"))
    with connect(logged.url) as connection, store.writes_held():
        connection.sendall(request("POST", "/api/tasks", {"title": "a"}))
        assert logged.client.get("/docs").status_code == 200
        if with_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            assert logged.client.get("/docs").status_code == 200

    *others, entry = entries(logged, 3 if with_reset else 2)
    assert {other["route"] for other in others} == {"/docs"}
    # Who only says that nothing more will come still waits.
    assert (entry["method"], entry["status"]) == ("POST", None if with_reset else 201)


def test_nothing_of_what_a_caller_sends_is_in_a_line(logged: Service) -> None:
    names = ("Authorization", "Idempotency-Key", "If-Match", "Cookie", "User-Agent", "secret")
    headers = dict.fromkeys(names, "secret")
    for method, path in (
        ("POST", "/api/tasks?secret=secret"),
        ("GET", "/api/tasks?after=5&secret"),
        ("DELETE", "/api/tasks/secret"),
        (FOREIGN_METHOD, "/api/tasks/secret"),
        ("GET", "/docs/assets/secret"),
        ("GET", "/secret%0A%22"),
    ):
        logged.client.request(method, path, headers=headers, json={"title": "secret", "secret": "secret"})
    exchange(logged.url, b"secret /secret HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    exchange(logged.url, b"secret\r\n\r\n")

    assert "secret" not in "".join(written(logged, 8))


@pytest.mark.parametrize(
    "given", ["a", "A-1_b.c:d/e+f=@~", "0b7e6f4e-8a1c-4c58-9e0b-3c2d5b1f7a90"], ids=["letter", "marks", "uuid"]
)
def test_name_that_the_caller_gives_is_kept(logged: Service, given: str) -> None:
    answer = logged.client.get("/api/tasks", headers={"X-Request-ID": given})

    (entry,) = entries(logged, 1)
    is_allowed = bool(re.fullmatch(r"[0-9A-Za-z._-]+", given))
    assert (entry["request_id"] == given) == is_allowed
    assert answer.headers["x-request-id"] == entry["request_id"]


@pytest.mark.parametrize(
    "lines",
    [b"X-Request-ID: " + value + b"\r\n" for value in (b"a" * 1000, b"a b", b"\xe9", b'a"b', b"a\\", b"\xff{}", b"")]
    + [b"X-Request-ID: a\r\nX-Request-ID: b\r\n", b"X-Request-ID: a\r\nX-Request-ID: a\r\n"],
    ids=lambda value: repr(value)[:40],
)
def test_name_that_could_do_harm_is_replaced(logged: Service, lines: bytes) -> None:
    for bytes_ in (GET[:-2] + lines + b"\r\n", BROKEN.replace(HOST, HOST + lines)):
        (answer,) = exchange(logged.url, bytes_)

        (entry,) = entries(logged, 1)
        assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", entry["request_id"])
        assert entry["request_id"] == answer.headers["x-request-id"]


def test_key_is_named(start: Start, tmp_path: Path) -> None:
    key = run(tmp_path, "key", "new", "anna").stdout.strip()
    service = start("--access-log")
    for headers in ({}, {"Authorization": f"Bearer {key}"}, {"Authorization": "Bearer secret"}):
        service.client.get("/api/tasks/1", headers=headers)

    lines = written(service, 3)
    found = [(entry["route"], entry["status"], entry["key"]) for entry in map(json.loads, lines)]
    path = "/api/tasks/{id}"
    assert found == [(path, 401, None), (path, 404, "anna"), (path, 401, None)]
    assert key not in "".join(lines)


@pytest.mark.parametrize("fails", [False, True])
def test_duration_is_in_milliseconds(caplog: pytest.LogCaptureFixture, fails: bool) -> None:
    """It is at least as long as the application took, and no longer than the call of it."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.1)
        if fails:
            raise ConnectionResetError
        await send({"type": "http.response.body"})

    async def receive() -> Message:
        raise AssertionError

    async def send(_: Message) -> None:
        pass

    state = {"observers": [access_log.write], "request_id": "a"}
    scope: Scope = {"type": "http", "method": "GET", "path": "/nowhere", "state": state}
    began = time.perf_counter()
    with caplog.at_level(logging.INFO), suppress(ConnectionResetError):
        asyncio.run(Observation(app)(scope, receive, send))
    waited = time.perf_counter() - began

    (record,) = [record for record in caplog.records if record.name == access_log.logger.name]
    entry = json.loads(record.getMessage())
    assert (entry["request_id"], entry["status"]) == ("a", 200)
    assert 100 <= entry["duration_ms"] <= waited * 1000


@pytest.mark.parametrize(("seconds", "written"), [(0.25, 250), (0.0000004, 0), (0.0123456, 12.346), (61, 61000)])
def test_duration_is_written_to_the_microsecond(
    caplog: pytest.LogCaptureFixture, seconds: float, written: float
) -> None:
    with caplog.at_level(logging.INFO):
        access_log.write({"type": "http", "state": {"request_id": "a"}}, None, seconds)

    assert json.loads(caplog.messages[0])["duration_ms"] == written


@pytest.mark.parametrize("validates", ["true", "false"])
def test_error_is_logged_once_under_the_name_of_its_request(start: Start, store: SqliteStore, validates: str) -> None:
    service = start("--access-log", variables={"TASKS_API_VALIDATE_RESPONSES": validates})
    store.execute("DROP TABLE task")

    answers = [service.client.get("/api/tasks"), service.client.post("/api/tasks", json={"title": "a"})]

    names = [answer.headers["x-request-id"] for answer in answers]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert [(entry["request_id"], entry["status"]) for entry in entries(service, 2)] == [(name, 500) for name in names]
    log = service.log()
    assert log.count("Traceback (most recent call last)") == 2
    assert [log.count(name) for name in names] == [1, 1]


def test_request_that_is_cut_off_by_the_end_has_a_line(start: Start, store: SqliteStore) -> None:
    service = start("--access-log", "--shutdown-timeout", "1", "--workers", "2")
    with connect(service.url) as connection, store.writes_held():
        connection.sendall(request("POST", "/api/tasks", {"title": "a"}))
        assert service.client.get("/docs").status_code == 200
        assert [entry["status"] for entry in entries(service, 1)] == [200]
        service.process.send_signal(signal.SIGTERM)
        assert read_answer(connection).status == 503

    assert [entry["status"] for entry in entries(service, 1)] == [503]


def test_nothing_is_written_or_loaded_unless_it_is_asked_for(start: Start) -> None:
    service = start()
    service.client.get("/api/tasks")
    exchange(service.url, b"nonsense\r\n\r\n")

    assert entries(service, 0) == []
    program = """
import sys
from handlers import application, cli
from handlers.observability import observation
print([layer for layer in application.create_app().middlewares if layer is observation.Observation])
print("prometheus_client" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\nFalse\n"
