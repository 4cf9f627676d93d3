"""HTTP/1.1 over raw sockets: valid, malformed, oversized and pipelined requests."""

import json
import resource
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.calls import PROBLEM
from tests.support.project import tool
from tests.support.service import Service, Start
from tests.support.stores import Store
from tests.support.wire import (
    HOST,
    JSON,
    Response,
    call,
    connect,
    exchange,
    parse_responses,
    read_response,
    read_to_end,
)

GET = b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"\r\n"
BODY = b'{"title": "a"}'
POST = b"POST /api/tasks HTTP/1.1\r\n" + HOST + JSON
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b'7\r\n{"title\r\n7\r\n": "a"}\r\n0\r\n\r\n'
# The offer of HTTP/2 that Java's HttpClient and `curl --http2` add to every request, and offers of other protocols.
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"
UPGRADES = [
    H2C,
    b"Upgrade: websocket\r\nConnection: keep-alive,upgrade \r\nSec-WebSocket-Version: 13\r\n",
    b"Connection: Upgrade\t\r\nUpgrade: TLS/1.0, foo\r\nUpgrade: bar/2\r\n",
]
upgrades = pytest.mark.parametrize("upgrade", [b"", H2C], ids=["", "upgrade"])


@pytest.fixture(scope="module")
def url(shared_client: httpx.Client) -> str:
    """Return the URL of the shared service, which must not log anything, whatever requests it receives."""
    return str(shared_client.base_url).rstrip("/")


def is_problem(response: Response) -> bool:
    problem = json.loads(response.body)
    return (
        PROBLEM.is_valid(problem)
        and problem["status"] == response.status
        and response.headers["content-type"] == "application/problem+json"
    )


@upgrades
@pytest.mark.parametrize(
    "bytes_",
    [
        b"\r\n\r\n\r\n\0",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /api/tasks\r\n\r\n",
        b"GET /api/tasks HTTP/0.9\r\n" + HOST + b"\r\n",
        b"GET /api/tasks HTTP/2.0\r\n" + HOST + b"\r\n",
        b"GET /api/tasks HTTP/9.9\r\n" + HOST + b"\r\n",
        b"GET /api/tasks FTP/1.1\r\n" + HOST + b"\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 80\r\n" + GET,
        b"GET api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET ftp://localhost/api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http:///api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://:80/api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://user@localhost/api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://user:word@localhost/api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost:http/api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://[::1/api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost/api/tasks HTTP/1.1\r\n\r\n",
        b"GET http://localhost/api/tasks HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /api/tasks/\xff HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /api/tasks?a=\xff HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /api/tasks\0 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"G\xcbT /api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /api/tasks HTTP/1.1\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET /api/tasks HTTP/1.0\r\n" + HOST + HOST + b"\r\n",
        b'GET /api/tasks HTTP/1.1\r\nHost: a>; rel="next", <b\r\n\r\n',
        b"GET /api/tasks HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\nHost: a:http\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\nHost: \xe9\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"A : b\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b" folded\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"A: \0\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\n" + b"Host: localhost\n\n",
        POST + b"Content-Length: fourteen\r\n\r\n" + BODY,
        POST + b"Content-Length: -1\r\n\r\n" + BODY,
        POST + b"Content-Length: +14\r\n\r\n" + BODY,
        POST + b"Content-Length: 14, 14\r\n\r\n" + BODY,
        POST + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY,
        POST + b"Content-Length: 14\r\nContent-Length: 15\r\n\r\n" + BODY,
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"A: b\r\n\tfolded\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\t\r\n\r\n" + CHUNKS,
        POST + CHUNKED + b"\r\nnonsense\r\n",
        POST + b"Expect: 100-continue\r\n" + CHUNKED + b"\r\nnonsense\r\n",
        POST + CHUNKED + b"\r\n-1\r\n",
        POST + CHUNKED + b"\r\nfffffffffffffffff\r\n",
        POST + CHUNKED + b"\r\n1\r\n{}\r\n",
        POST + CHUNKED + b"\r\n" + CHUNKS[:-2] + b"connection: close\r\n\r\n",
        POST + b"Transfer-Encoding: gzip\r\n\r\n" + BODY,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
        POST + b"Transfer-Encoding: identity\r\n" + CHUNKED + b"\r\n" + CHUNKS,
    ],
    ids=repr,
)
def test_malformed_request_gets_400(url: str, bytes_: bytes, upgrade: bytes) -> None:
    (response,) = exchange(url, bytes_.replace(HOST, HOST + upgrade))

    assert response.status == 400
    assert is_problem(response)
    assert response.json()["detail"].startswith("This is not a valid HTTP/1.1 request (RFC 9112)")
    assert response.headers["connection"] == "close"
    assert "date" in response.headers
    assert exchange(url, GET)[0].status == 200


