"""Slow clients and a great number of clients do not block other clients."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from select import select
from time import monotonic
from types import SimpleNamespace

import httpx
import pytest

from handlers.server import serve
from tests.support import inside, wire
from tests.support.calls import assert_is_problem, wait_for
from tests.support.project import COMMAND
from tests.support.service import Service, Start, running
from tests.support.stores import SqliteStore

pytestmark = pytest.mark.slow

HEAD = b"POST /api/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
BODY = b'{"title": "a"}'
WITH_LENGTH = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PARTIAL_REQUESTS = [
    WITH_LENGTH + BODY[:-1],
    WITH_LENGTH,
    CHUNKED + b"e\r\n" + BODY + b"\r\n",
    CHUNKED + b"e\r\n" + BODY[:3],
    CHUNKED,
    HEAD,
    HEAD[:40],
    b"PO",
    # The operation takes no body, but the service cannot know the operation until the head is complete.
    b"GET /api/tasks HTTP/1.1\r\nHost: a",
]


@pytest.fixture(scope="module")
def short_timeout_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Yield a service with a request timeout of one second."""
    folder = tmp_path_factory.mktemp("short_timeout")
    variables = {"DATABASE_URL": SqliteStore(folder / "tasks.db").url}
    with running("sqlite", folder, "--request-timeout", "1", variables=variables) as service:
        yield service
        assert service.stop() == 0
    assert service.log() == ""


def assert_timed_out(received: bytes) -> None:
    """Assert that the last response is a 408 that closes the connection."""
    last = wire.parse_responses(received)[-1]
    assert last.status == 408
    assert last.json()["detail"] == "The request was not received in time; send it again without pauses"
    assert last.headers["connection"] == "close"
    assert last.headers["content-type"] == "application/problem+json"
    assert last.headers["x-request-id"]
    assert received.count(b"HTTP/1.1 408") == 1


def test_incomplete_request_gets_408(short_timeout_service: Service) -> None:
    before = len(short_timeout_service.client.get("/api/tasks").json())
    with ExitStack() as stack:
        slow = [stack.enter_context(wire.connect(short_timeout_service.url)) for _ in PARTIAL_REQUESTS]
        for connection, partial in zip(slow, PARTIAL_REQUESTS, strict=True):
            connection.sendall(partial)
        for connection in slow:
            assert_timed_out(wire.read_to_end(connection))

    assert len(short_timeout_service.client.get("/api/tasks").json()) == before


def test_idle_connection_is_closed_after_the_keep_alive_timeout(start: Start) -> None:
    service = start("--keep-alive-timeout", "1")
    for request in (b"", wire.request("GET", "/api/tasks")):
        with wire.connect(service.url) as connection:
            connection.sendall(request)
            started = monotonic()

            received = wire.read_to_end(connection)

            assert monotonic() - started > 0.9
            assert b"connection: close" not in received.lower()


def test_timeout_may_be_a_fraction_of_a_second(start: Start) -> None:
    """A request that arrives in time is served; an incomplete request is refused after the timeout, not at once."""
    service = start("--request-timeout", "0.5")
    with wire.connect(service.url) as connection:
        assert wire.call(connection, "POST", "/api/tasks", {"title": "a"}).status == 201
        began = monotonic()
        connection.sendall(WITH_LENGTH)
        assert_timed_out(wire.read_to_end(connection))

    assert monotonic() - began >= 0.5


@pytest.mark.parametrize("workers", ["1", "2"])
def test_shutdown_timeout_of_zero_ends_the_service_at_once(start: Start, workers: str) -> None:
    """The service does not wait until it has sent all pending responses."""
    service = start("--shutdown-timeout", "0", "--request-timeout", "600", "--workers", workers)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", httpx.URL(service.url).port))
        # Request more data than the socket buffers hold.
        connection.sendall(wire.request("GET", "/docs/assets/swagger-ui-bundle.js") * 8)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        began = monotonic()
        service.process.terminate()

        assert service.process.wait(timeout=30) == 0
    # The shutdown would take ten seconds with the default timeout, and would never end without a timeout.
    assert monotonic() - began < 9


def test_requests_before_a_timeout_are_answered(short_timeout_service: Service) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(wire.connect(short_timeout_service.url)) for _ in PARTIAL_REQUESTS]
        for connection, partial in zip(slow, PARTIAL_REQUESTS, strict=True):
            connection.sendall(wire.request("GET", "/api/tasks?limit=1") * 2 + partial)
        for connection in slow:
            received = wire.read_to_end(connection)
            assert [response.status for response in wire.parse_responses(received)] == [200, 200, 408]
            assert_timed_out(received)


