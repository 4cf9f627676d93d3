"""The access log has one line per request, whatever the outcome of the request, and contains no client data."""

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
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from handlers.contract.document import PREFIX
from handlers.observability import access_log
from handlers.server.exchange import Exchange
from tests.support.calls import UNKNOWN_METHOD
from tests.support.project import ROOT, TIMEOUT
from tests.support.service import Service, Start, run, running
from tests.support.stores import SqliteStore
from tests.support.wire import HOST, JSON, call, connect, exchange, read_response, read_to_end, request

pytestmark = pytest.mark.slow

FIELDS = ["time", "method", "route", "status", "duration_ms", "request_id", "key"]
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
GET = b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /api/tasks HTTP/1.1\r\n" + HOST + JSON
BROKEN = POST + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"
LENGTH = b"Content-Length: 14\r\n\r\n"
BODY = b'{"title": "a"}'
CONNECTIONS = 20


@pytest.fixture(scope="module")
def logging_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Yield a service that writes an access log."""
    folder = tmp_path_factory.mktemp("logging_service")
    flags = ("--access-log", "--request-timeout", "2", "--max-connections", str(CONNECTIONS))
    with running("sqlite", folder, *flags, variables={"DATABASE_URL": f"sqlite:///{folder / 'tasks.db'}"}) as service:
        yield service
        assert service.log() == ""


def read_lines(service: Service, count: int) -> list[str]:
    """Return the next `count` lines of the access log; fail if the service writes fewer or more lines."""
    assert service.process.stdout
    output, received = service.process.stdout.fileno(), b""
    while received.count(b"\n") < count:
        assert select.select([output], [], [], TIMEOUT)[0], received
        piece = os.read(output, 65536)
        assert piece, received
        received += piece
    # An empty read marks the end of the output: the service has ended.
    while select.select([output], [], [], 0.1)[0] and (piece := os.read(output, 65536)):
        received += piece
    lines = received.decode("ascii").splitlines()
    assert len(lines) == count, lines
    return lines


def read_entries(service: Service, count: int) -> list[dict[str, Any]]:
    """Return the next `count` lines of the access log, parsed as JSON."""
    return [json.loads(line) for line in read_lines(service, count)]


@pytest.mark.parametrize(
    ("request_line", "options", "route", "status"),
    [
        ("POST /api/tasks", {"json": {"title": "a"}}, "/api/tasks", 201),
        ("POST /api/tasks", {"json": {"title": ""}}, "/api/tasks", 400),
        ("POST /api/tasks", {"json": {"title": "a" * 70000}}, "/api/tasks", 413),
        ("GET /api/tasks?limit=1", {}, "/api/tasks", 200),
        ("HEAD /api/tasks", {}, "/api/tasks", 200),
        ("GET /api/tasks", {"headers": {"If-None-Match": "*"}}, "/api/tasks", 304),
        ("OPTIONS /api/tasks/1", {}, "/api/tasks/{id}", 204),
        ("GET /api/tasks/9999", {}, "/api/tasks/{id}", 404),
        (f"{UNKNOWN_METHOD} /api/tasks/1", {}, "/api/tasks/{id}", 405),
        (f"{UNKNOWN_METHOD} /api/tasks/1%2F2", {}, None, 404),
        (f"{UNKNOWN_METHOD} /api%2Ftasks", {}, None, 404),
        ("GET /docs", {}, "/docs", 200),
        ("POST /docs", {}, "/docs", 405),
        ("GET /docs/", {}, "/docs/", 307),
        ("GET /docs/assets/swagger-ui.css", {}, "/docs/assets", 200),
        ("GET /health/live", {}, "/health/live", 200),
        ("GET /nowhere", {}, None, 404),
    ],
)
def test_line_reports_the_outcome_of_a_request(
    logging_service: Service, request_line: str, options: dict[str, Any], route: str | None, status: int
) -> None:
    method, path = request_line.split()
    response = logging_service.client.request(method, path, **options)

    (line,) = read_lines(logging_service, 1)
    entry = json.loads(line)
    assert list(entry) == FIELDS
    assert (entry["method"], entry["route"], entry["status"]) == (method, route, status)
    assert response.status_code == status
    assert entry["request_id"] == response.headers["x-request-id"]
    assert TIMESTAMP.fullmatch(entry["time"])
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
        # In these two cases, the client disconnects before its request is complete.
        (GET[:-2], []),
        (POST + LENGTH + BODY[:-1], [("POST", "/api/tasks", None)]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_protocol_errors_are_logged_once(
    logging_service: Service, bytes_: bytes, lines: list[tuple[str | None, str | None, int | None]]
) -> None:
    responses = exchange(logging_service.url, bytes_)

    # Sort the entries: a refusal may be logged before or after the successful response that precedes it.
    logged_entries = sorted(read_entries(logging_service, len(lines)), key=lambda entry: entry["status"] or 0)
    assert [(entry["method"], entry["route"], entry["status"]) for entry in logged_entries] == lines
    request_ids = [response.headers["x-request-id"] for response in responses]
    assert [entry["request_id"] for entry in logged_entries if entry["status"]] == request_ids


@pytest.mark.parametrize(
    ("piece", "line"),
    [(GET[:-2], (None, None, 408)), (POST + LENGTH + BODY[:-1], ("POST", "/api/tasks", 408))],
    ids=["head", "body"],
)
def test_timed_out_request_is_logged_once(
    logging_service: Service, piece: bytes, line: tuple[str | None, str | None, int]
) -> None:
    with connect(logging_service.url) as connection:
        connection.sendall(piece.replace(HOST, b"X-Request-ID: slow\r\n" + HOST))
        assert read_response(connection).headers["x-request-id"] == "slow"
        read_to_end(connection)

    (entry,) = read_entries(logging_service, 1)
    assert (entry["method"], entry["route"], entry["status"]) == line
    assert entry["request_id"] == "slow"


def test_connection_over_the_limit_is_logged(logging_service: Service) -> None:
    logging_service.client.close()
    logging_service.client = httpx.Client(base_url=logging_service.url, timeout=30)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            assert call(stack.enter_context(connect(logging_service.url)), "GET", "/api/tasks").status == 200
        one_more = stack.enter_context(connect(logging_service.url))
        assert read_response(one_more).status == 503

    logged_entries = read_entries(logging_service, CONNECTIONS + 1)
    assert [entry["status"] for entry in logged_entries] == [200] * CONNECTIONS + [503]


@pytest.mark.parametrize("with_reset", [False, True])
def test_response_to_a_disconnected_client_has_no_status(logging_service: Service, with_reset: bool) -> None:
    store = SqliteStore(Path(f"/proc/{logging_service.process.pid}/cwd/tasks.db"))
    with connect(logging_service.url) as connection, store.block_writes():
        connection.sendall(request("POST", "/api/tasks", {"title": "a"}))
        assert logging_service.client.get("/docs").status_code == 200
        if with_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            assert logging_service.client.get("/docs").status_code == 200

    *others, entry = read_entries(logging_service, 3 if with_reset else 2)
    assert {other["route"] for other in others} == {"/docs"}
    # A client that has only half-closed the connection may still wait for the response, and gets it.
    assert (entry["method"], entry["status"]) == ("POST", None if with_reset else 201)


def test_client_data_is_not_logged(logging_service: Service) -> None:
    names = ("Authorization", "Idempotency-Key", "If-Match", "Cookie", "User-Agent", "secret")
    headers = dict.fromkeys(names, "secret")
    for method, path in (
        ("POST", "/api/tasks?secret=secret"),
        ("GET", "/api/tasks?after=5&secret"),
        ("DELETE", "/api/tasks/secret"),
        (UNKNOWN_METHOD, "/api/tasks/secret"),
        ("GET", "/docs/assets/secret"),
        ("GET", "/secret%0A%22"),
    ):
        logging_service.client.request(method, path, headers=headers, json={"title": "secret", "secret": "secret"})
    exchange(logging_service.url, b"secret /secret HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    exchange(logging_service.url, b"secret\r\n\r\n")

    assert "secret" not in "".join(read_lines(logging_service, 8))


@pytest.mark.parametrize(
    "request_id", ["a", "A-1_b.c:d/e+f=@~", "0b7e6f4e-8a1c-4c58-9e0b-3c2d5b1f7a90"], ids=["letter", "marks", "uuid"]
)
def test_request_id_of_allowed_characters_is_kept(logging_service: Service, request_id: str) -> None:
    response = logging_service.client.get("/api/tasks", headers={"X-Request-ID": request_id})

    (entry,) = read_entries(logging_service, 1)
    is_allowed = bool(re.fullmatch(r"[0-9A-Za-z._-]+", request_id))
    assert (entry["request_id"] == request_id) == is_allowed
    assert response.headers["x-request-id"] == entry["request_id"]


@pytest.mark.parametrize(
    "lines",
    [b"X-Request-ID: " + value + b"\r\n" for value in (b"a" * 1000, b"a b", b"\xe9", b'a"b', b"a\\", b"\xff{}", b"")]
    + [b"X-Request-ID: a\r\nX-Request-ID: b\r\n", b"X-Request-ID: a\r\nX-Request-ID: a\r\n"],
    ids=lambda value: repr(value)[:40],
)
def test_invalid_request_id_is_replaced(logging_service: Service, lines: bytes) -> None:
    for bytes_ in (GET[:-2] + lines + b"\r\n", BROKEN.replace(HOST, HOST + lines)):
        (response,) = exchange(logging_service.url, bytes_)

        (entry,) = read_entries(logging_service, 1)
        assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", entry["request_id"])
        assert entry["request_id"] == response.headers["x-request-id"]


def test_name_of_the_api_key_is_logged(start: Start, tmp_path: Path) -> None:
    key = run(tmp_path, "key", "new", "anna").stdout.strip()
    service = start("--access-log")
    for headers in ({}, {"Authorization": f"Bearer {key}"}, {"Authorization": "Bearer secret"}):
        service.client.get("/api/tasks/1", headers=headers)

    lines = read_lines(service, 3)
    logged_entries = [(entry["route"], entry["status"], entry["key"]) for entry in map(json.loads, lines)]
    path = "/api/tasks/{id}"
    assert logged_entries == [(path, 401, None), (path, 404, "anna"), (path, 401, None)]
    assert key not in "".join(lines)


@pytest.mark.parametrize("fails", [False, True])
def test_duration_is_in_milliseconds(caplog: pytest.LogCaptureFixture, fails: bool) -> None:
    """The logged duration is between the duration of the application and the duration of the whole call."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.1)
        if fails:
            raise ConnectionResetError
        await send({"type": "http.response.body"})

    state = {"observers": [access_log.write], "request_id": "a"}
    scope: Scope = {"type": "http", "method": "GET", "path": "/nowhere", "scheme": "http", "state": state}
    connection = Mock(**{"flow.write_paused": False, "server_state.default_headers": []})
    began = time.perf_counter()
    with caplog.at_level(logging.INFO):
        asyncio.run(Exchange(connection, scope, keep_alive=True, expects_continue=False).run(app))
    waited = time.perf_counter() - began

    (record,) = [record for record in caplog.records if record.name == access_log.logger.name]
    entry = json.loads(record.getMessage())
    assert (entry["request_id"], entry["status"]) == ("a", 200)
    assert 100 <= entry["duration_ms"] <= waited * 1000


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.25, 250), (0.0000004, 0), (0.0123456, 12.346), (61, 61000)])
def test_duration_is_rounded_to_the_microsecond(
    caplog: pytest.LogCaptureFixture, seconds: float, milliseconds: float
) -> None:
    with caplog.at_level(logging.INFO):
        access_log.write({"type": "http", "state": {"request_id": "a"}}, None, seconds)

    assert json.loads(caplog.messages[0])["duration_ms"] == milliseconds


