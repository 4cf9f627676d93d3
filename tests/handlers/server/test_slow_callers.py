"""Callers who take their time, or come in great numbers, hold nobody else up."""

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

from handlers import cli
from tests.support import inside, wire
from tests.support.calls import assert_is_problem, wait_for
from tests.support.project import COMMAND
from tests.support.service import Service, Start, running
from tests.support.stores import SqliteStore

pytestmark = pytest.mark.slow

HEAD = b"POST /api/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
BODY = b'{"title": "a"}'
DECLARED = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What has begun to arrive, each time less of it.
BEGUN = [
    DECLARED + BODY[:-1],
    DECLARED,
    CHUNKED + b"e\r\n" + BODY + b"\r\n",
    CHUNKED + b"e\r\n" + BODY[:3],
    CHUNKED,
    HEAD,
    HEAD[:40],
    b"PO",
    # The length of it is one that no operation takes, but that is known only when it has been found.
    b"GET /api/tasks HTTP/1.1\r\nHost: a",
]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits for a second."""
    folder = tmp_path_factory.mktemp("impatient")
    variables = {"DATABASE_URL": SqliteStore(folder / "tasks.db").url}
    with running("sqlite", folder, "--request-timeout", "1", variables=variables) as service:
        yield service
        assert service.stop() == 0
    assert service.log() == ""


def assert_too_slow(received: bytes) -> None:
    """The last answer says that the request did not arrive in time, and that the connection ends."""
    last = wire.answers(received)[-1]
    assert last.status == 408
    assert last.json()["detail"] == "The request was not received in time; send it again without pauses"
    assert last.headers["connection"] == "close"
    assert last.headers["content-type"] == "application/problem+json"
    assert last.headers["x-request-id"]
    assert received.count(b"HTTP/1.1 408") == 1


def test_request_that_does_not_arrive_is_refused(impatient: Service) -> None:
    before = len(impatient.client.get("/api/tasks").json())
    with ExitStack() as stack:
        slow = [stack.enter_context(wire.connect(impatient.url)) for _ in BEGUN]
        for connection, begun in zip(slow, BEGUN, strict=True):
            connection.sendall(begun)
        for connection in slow:
            assert_too_slow(wire.read_to_end(connection))

    assert len(impatient.client.get("/api/tasks").json()) == before


def test_fraction_of_a_second_is_given(start: Start) -> None:
    """A request in time is served, and one that is late is refused then, not at once."""
    service = start("--request-timeout", "0.5")
    with wire.connect(service.url) as connection:
        assert wire.call(connection, "POST", "/api/tasks", {"title": "a"}).status == 201
        began = monotonic()
        connection.sendall(DECLARED)
        assert_too_slow(wire.read_to_end(connection))

    assert monotonic() - began >= 0.5


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_time_to_shut_down_is_none(start: Start, workers: str) -> None:
    """With a timeout of 0 the service ends at once, although it still has an answer to send."""
    service = start("--shutdown-timeout", "0", "--request-timeout", "600", "--workers", workers)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", httpx.URL(service.url).port))
        # More than the system takes off the service's hands.
        connection.sendall(wire.request("GET", "/docs/assets/swagger-ui-bundle.js") * 8)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        began = monotonic()
        service.process.terminate()

        assert service.process.wait(timeout=30) == 0
    # Otherwise it is ten seconds, or as long as the caller likes.
    assert monotonic() - began < 9


def test_answers_before_it_are_given(impatient: Service) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(wire.connect(impatient.url)) for _ in BEGUN]
        for connection, begun in zip(slow, BEGUN, strict=True):
            connection.sendall(wire.request("GET", "/api/tasks?limit=1") * 2 + begun)
        for connection in slow:
            received = wire.read_to_end(connection)
            assert [answer.status for answer in wire.answers(received)] == [200, 200, 408]
            assert_too_slow(received)


def test_request_that_arrives_in_pieces_is_in_time_as_a_whole_or_not(impatient: Service) -> None:
    """A piece now and then does not give it more time, whichever part of the request it is a piece of."""
    first = wire.request("GET", "/api/tasks?limit=1")
    long = HEAD + b"Content-Length: 60000\r\n\r\n"
    # What is sent at once, the pieces after it, and the statuses of the responses.
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
        (DECLARED + BODY + long, b" ", [201, 408]),
        # The refusal does not wait for the body, and does not give it more time.
        (long.replace(b"json", b"xml"), b" ", [415]),
    ]
    give_up = monotonic() + 60
    with ExitStack() as stack:
        connections = [stack.enter_context(wire.connect(impatient.url)) for _ in slow]
        received = dict.fromkeys(connections, b"")
        for connection, (begun, *_) in zip(connections, slow, strict=True):
            connection.sendall(begun)
        arriving = {connection: piece for connection, (_, piece, _) in zip(connections, slow, strict=True)}
        while arriving:
            assert monotonic() < give_up, [slow[connections.index(connection)] for connection in arriving]
            for connection, piece in arriving.items():
                # The service may just have closed it.
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
        assert [answer.status for answer in wire.answers(received[connection])] == statuses
        if statuses[-1] == 408:
            assert_too_slow(received[connection])


def test_refused_request_is_named_as_it_says(impatient: Service) -> None:
    with wire.connect(impatient.url) as connection:
        connection.sendall(DECLARED.replace(b"Host: a\r\n", b"Host: a\r\nX-Request-ID: slow-one\r\n"))
        received = wire.read_to_end(connection)

    assert wire.answers(received)[-1].headers["x-request-id"] == "slow-one"


def test_connection_may_be_idle_for_longer_than_a_request_may_take(impatient: Service) -> None:
    """Before its first request and between two."""
    with wire.connect(impatient.url) as connection:
        for _ in range(2):
            assert select([connection], [], [], 1.5) == ([], [], [])
            assert wire.call(connection, "GET", "/api/tasks?limit=1").status == 200
            # Empty lines begin no request.
            connection.sendall(b"\r\n")


def test_request_may_wait_for_one_before_it(impatient: Service, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As long as that is answered, the service itself does not read on."""
    store = SqliteStore(next(tmp_path_factory.getbasetemp().glob("impatient*")) / "tasks.db")
    with wire.connect(impatient.url) as connection:
        with store.writes_held():
            connection.sendall(wire.request("DELETE", "/api/tasks/999999") + DECLARED)
            assert select([connection], [], [], 0.5) == ([], [], [])
            connection.sendall(BODY)
            assert select([connection], [], [], 1.5) == ([], [], [])
        received = b""
        while len(wire.answers(received)) < 2:
            piece = connection.recv(65536)
            assert piece, received
            received += piece

    assert [answer.status for answer in wire.answers(received)] == [404, 201]