@upgrades
@pytest.mark.parametrize(
    "bytes_",
    [
        GET,
        b"\r\n\r\n" + GET,
        b"GET http://localhost/api/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost/api/tasks HTTP/1.0\r\n\r\n",
        b"GET /api/tasks#fragment HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /api/tasks HTTP/1.1\r\nHost:\t localhost \t\r\nEmpty: \t \r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"TE: trailers\r\nConnection: TE\r\n\r\n",
        b"GET /api/tasks HTTP/1.0\r\n\r\n",
        b"GET /api/tasks HTTP/1.0\r\n" + HOST + b"\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"A: b\r\nA: b\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"A: \xff\r\nA: b\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\nhOST: x\r\nConnection: close\r\n\r\n",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
        b"GET /api/tasks HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n" + CHUNKS,
        b"GET /%61pi/tasks HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /api/tasks? HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=repr,
)
def test_odd_but_valid_requests_are_served(url: str, bytes_: bytes, upgrade: bytes) -> None:
    (response,) = exchange(url, bytes_.replace(HOST, HOST + upgrade))

    assert response.status == 200


@pytest.mark.parametrize(
    "method", [b"FOO", b"get", b"GETX", b"PROPFIND", b"DESCRIBE", b"CONNECT", b"M-SEARCH", b"X" * 5000]
)
def test_unknown_method_gets_405(url: str, method: bytes) -> None:
    refused, served = exchange(url, method + b" /api/tasks HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}", GET)

    assert refused.status == 405
    assert refused.headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert is_problem(refused)
    assert served.status == 200


@pytest.mark.parametrize("upgrade", [b"", *UPGRADES], ids=["", "h2c", "websocket", "others"])
@pytest.mark.parametrize(
    "head",
    [
        CHUNKED + b"\r\n" + CHUNKS,
        b"Transfer-Encoding:\tchunked \r\n\r\n" + CHUNKS,
        b"Content-Length:\t14 \t\r\n\r\n" + BODY,
        b"Transfer-Encoding: Chunked\r\nContent-Length: 14\r\n\r\n" + CHUNKS,
        b"Content-Length: 3\r\n" + CHUNKED + b"\r\n" + CHUNKS,
        CHUNKED + b"\r\n" + b"e;a=b\r\n" + BODY + b"\r\n0\r\nTrailer: a\r\n\r\n",
        b"Content-Length: 14\r\n\r\n" + BODY,
        b"Content-Length: 14\r\nContent-Encoding: identity\r\n\r\n" + BODY,
    ],
    ids=repr,
)
def test_body_is_read_with_any_framing(url: str, head: bytes, upgrade: bytes) -> None:
    (whole,) = exchange(url, POST + upgrade + head)
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in POST + upgrade + head:
            connection.sendall(bytes([byte]))
        bytewise = read_response(connection)

    assert whole.status == bytewise.status == 201
    assert whole.json()["title"] == bytewise.json()["title"] == "a"
    assert bytewise.json()["id"] > whole.json()["id"]


@upgrades
def test_trailer_section_does_not_change_the_request(url: str, upgrade: bytes) -> None:
    trailers = b"X-Request-ID: a\r\nIdempotency-Key: trailer\r\nHost: b\r\nContent-Type: text/plain\r\n\r\n"

    responses = exchange(url, (POST + upgrade + CHUNKED + b"\r\n" + CHUNKS[:-2] + trailers) * 2)

    assert [response.status for response in responses] == [201, 201]
    assert responses[0].json()["id"] < responses[1].json()["id"]
    assert "a" not in [response.headers["x-request-id"] for response in responses]


@upgrades
def test_chunked_body_with_content_length_closes_the_connection(url: str, upgrade: bytes) -> None:
    (response,) = exchange(url, POST + upgrade + CHUNKED + b"Content-Length: 14\r\n\r\n" + CHUNKS + GET)

    assert response.status == 201
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("malformed", [b"nonsense\r\n\r\n", POST + CHUNKED + b"\r\nnonsense\r\n"], ids=["head", "body"])
@pytest.mark.parametrize(
    "first", [GET, POST + b"Content-Length: 14\r\n\r\n" + BODY, GET * 3], ids=["get", "post", "gets"]
)
def test_requests_before_a_malformed_one_are_answered_first(url: str, first: bytes, malformed: bytes) -> None:
    *good, refused = exchange(url, first + malformed)

    assert [response.status for response in good] == [201 if b"POST" in first else 200] * first.count(b"/api/tasks")
    assert refused.status == 400
    assert is_problem(refused)


def test_malformed_request_waits_for_the_response_before_it(start: Start, store: Store) -> None:
    service = start()
    assert service.client.get("/docs").status_code == 200
    with connect(service.url) as slow:
        with store.block_writes():
            slow.sendall(POST + b"Content-Length: 14\r\n\r\n" + BODY + b"nonsense\r\n\r\n")
            time.sleep(0.2)
            slow.sendall(b"more nonsense\r\n\r\n")
            slow.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
        created, refused = parse_responses(read_to_end(slow))

    assert (created.status, refused.status) == (201, 400)


def test_pipelined_requests_are_answered_in_order(url: str) -> None:
    requests = [b"GET /api/tasks?limit=%d HTTP/1.1\r\n" % limit + HOST + b"\r\n" for limit in (0, 1, 2000, 2)]

    assert [response.status for response in exchange(url, b"".join(requests))] == [400, 200, 400, 200]


@pytest.mark.parametrize("request_", [GET, POST + b"Content-Length: 14\r\n\r\n" + BODY], ids=["get", "post"])
def test_half_closed_client_gets_the_response(url: str, request_: bytes) -> None:
    for _ in range(20):
        (response,) = exchange(url, request_)
        assert response.status in (200, 201)


@pytest.mark.parametrize("bytes_", [b"", b"GET", GET[:-2], POST + b"Content-Length: 14\r\n\r\n" + BODY[:-1]], ids=repr)
def test_incomplete_request_is_not_answered(url: str, bytes_: bytes) -> None:
    count = len(httpx.get(f"{url}/api/tasks?limit=1000").json())

    assert exchange(url, bytes_) == []
    assert len(httpx.get(f"{url}/api/tasks?limit=1000").json()) == count


@pytest.mark.parametrize("upgrade", UPGRADES, ids=["h2c", "websocket", "others"])
def test_upgrade_is_ignored(url: str, upgrade: bytes) -> None:
    """The connection stays open, and other requests may precede and follow."""
    requests = [
        GET[:-2] + upgrade + b"\r\n",
        POST + upgrade + b"Content-Length: 14\r\n\r\n" + BODY,
        POST + upgrade + CHUNKED + b"\r\n" + CHUNKS,
        b"DELETE /api/tasks/0 HTTP/1.1\r\n" + HOST + upgrade + b"\r\n",
        b"FOO /api/tasks HTTP/1.1\r\n" + HOST + upgrade + b"\r\n",
    ]
    pipelined = exchange(url, b"".join([GET, *requests[:4], GET]))

    assert [response.status for response in pipelined] == [200, 200, 201, 201, 404, 200]
    with connect(url) as connection:
        for request, status in zip(requests, (200, 201, 201, 404, 405), strict=True):
            connection.sendall(request)
            response = read_response(connection)
            assert response.status == status
            assert "connection" not in response.headers
            assert "upgrade" not in response.headers


def test_many_upgrades_are_ignored(url: str) -> None:
    assert [response.status for response in exchange(url, (GET[:-2] + H2C + b"\r\n") * 300)] == [200] * 300


def test_connect_is_refused_in_any_segmentation(url: str) -> None:
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n":
            connection.sendall(bytes([byte]))
        (response,) = parse_responses(read_to_end(connection))

    assert response.status == 400


@pytest.mark.parametrize("options", [[], ["--http1.0"], ["--header", "Transfer-Encoding: chunked"]], ids=repr)
def test_curl_can_offer_http2(url: str, options: list[str], tmp_path: Path) -> None:
    """curl sends `Upgrade: h2c` with `--http2`, unless a later option chooses HTTP/1.0."""
    command = [str(tool("curl")), "--silent", "--show-error", "--http2", *options, "--json", BODY.decode()]

    created = subprocess.run([*command, f"{url}/api/tasks"], capture_output=True, check=True, timeout=30, cwd=tmp_path)

    assert json.loads(created.stdout)["title"] == "a"


PATHS = [b"/", b"/?x=1", b"/api/tasks", b"/api/tasks?limit=0", b"/api/tasks/%31a", b"/api%2Ftasks", b"//api/tasks"]


@pytest.mark.parametrize("path", [*PATHS, b"/api/tasks/a#b", b"/api/tasks/".ljust(8192, b"a"), b"/".ljust(8193, b"a")])
def test_absolute_form_is_the_same_as_a_path(url: str, path: bytes) -> None:
    (expected,) = exchange(url, b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    for prefix in (b"http://example.com:8080", b"HTTP://[::1]:80", b"https://a%41."):
        for target in {path, path.removeprefix(b"/") if path[:2] in (b"/", b"/?") else path}:
            (response,) = exchange(url, b"GET " + prefix + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")

            assert (response.status, response.body) == (expected.status, expected.body)
            assert response.headers.get("location") == expected.headers.get("location")


@pytest.mark.parametrize(
    ("target", "fields", "origin"),
    [
        (b"/api/tasks?limit=1", b"HTTP/1.1\r\nHost: a:8 \t", "http://a:8"),
        (b"http://b/api/tasks?limit=1", b"HTTP/1.1\r\nHost: a", "http://b"),
        (b"http://b:80/api/tasks?limit=1", b"HTTP/1.0\r\nA: b", "http://b:80"),
        (b"HtTpS://[::1]:8/api/tasks?limit=1", b"HTTP/1.1\r\nHost: a", "https://[::1]:8"),
    ],
)
def test_absolute_form_wins_over_host(url: str, target: bytes, fields: bytes, origin: str) -> None:
    exchange(url, (POST + b"Content-Length: 14\r\n\r\n" + BODY) * 2)

    (response,) = exchange(url, b"GET " + target + b" " + fields + b"\r\n\r\n")

    assert response.headers["link"].startswith(f"<{origin}/api/tasks?limit=1&after=")
    assert ("strict-transport-security" in response.headers) == origin.startswith("https")


def test_spaces_and_tabs_around_field_values_are_ignored(url: str) -> None:
    length = b"Content-Length: 14\r\n"
    first, replayed = exchange(
        url,
        POST + length + b"X-Request-ID:\t a\t \r\nIdempotency-Key: spaces\r\n\r\n" + BODY,
        POST + length + b"X-Request-ID:a\r\nIdempotency-Key: \tspaces \t\r\nExpect: 100-continue \r\n\r\n" + BODY,
    )

    assert first.headers["x-request-id"] == replayed.headers["x-request-id"] == "a"
    assert replayed.headers["idempotency-replayed"] == "true"
    assert replayed.body == first.body


@pytest.mark.parametrize("size", [8192, 8193])
def test_request_target_over_8_kib_gets_414(url: str, size: int) -> None:
    for start in (b"/api/tasks/", b"/api/tasks?limit=", b"/"):
        target = start.ljust(size, b"1")
        (response,) = exchange(url, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        assert response.status == (414 if size > 8192 else 400 if b"?" in target else 404)
        assert is_problem(response)


def test_oversized_head_after_a_body_is_refused(url: str) -> None:
    first = POST + b"Content-Length: 14\r\n\r\n" + BODY
    for head, status in (
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST, 414),
        (GET[:-2] + b"A: " + b"a" * 17000, 431),
    ):
        assert [response.status for response in exchange(url, first + head + b"\r\n\r\n")] == [201, status]


@pytest.mark.parametrize("size", [16384, 16385])
def test_headers_over_16_kib_get_431(url: str, size: int) -> None:
    """Only the names and values of the header fields count towards the limit."""
    host = len("Hostlocalhost")
    for fields in (
        b"A: " + b"a" * (size - host - 1) + b"\r\n",
        b"A: b\r\n" * 5000 + b"A: " + b"a" * (size - host - 10001) + b"\r\n",
        b"Connection: Upgrade\r\nUpgrade: " + b"a" * (size - host - 24) + b"\r\n",
    ):
        (response,) = exchange(url, b"GET /api/tasks HTTP/1.1\r\n" + HOST + fields + b"\r\n")
        assert response.status == (431 if size > 16384 else 200)


@upgrades
@pytest.mark.parametrize(
    ("head", "flood", "status"),
    [
        (b"GET /", b"a" * 65536, 414),
        (b"GET /api/tasks?", b"a=" * 32768, 414),
        (b"GET / HTTP/1.1\r\nA: ", b"a" * 65536, 431),
        (b"GET / HTTP/1.1\r\n", b"a" * 65536, 431),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 10000, 431),
        (POST + CHUNKED + b"\r\n1;", b"a" * 65536, 431),
        (POST + CHUNKED + b"\r\n0\r\n", b"A: b\r\n" * 10000, 431),
        (POST + CHUNKED + b"\r\n", b"1\r\n \r\n" * 10000, 413),
        (POST + CHUNKED + b"\r\n1000000\r\n", b" " * 65536, 413),
        (POST + b"Content-Length: 65537\r\n\r\n", b"", 413),
        (POST + b"Content-Length: 1000000000\r\n\r\n", b"", 413),
    ],
    ids=["path", "query", "value", "name", "fields", "extension", "trailers", "chunks", "chunk", "length", "lengths"],
)
def test_oversized_request_is_refused_before_it_ends(
    url: str, head: bytes, flood: bytes, status: int, upgrade: bytes
) -> None:
    with connect(url) as connection:
        connection.sendall(head.replace(HOST, HOST + upgrade))
        for _ in range(16):
            connection.sendall(flood)
        response = read_response(connection)

    assert response.status == status
    assert is_problem(response)
    assert exchange(url, GET)[0].status == 200


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n", b"Expect: 100-continue\r\n"], ids=repr)
def test_client_that_sends_a_whole_oversized_body_can_read_the_413(url: str, version: bytes, fields: bytes) -> None:
    head = b"POST /api/tasks HTTP/" + version + b"\r\n" + HOST + JSON + fields + b"Content-Length: 8000000\r\n\r\n"
    for _ in range(10):
        with connect(url) as connection:
            connection.sendall(head)
            connection.sendall(b" " * 8_000_000)
            assert read_response(connection).status == 413


def test_chunked_body_is_refused_once_it_exceeds_the_limit(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(POST + CHUNKED + b"\r\n10001\r\n" + b" " * 0x10000)
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(30)
        connection.sendall(b" ")
        assert read_response(connection).status == 413
        connection.sendall(b"\r\n0\r\n\r\n" + GET)
        assert read_response(connection).status == 200


def test_malformed_rest_of_a_refused_body_closes_the_connection(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(b"POST /api/tasks HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n")
        assert read_response(connection).status == 415
        connection.sendall(b"nonsense\r\n")
        assert read_to_end(connection) == b""


@upgrades
def test_expect_100_continue(url: str, upgrade: bytes) -> None:
    expect = upgrade + b"Expect: 100-continue\r\nContent-Length: 14\r\n\r\n"
    with connect(url) as connection:
        connection.sendall(POST + expect)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert read_response(connection).status == 201
    with connect(url) as connection:
        connection.sendall(b"POST /api/tasks HTTP/1.1\r\n" + HOST + expect)
        # The connection must be closed: a refused client sends no body, so its next request would be read as the body.
        (response,) = parse_responses(read_to_end(connection))
        assert response.status == 415
        assert response.headers["connection"] == "close"


MESSAGES = [
    GET,
    POST + b"Content-Length: 14\r\n\r\n" + BODY,
    POST + CHUNKED + b"\r\n" + CHUNKS,
    b"PUT /api/tasks/1?a=%FF HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 2\r\n\r\n{}",
    b"DELETE /api/tasks/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
EDITS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 6), st.binary(max_size=4)), max_size=4)


@given(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=3), EDITS)
@settings(max_examples=400, derandomize=True, deadline=None, database=None)
def test_mutated_requests_get_documented_responses(
    url: str, messages: list[bytes], edits: list[tuple[int, int, bytes]]
) -> None:
    mutated = b"".join(messages)
    for position, length, replacement in edits:
        mutated = mutated[:position] + replacement + mutated[position + length :]

    responses = exchange(url, mutated)

    assert {response.status for response in responses} <= {200, 201, 204, 307, 400, 404, 405, 413, 414, 415, 431}
    assert all(is_problem(response) for response in responses if response.status >= 400)


def resident_memory(service: Service) -> int:
    """Return the resident memory of a service in bytes."""
    return int(Path(f"/proc/{service.process.pid}/statm").read_text("utf-8").split()[1]) * resource.getpagesize()


def test_reset_connections_do_not_leak_memory(service: Service) -> None:
    def reset(_: int) -> None:
        with connect(service.url) as connection:
            assert call(connection, "GET", "/api/tasks").status == 200
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(reset, range(200)))
        before = resident_memory(service)
        list(pool.map(reset, range(2000)))

    assert resident_memory(service) - before < 4e6
