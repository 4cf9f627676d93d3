"""Rate limits: how clients are told apart, response headers, and a Redis server that several services share."""

import asyncio
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from limits import parse
from limits.errors import StorageError
from starlette.types import Message

from handlers.access.rate_limits import RateLimits
from handlers.access.request_counts import TIMEOUT, CircuitBreaker, Memory, Window
from handlers.contract.document import PREFIX
from handlers.contract.problems import Refusal
from models.database.sqlite import SqliteFile
from models.keys import KeyCache
from tests.support.calls import UNKNOWN_METHOD, assert_is_problem, bearer, make_key
from tests.support.pages import block
from tests.support.project import tool
from tests.support.service import Start, environment
from tests.support.stores import Store
from tests.support.wire import Response, exchange, request

POLICY = '"2-per-4-second";q=2;w=4, "5-per-1-hour";q=5;w=3600'
FIRST = '"2-per-4-second";r=1;t=4, "5-per-1-hour";r=4;t=3600'
TASK: dict[str, Any] = {"json": {"title": "a"}}
PATH = "/api/tasks"
# Each test that uses `new_client_headers` gets another client address.
client_numbers = count(1)


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return {f"{PREFIX}RATE_LIMIT": "5/hour;2 per 4 second;5/hour", f"{PREFIX}TRUSTED_PROXIES": "127.0.0.1"}


@pytest.fixture
def new_client_headers() -> dict[str, str]:
    """Return the header in which the trusted proxy sends the address of a new client."""
    return {"X-Forwarded-For": f"198.51.100.{next(client_numbers)}"}


def remaining(response: httpx.Response | Response) -> list[int]:
    """Return the number of remaining requests that a response reports for each limit."""
    return [int(number) for number in re.findall(r";r=(\d+)", response.headers["ratelimit"])]


@pytest.mark.parametrize(
    ("call", "status", "options"),
    [
        ("GET /api/tasks", 200, {}),
        ("HEAD /api/tasks", 200, {}),
        ("GET /api/tasks", 304, {"headers": {"If-None-Match": "*"}}),
        ("POST /api/tasks", 201, TASK),
        ("POST /api/tasks", 400, {"json": {}}),
        ("POST /api/tasks", 413, {"json": {"title": "a" * 70000}}),
        ("POST /api/tasks", 415, {"content": b"title"}),
        ("DELETE /api/tasks/99", 404, {}),
        ("PUT /api/tasks/99", 404, TASK),
        (f"{UNKNOWN_METHOD} /api/tasks", 405, {}),
        ("OPTIONS /api/tasks", 204, {}),
        ("GET /nowhere", 404, {}),
        ("GET /", 307, {}),
        ("GET /docs", 200, {}),
        ("GET /openapi.json", 200, {}),
        ("GET /docs/assets/swagger-ui.css", 200, {}),
    ],
)
def test_every_response_reports_the_remaining_requests(
    client: httpx.Client, new_client_headers: dict[str, str], call: str, status: int, options: dict[str, Any]
) -> None:
    response = client.request(*call.split(), **{**options, "headers": new_client_headers | options.get("headers", {})})

    assert response.status_code == status
    assert response.headers.get_list("ratelimit") == [FIRST]
    assert response.headers.get_list("ratelimit-policy") == [POLICY]


def test_500_reports_the_remaining_requests(start: Start, store: Store) -> None:
    client = start().client
    store.execute("DROP TABLE task")

    failed = client.get(PATH)

    assert_is_problem(500, failed)
    assert failed.headers["ratelimit"] == FIRST


def test_request_succeeds_after_retry_after(client: httpx.Client, new_client_headers: dict[str, str]) -> None:
    responses = [client.get(PATH, headers=new_client_headers) for _ in range(4)]
    refused = responses[-1]

    assert [response.status_code for response in responses] == [200, 200, 429, 429]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json() == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Too many requests; retry after the number of seconds in the header Retry-After",
    }
    assert 1 <= int(refused.headers["retry-after"]) <= 4
    assert refused.headers["cache-control"] == "no-store"
    assert remaining(refused) == [0, 3]
    assert refused.headers["ratelimit-policy"] == POLICY
    time.sleep(int(refused.headers["retry-after"]))
    again = client.get(PATH, headers=new_client_headers)
    assert again.status_code == 200
    # A request that one limit refuses does not count towards the other limit.
    assert remaining(again) == [1, 2]


def test_refused_request_is_not_carried_out(client: httpx.Client, new_client_headers: dict[str, str]) -> None:
    for status in (200, 200, 429):
        assert (
            client.request("GET" if status == 200 else "POST", PATH, headers=new_client_headers, **TASK).status_code
            == status
        )

    assert client.get(PATH, headers={"X-Forwarded-For": "203.0.113.1"}).json() == []