def test_answer_that_is_not_read_is_cut_off(impatient: Service) -> None:
    """One that is read slowly is not."""
    for _ in range(300):
        impatient.client.post("/api/tasks", json={"title": "a", "description": "\u20ac" * 4000})
    whole = impatient.client.get("/api/tasks?limit=1000").content
    assert len(whole) > 3_000_000
    request = wire.request("GET", "/api/tasks?limit=1000")
    # The refusal of what does not arrive must not get into the answer either.
    begun = b"GET /api/tasks?limit=1000 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"

    def connected() -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", httpx.URL(impatient.url).port))
        connection.settimeout(30)
        return connection

    with connected() as reader, connected() as sleeper:
        reader.sendall(begun)
        sleeper.sendall(request)
        received = b""
        while len(received) < 600_000:
            received += (piece := reader.recv(20_000))
            assert piece
            select([], [], [], 0.1)
        while piece := reader.recv(1 << 20):
            received += piece
        cut = b""
        with pytest.raises(ConnectionResetError):
            while True:
                cut += sleeper.recv(1 << 20)

    assert [answer.body for answer in wire.answers(received)] == [whole]
    assert wire.answers(cut) == []


def test_answer_is_not_broken_off_by_a_refusal(impatient: Service) -> None:
    """Its end comes first, where its own request does not arrive in time while it is read."""
    whole = impatient.client.get("/docs/assets/swagger-ui-bundle.js").content
    with socket.socket() as connection:
        # So that the system takes little of it at a time off the service's hands.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        connection.connect(("127.0.0.1", httpx.URL(impatient.url).port))
        connection.sendall(b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        received = b""
        while len(received) < 200_000:
            received += (piece := connection.recv(10_000))
            assert piece
            select([], [], [], 0.1)
        while piece := connection.recv(1 << 20):
            received += piece

    assert [answer.body for answer in wire.answers(received)] == [whole]


@pytest.mark.parametrize("most", [1, 8])
def test_connections_beyond_the_limit_are_told_so(start: Start, most: int) -> None:
    """And those that there are stay; a place that becomes free is given to the next."""
    service = start("--max-connections", str(most))
    with ExitStack() as stack:
        within = [stack.enter_context(wire.connect(service.url)) for _ in range(most)]
        assert {wire.call(connection, "GET", "/api/tasks").status for connection in within} == {200}
        refused = [httpx.get(f"{service.url}/api/tasks") for _ in range(20)]
        assert {wire.call(connection, "GET", "/api/tasks").status for connection in within} == {200}
        within.pop().close()
        wait_for(httpx.Client(base_url=service.url, headers={"Connection": "close"}), 200)

    for answer in refused:
        assert_is_problem(503, answer)
        assert answer.json()["detail"] == "The service is not ready; retry in a moment"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"


def test_a_thousand_slow_callers_hold_nobody_up(start: Start) -> None:
    """While each of them waits with the rest of a request, all others are answered; then each is told."""
    service = start("--request-timeout", "5")
    with ExitStack() as stack:
        slow = [stack.enter_context(wire.connect(service.url)) for _ in range(1000)]
        for number, connection in enumerate(slow):
            connection.sendall(BEGUN[number % len(BEGUN)])
        with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=service.url, timeout=30) as client:
            answers = list(pool.map(lambda _: client.post("/api/tasks", json={"title": "a"}).status_code, range(200)))
            answers += pool.map(lambda _: client.get("/api/tasks").status_code, range(200))
        assert answers == [201] * 200 + [200] * 200
        for connection in slow:
            assert_too_slow(wire.read_to_end(connection))


def test_process_gets_the_files_that_its_connections_take(start: Start) -> None:
    """Where the system lets it, however few it has been given."""
    limited = ("sh", "-c", 'ulimit -Sn 100; exec "$0" "$@"', COMMAND)
    service = start("--max-connections", "300", command=limited)
    with ExitStack() as stack:
        connections = [stack.enter_context(wire.connect(service.url)) for _ in range(300)]
        assert {wire.call(connection, "GET", "/api/tasks").status for connection in connections} == {200}


def test_more_connections_than_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cli, "resource", SimpleNamespace(RLIMIT_NOFILE=0, RLIM_INFINITY=-1, getrlimit=lambda _: (200, 200))
    )
    ended = inside.run(tmp_path, "serve", "--port", "0", "--max-connections", "300")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "--max-connections 300 needs 374 open files, and a process may have 200: raise that, as with ulimit -n, or"
        " lower the number.\n"
    )