def test_timeout_covers_the_whole_request(short_timeout_service: Service) -> None:
    """Further bytes of a request do not extend the timeout, whichever part of the request they belong to."""
    first = wire.request("GET", "/api/tasks?limit=1")
    long = HEAD + b"Content-Length: 60000\r\n\r\n"
    # Each entry: the bytes to send first, the bytes to send repeatedly afterwards, and the statuses of the responses.
    slow = [
        (b"GET /api/tasks", b"?", [408]),
        (HEAD, b"A: b\r\n", [408]),
        (HEAD + b"A: ", b"b", [408]),
        (long, b" ", [408]),
        (long + b'{"title": "', b"aa", [408]),
        (CHUNKED, b"1\r\n \r\n", [408]),
        (CHUNKED + b"ffff\r\n", b" ", [408]),
        (CHUNKED + b"e;a=", b"b", [408]),
        (CHUNKED + b"e\r\n" + BODY + b"\r\n0\r\n", b"A: b\r\n", [408]),
        (first + b"GET /", b"a", [200, 408]),
        (first + HEAD, b"A: b\r\n", [200, 408]),
        (first + long, b" ", [200, 408]),
        (first * 2 + CHUNKED, b"1\r\n \r\n", [200, 200, 408]),
        (WITH_LENGTH + BODY + long, b" ", [201, 408]),
        # The service sends the 415 without waiting for the body, and the 415 does not extend the timeout.
        (long.replace(b"json", b"xml"), b" ", [415]),
    ]
    give_up = monotonic() + 60
    with ExitStack() as stack:
        connections = [stack.enter_context(wire.connect(short_timeout_service.url)) for _ in slow]
        received = dict.fromkeys(connections, b"")
        for connection, (partial, *_) in zip(connections, slow, strict=True):
            connection.sendall(partial)
        arriving = {connection: piece for connection, (_, piece, _) in zip(connections, slow, strict=True)}
        while arriving:
            assert monotonic() < give_up, [slow[connections.index(connection)] for connection in arriving]
            for connection, piece in arriving.items():
                # The service may have closed the connection in the meantime.
                with suppress(ConnectionError):
                    connection.sendall(piece)
            for connection in select(arriving, [], [], 0.1)[0]:
                data = b""
                with suppress(ConnectionError):
                    data = connection.recv(65536)
                received[connection] += data
                if not data:
                    del arriving[connection]

    for connection, (*_, statuses) in zip(connections, slow, strict=True):
        assert [response.status for response in wire.parse_responses(received[connection])] == statuses
        if statuses[-1] == 408:
            assert_timed_out(received[connection])


def test_408_echoes_the_request_id(short_timeout_service: Service) -> None:
    with wire.connect(short_timeout_service.url) as connection:
        connection.sendall(WITH_LENGTH.replace(b"Host: a\r\n", b"Host: a\r\nX-Request-ID: slow-one\r\n"))
        received = wire.read_to_end(connection)

    assert wire.parse_responses(received)[-1].headers["x-request-id"] == "slow-one"


def test_connection_may_be_idle_beyond_the_request_timeout(short_timeout_service: Service) -> None:
    """The connection may be idle before the first request, and between two requests."""
    with wire.connect(short_timeout_service.url) as connection:
        for _ in range(2):
            assert select([connection], [], [], 1.5) == ([], [], [])
            assert wire.call(connection, "GET", "/api/tasks?limit=1").status == 200
            # An empty line does not start a request, and therefore starts no timeout.
            connection.sendall(b"\r\n")