def test_429_matches_the_documentation(start: Start) -> None:
    flags = shlex.split(block("docs/operations.md", "sh", "## How do I limit requests?"))[2:]
    status, *fields = block("docs/operations.md", "http", "## How do I limit requests?").splitlines()

    # Send twice the limit and one more request, since the requests may fall into two windows of one second.
    responses = exchange(start(*flags).url, request("GET", PATH) * 1001)
    refused = next(response for response in responses if response.status == 429)

    assert status == "HTTP/1.1 429 Too Many Requests"
    for name, value in (field.split(": ") for field in fields):
        assert re.sub("r=4...;t=3...", "", refused.headers[name.lower()]) == re.sub("r=4...;t=3...", "", value)


def test_retry_after_covers_every_exhausted_limit(start: Start) -> None:
    client = start("--rate-limit", "3/hour; 2 per 2 seconds, 3/minute").client
    responses = [client.get(PATH) for _ in range(3)]

    assert [response.headers.get("retry-after") for response in responses] == [None, None, "2"]
    assert remaining(responses[-1]) == [0, 1, 1]
    time.sleep(2)
    assert remaining(client.get(PATH)) == [1, 0, 0]
    for _ in range(2):
        refused = client.get(PATH)
        assert (refused.status_code, refused.headers["retry-after"][:3]) == (429, "359")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.2", "192.0.2.3", False),
        ("192.0.2.4", "::ffff:192.0.2.4", True),
        ("::ffff:192.0.2.5", "::ffff:192.0.2.6", False),
        ("2001:db8::1", "2001:db8:0:0:ffff::1", True),
        ("2001:db8:1::1", "2001:db8:1:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("_hidden", "_hidden", True),
        ("unknown", "_secret", False),
    ],
)
def test_clients_are_identified_by_address(client: httpx.Client, first: str, second: str, same: bool) -> None:
    responses = [client.get(PATH, headers={"X-Forwarded-For": address}) for address in (first, second)]

    assert [remaining(response) for response in responses] == [[1, 4], [0, 3] if same else [1, 4]]