@pytest.mark.parametrize("validates", ["true", "false"])
def test_error_is_logged_once_with_its_request_id(start: Start, store: SqliteStore, validates: str) -> None:
    service = start("--access-log", variables={f"{PREFIX}VALIDATE_RESPONSES": validates})
    store.execute("DROP TABLE task")

    responses = [service.client.get("/api/tasks"), service.client.post("/api/tasks", json={"title": "a"})]

    request_ids = [response.headers["x-request-id"] for response in responses]
    assert [response.status_code for response in responses] == [500, 500]
    assert [(entry["request_id"], entry["status"]) for entry in read_entries(service, 2)] == [
        (request_id, 500) for request_id in request_ids
    ]
    log = service.log()
    assert log.count("Traceback (most recent call last)") == 2
    assert [log.count(request_id) for request_id in request_ids] == [1, 1]


def test_request_cut_off_by_shutdown_is_logged(start: Start, store: SqliteStore) -> None:
    service = start("--access-log", "--shutdown-timeout", "1", "--workers", "2")
    with connect(service.url) as connection, store.block_writes():
        connection.sendall(request("POST", "/api/tasks", {"title": "a"}))
        assert service.client.get("/docs").status_code == 200
        assert [entry["status"] for entry in read_entries(service, 1)] == [200]
        service.process.send_signal(signal.SIGTERM)
        assert read_response(connection).status == 503

    assert [entry["status"] for entry in read_entries(service, 1)] == [503]


def test_observability_is_off_by_default(start: Start) -> None:
    service = start()
    service.client.get("/api/tasks")
    exchange(service.url, b"nonsense\r\n\r\n")

    assert read_entries(service, 0) == []
    program = """
import sys
from handlers import application, cli
application.create_app()
print("prometheus_client" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert result.stdout == "False\n"