def test_timeout_pauses_while_an_earlier_request_is_processed(
    short_timeout_service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """While the service processes the earlier request, it does not read from the connection."""
    store = SqliteStore(next(tmp_path_factory.getbasetemp().glob("short_timeout*")) / "tasks.db")
    with wire.connect(short_timeout_service.url) as connection:
        with store.block_writes():
            connection.sendall(wire.request("DELETE", "/api/tasks/999999") + WITH_LENGTH)
            assert select([connection], [], [], 0.5) == ([], [], [])
            connection.sendall(BODY)
            assert select([connection], [], [], 1.5) == ([], [], [])
        received = b""
        while len(wire.parse_responses(received)) < 2:
            piece = connection.recv(65536)
            assert piece, received
            received += piece

    assert [response.status for response in wire.parse_responses(received)] == [404, 201]


def test_unread_response_is_cut_off(short_timeout_service: Service) -> None:
    """A client that does not read loses its connection; a client that reads slowly gets the complete response."""
    for _ in range(300):
        short_timeout_service.client.post("/api/tasks", json={"title": "a", "description": "\u20ac" * 4000})
    whole = short_timeout_service.client.get("/api/tasks?limit=1000").content
    assert len(whole) > 3_000_000
    request = wire.request("GET", "/api/tasks?limit=1000")
    # The service must not send the 408 for the missing body in the middle of the response.
    partial = b"GET /api/tasks?limit=1000 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"

    def connect_with_small_buffer() -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", httpx.URL(short_timeout_service.url).port))
        connection.settimeout(30)
        return connection

    with connect_with_small_buffer() as slow_reader, connect_with_small_buffer() as stalled_reader:
        slow_reader.sendall(partial)
        stalled_reader.sendall(request)
        received = b""
        while len(received) < 600_000:
            received += (piece := slow_reader.recv(20_000))
            assert piece
            select([], [], [], 0.1)
        while piece := slow_reader.recv(1 << 20):
            received += piece
        cut_off = b""
        with pytest.raises(ConnectionResetError):
            while True:
                cut_off += stalled_reader.recv(1 << 20)

    assert [response.body for response in wire.parse_responses(received)] == [whole]
    assert wire.parse_responses(cut_off) == []


def test_408_does_not_interrupt_a_response(short_timeout_service: Service) -> None:
    """The service sends the complete response, although the request body times out meanwhile."""
    whole = short_timeout_service.client.get("/docs/assets/swagger-ui-bundle.js").content
    with socket.socket() as connection:
        # Make the socket buffers small, so that they hold only a small part of the response.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        connection.connect(("127.0.0.1", httpx.URL(short_timeout_service.url).port))
        connection.sendall(b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        received = b""
        while len(received) < 200_000:
            received += (piece := connection.recv(10_000))
            assert piece
            select([], [], [], 0.1)
        while piece := connection.recv(1 << 20):
            received += piece

    assert [response.body for response in wire.parse_responses(received)] == [whole]


@pytest.mark.parametrize("limit", [1, 8])
def test_connections_over_the_limit_get_503(start: Start, limit: int) -> None:
    """Open connections keep working, and another client can connect once one of them is closed."""
    service = start("--max-connections", str(limit))
    with ExitStack() as stack:
        within = [stack.enter_context(wire.connect(service.url)) for _ in range(limit)]
        assert {wire.call(connection, "GET", "/api/tasks").status for connection in within} == {200}
        refused = [httpx.get(f"{service.url}/api/tasks") for _ in range(20)]
        assert {wire.call(connection, "GET", "/api/tasks").status for connection in within} == {200}
        within.pop().close()
        wait_for(httpx.Client(base_url=service.url, headers={"Connection": "close"}), 200)

    for response in refused:
        assert_is_problem(503, response)
        assert response.json()["detail"] == "The service is not ready; retry in a moment"
        assert response.headers["retry-after"] == "1"
        assert response.headers["connection"] == "close"


def test_a_thousand_slow_clients_do_not_block_others(start: Start) -> None:
    """Other clients are served while the slow clients send nothing; then each slow client gets 408."""
    service = start("--request-timeout", "5")
    with ExitStack() as stack:
        slow = [stack.enter_context(wire.connect(service.url)) for _ in range(1000)]
        for number, connection in enumerate(slow):
            connection.sendall(PARTIAL_REQUESTS[number % len(PARTIAL_REQUESTS)])
        with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=service.url, timeout=30) as client:
            statuses = list(pool.map(lambda _: client.post("/api/tasks", json={"title": "a"}).status_code, range(200)))
            statuses += pool.map(lambda _: client.get("/api/tasks").status_code, range(200))
        assert statuses == [201] * 200 + [200] * 200
        for connection in slow:
            assert_timed_out(wire.read_to_end(connection))


def test_process_raises_its_open_file_limit(start: Start) -> None:
    """The service raises its soft limit as needed, at most up to the hard limit."""
    limited = ("sh", "-c", 'ulimit -Sn 100; exec "$0" "$@"', COMMAND)
    service = start("--max-connections", "300", command=limited)
    with ExitStack() as stack:
        connections = [stack.enter_context(wire.connect(service.url)) for _ in range(300)]
        assert {wire.call(connection, "GET", "/api/tasks").status for connection in connections} == {200}


def test_max_connections_over_the_hard_file_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        serve, "resource", SimpleNamespace(RLIMIT_NOFILE=0, RLIM_INFINITY=-1, getrlimit=lambda _: (200, 200))
    )
    result = inside.run(tmp_path, "serve", "--port", "0", "--max-connections", "300")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "--max-connections 300 and --database-connections 10 need 374 open files, but a process may have 200:"
        " raise that limit, as with ulimit -n, or lower the numbers.\n"
    )