def test_only_a_trusted_proxy_sets_the_client_address(start: Start) -> None:
    service = start("--trusted-proxies", "10.0.0.0/8")

    responses = [service.client.get(PATH, headers={"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(3)]

    assert [response.status_code for response in responses] == [200, 200, 429]
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as elsewhere:
        assert elsewhere.get(service.url + PATH).headers["ratelimit"] == FIRST


def test_key_has_its_own_limits_from_any_address(start: Start, store: Store, tmp_path: Path) -> None:
    keys = [bearer(make_key(store, tmp_path, name)) for name in ("first", "second")]
    client = start().client
    headers_by_request = [
        {**keys[0], "X-Forwarded-For": "192.0.2.1"},
        {**keys[0], "X-Forwarded-For": "192.0.2.2"},
        keys[1],
        {},
    ]
    # The service reads its API keys at the first request.
    assert client.get(PATH).status_code == 401

    responses = [client.get(PATH, headers=headers) for headers in headers_by_request]

    assert [response.status_code for response in responses] == [200, 200, 200, 401]
    assert [remaining(response)[1] for response in responses] == [4, 3, 4, 3]
    # A client that guesses API keys soon gets 429 instead of 401.
    assert [client.get(PATH, headers=bearer(f"tasks_{number}")).status_code for number in range(4)][-1] == 429


def test_key_and_address_of_the_same_name_are_counted_separately(start: Start, store: Store, tmp_path: Path) -> None:
    """A proxy may send any string as the client address, even a string that looks like the counter of an API key."""
    names = ["127.0.0.1", "192.0.2.1", "192.0.2.1.", "localhost", "unknown", "_hidden", "key", "address", "1"]
    keys = {name: bearer(make_key(store, tmp_path, name)) for name in names}
    client = start("--rate-limit", "9/hour").client
    # The service reads its API keys at the first request.
    assert client.get(PATH, headers={"X-Forwarded-For": "198.51.100.1"}).status_code == 401

    for name, key in keys.items():
        elsewhere = {**key, "X-Forwarded-For": "198.51.100.2"}
        assert remaining(client.get(PATH, headers=elsewhere)) == [8]
        for address in (name, f"key {name}", f"key-{name}", f"key_{name}", f"address {name}"):
            response = client.get(PATH, headers={"X-Forwarded-For": address})
            assert (response.status_code, remaining(response)) == (401, [8]), address
        assert remaining(client.get(PATH, headers={**key, "X-Forwarded-For": name})) == [7]
    assert remaining(client.get(PATH, headers={"X-Forwarded-For": "198.51.100.2"})) == [8]


def test_long_windows_are_reported_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)

    limit = RateLimits(KeyCache(SqliteFile(Path("never-opened.db"))), "2/second;3/day;5/2 hour", "")

    def get() -> dict[str, str]:
        """Send a GET request, and return the rate limit headers of the response."""
        scope = {"type": "http", "path": PATH, "headers": [], "client": ("192.0.2.1", 1)}
        fields: dict[str, str] = {}

        async def send(message: Message) -> None:
            fields.update({name.decode(): value.decode() for name, value in message["headers"]})

        async def respond() -> None:
            await (await limit(scope, send))({"type": "http.response.start", "status": 200, "headers": []})

        try:
            asyncio.run(respond())
        except Refusal as refusal:
            assert refusal.status_code == 429
            return {name.lower(): value for name, value in (refusal.headers or {}).items()}
        return fields

    assert get() == {
        "ratelimit": '"2-per-1-second";r=1;t=1, "5-per-2-hour";r=4;t=7200, "3-per-1-day";r=2;t=86400',
        "ratelimit-policy": '"2-per-1-second";q=2;w=1, "5-per-2-hour";q=5;w=7200, "3-per-1-day";q=3;w=86400',
    }
    now += 3600.5
    assert get()["ratelimit"] == '"2-per-1-second";r=1;t=1, "5-per-2-hour";r=3;t=3600, "3-per-1-day";r=1;t=82800'
    now += 3600
    assert get()["ratelimit"] == '"2-per-1-second";r=1;t=1, "5-per-2-hour";r=4;t=7200, "3-per-1-day";r=0;t=79200'
    now += 10
    refused = get()
    assert refused["ratelimit"] == '"2-per-1-second";r=1;t=1, "5-per-2-hour";r=3;t=7190, "3-per-1-day";r=0;t=79190'
    assert refused["retry-after"] == "79190"
    now += 79189
    assert get()["retry-after"] == "1"
    now += 0.5
    assert get()["ratelimit"].endswith('"3-per-1-day";r=2;t=86400')


def test_health_probes_are_never_limited(client: httpx.Client, new_client_headers: dict[str, str]) -> None:
    for _ in range(3):
        response = client.get("/health/live", headers=new_client_headers)
        assert response.status_code != 429
        assert "ratelimit" not in response.headers
        assert "ratelimit-policy" not in response.headers
    assert client.get(PATH, headers=new_client_headers).headers["ratelimit"] == FIRST


@pytest.mark.slow
def test_libraries_are_loaded_only_with_limits(tmp_path: Path) -> None:
    program = "import sys, handlers.application as a; a.create_app(); print({'limits', 'redis'} & sys.modules.keys())"
    command = [sys.executable, "-c", program]

    for limits, loaded in (("", "set()"), ("1/hour", "{'limits', 'redis'}")):
        variables = environment({f"{PREFIX}RATE_LIMIT": limits})
        output = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, encoding="utf-8", check=True
        ).stdout
        assert sorted(output) == sorted(f"{loaded}\n")


def test_expired_windows_are_removed() -> None:
    async def peak_size() -> int:
        memory = Memory()
        peak = 0
        for number in range(30_000):
            await memory.incr(f"{number}", 0.01)
            peak = max(peak, len(memory.storage), len(memory.expirations), len(memory.locks))
            # Pause after every 100 clients, so that about a thousand clients have an open window at any time.
            if number % 100 == 99:
                await asyncio.sleep(0.001)
        return peak

    assert asyncio.run(peak_size()) < 5000


def test_counting_is_not_slower_with_many_clients() -> None:
    async def seconds() -> float:
        memory = Memory()
        for number in range(100_000):
            await memory.incr(f"{number}", 3600)
        before = time.process_time()
        for _ in range(100):
            await memory.incr("1", 3600)
            await asyncio.sleep(0)
        return time.process_time() - before

    # Even a single scan of all counters would take ten times as long.
    assert asyncio.run(seconds()) < 0.1


def test_circuit_breaker_lets_few_requests_wait_for_redis() -> None:
    redis_calls = 0
    recovered = asyncio.Event()
    windows = [Window(parse("1/day"), 1, 86400)]

    async def count_in_redis(_: str) -> list[Window]:
        nonlocal redis_calls
        redis_calls += 1
        await recovered.wait()
        return windows

    async def flood(circuit_breaker: CircuitBreaker) -> tuple[int, float, list[list[Window]]]:
        calls_before, began = redis_calls, time.monotonic()
        responses = await asyncio.gather(*(circuit_breaker("") for _ in range(320)))
        return redis_calls - calls_before, time.monotonic() - began, responses

    async def outage() -> None:
        circuit_breaker = CircuitBreaker(count_in_redis)
        # The first 32 requests wait for Redis; the requests after them do not.
        first, seconds, responses = await flood(circuit_breaker)
        assert (first, responses) == (32, [[]] * 320)
        # If the 320 requests waited for Redis in consecutive groups of 32, they would take ten timeouts.
        assert seconds < 10 * TIMEOUT
        assert (await flood(circuit_breaker))[0] == 0
        await asyncio.sleep(1.1)
        # After a second, one request tries Redis again, which is still down.
        assert (await flood(circuit_breaker))[0] == 1
        recovered.set()
        assert await circuit_breaker("") == []
        await asyncio.sleep(1.1)
        assert await circuit_breaker("") == windows
        assert (await flood(circuit_breaker))[2] == [windows] * 320

    asyncio.run(outage())


def test_response_to_an_earlier_request_does_not_close_the_circuit_breaker(caplog: pytest.LogCaptureFixture) -> None:
    windows = [Window(parse("1/day"), 1, 86400)]

    async def count_in_redis(client: str) -> list[Window]:
        await asyncio.sleep(0.1)
        if client == "failing":
            raise StorageError(ConnectionError("Gone"))
        return windows

    async def outage() -> None:
        circuit_breaker = CircuitBreaker(count_in_redis)
        assert list(await asyncio.gather(circuit_breaker("failing"), circuit_breaker("succeeding"))) == [[], windows]
        assert await circuit_breaker("failing") == []

    asyncio.run(outage())
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["Gone"]


class RedisServer:
    """A Redis server without persistence."""

    def __init__(self, command: Path) -> None:
        self._command = command
        with closing(socket.create_server(("127.0.0.1", 0))) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/1"
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([self._command, *options], stdout=subprocess.PIPE, encoding="utf-8")
        assert self._process.stdout
        assert any("Ready to accept connections" in line for line in self._process.stdout)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def close_connections(self) -> None:
        """Make the server close all client connections."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"CLIENT KILL TYPE normal SKIPME yes\r\n")
            assert connection.recv(64).startswith(b":")

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer(tool("redis-server", "/usr/bin/redis-server"))
    yield server
    server.kill()


def test_services_with_one_redis_share_their_limits(start: Start, redis: RedisServer) -> None:
    flags = ("--rate-limit", "20/hour", "--rate-limit-storage", redis.url)
    urls = [start(*flags, "--workers", "2").url, start(*flags).url]

    # Each request uses its own connection, so that any worker may receive the request.
    responses = [exchange(urls[number % 3 // 2], request("GET", PATH))[0] for number in range(21)]

    assert [remaining(response) for response in responses] == [[number] for number in (*range(19, -1, -1), 0)]
    assert [response.status for response in responses] == [200] * 20 + [429]


def test_window_in_redis_ends_when_reported(start: Start, redis: RedisServer) -> None:
    service = start("--rate-limit", "1/2 second;9/day", "--rate-limit-storage", redis.url)
    client = service.client
    began = time.monotonic()
    assert client.get(PATH).headers["ratelimit"] == '"1-per-2-second";r=0;t=2, "9-per-1-day";r=8;t=86400'

    # If Retry-After were rounded to the nearest second, its last value would be a second too short.
    for _ in range(4):
        time.sleep(0.15)
        refused = client.get(PATH)
        assert refused.status_code == 429
        assert time.monotonic() + int(refused.headers["retry-after"]) >= began + 2
    time.sleep(int(refused.headers["retry-after"]))
    assert client.get(PATH).status_code == 200
    assert service.stop() == 0
    assert service.log() == ""


def wait_until_limited(client: httpx.Client) -> httpx.Response:
    """Send requests until a response has the rate limit headers, and return that response."""
    deadline = time.monotonic() + 60
    while "ratelimit" not in (response := client.get(PATH)).headers:
        assert response.status_code == 200
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return response


def test_requests_are_not_limited_while_redis_is_down(start: Start, redis: RedisServer) -> None:
    service = start("--rate-limit", "2/hour", "--rate-limit-storage", redis.url)
    client = service.client
    assert [client.get(PATH).status_code for _ in range(3)] == [200, 200, 429]

    # Closed connections are not an outage: Redis may close idle connections at any time.
    redis.close_connections()
    assert client.get(PATH).status_code == 429
    assert service.log() == ""

    redis.signal(signal.SIGSTOP)
    for _ in range(2):
        response = client.get(PATH)
        assert (response.status_code, "ratelimit" in response.headers) == (200, False)
    redis.signal(signal.SIGCONT)
    assert wait_until_limited(client).status_code == 429
    assert service.log().count("\n") == 1

    redis.kill()
    assert [client.get(PATH).status_code for _ in range(3)] == [200] * 3
    time.sleep(1.1)
    assert client.get(PATH).status_code == 200
    redis.start()
    assert remaining(wait_until_limited(client)) == [1]
    assert [client.get(PATH).status_code for _ in range(2)] == [200, 429]
    hung, gone = service.log().splitlines()
    assert hung.endswith("Redis does not respond, so requests are not limited: timeout")
    assert "Redis does not respond, so requests are not limited: Error" in gone
