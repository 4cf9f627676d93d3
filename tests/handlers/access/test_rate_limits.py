"""Limits on requests: who has which, what an answer says of them, and a Redis server that counts for several."""

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
from starlette.types import Message, Receive, Scope, Send

from handlers.access.rate_limits import RateLimits
from handlers.access.request_counts import PATIENCE, Memory, WhileReachable, Window
from handlers.contract.problems import Refusal
from tests.support.calls import FOREIGN_METHOD, assert_is_problem, bearer, make_key
from tests.support.pages import block
from tests.support.project import tool
from tests.support.service import Start, environment
from tests.support.stores import Store
from tests.support.wire import Answer, exchange, request

POLICY = '"2-per-4-second";q=2;w=4, "5-per-1-hour";q=5;w=3600'
FIRST = '"2-per-4-second";r=1;t=4, "5-per-1-hour";r=4;t=3600'
TASK: dict[str, Any] = {"json": {"title": "a"}}
PATH = "/api/tasks"
# Every request of a test that names no other caller is from one of its own.
callers = count(1)


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return {"TASKS_API_RATE_LIMIT": "5/hour;2 per 4 second;5/hour", "TASKS_API_TRUSTED_PROXIES": "127.0.0.1"}


@pytest.fixture
def caller() -> dict[str, str]:
    """The header fields with which a proxy says that a request is from somebody new."""
    return {"X-Forwarded-For": f"198.51.100.{next(callers)}"}


def left(answer: httpx.Response | Answer) -> list[int]:
    """Return how many requests an answer says are left of each limit."""
    return [int(number) for number in re.findall(r";r=(\d+)", answer.headers["ratelimit"])]


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
        (f"{FOREIGN_METHOD} /api/tasks", 405, {}),
        ("OPTIONS /api/tasks", 204, {}),
        ("GET /nowhere", 404, {}),
        ("GET /", 307, {}),
        ("GET /docs", 200, {}),
        ("GET /openapi.json", 200, {}),
        ("GET /docs/assets/swagger-ui.css", 200, {}),
    ],
)
def test_every_answer_says_what_is_left(
    client: httpx.Client, caller: dict[str, str], call: str, status: int, options: dict[str, Any]
) -> None:
    answer = client.request(*call.split(), **{**options, "headers": caller | options.get("headers", {})})

    assert answer.status_code == status
    assert answer.headers.get_list("ratelimit") == [FIRST]
    assert answer.headers.get_list("ratelimit-policy") == [POLICY]


def test_failure_says_it_too(start: Start, store: Store) -> None:
    client = start().client
    store.execute("DROP TABLE task")

    failed = client.get(PATH)

    assert_is_problem(500, failed)
    assert failed.headers["ratelimit"] == FIRST


def test_refused_request_is_let_through_after_the_seconds_of_retry_after(
    client: httpx.Client, caller: dict[str, str]
) -> None:
    answers = [client.get(PATH, headers=caller) for _ in range(4)]
    refused = answers[-1]

    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json() == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "These are too many requests; send this one again after the seconds of the header Retry-After",
    }
    assert 1 <= int(refused.headers["retry-after"]) <= 4
    assert refused.headers["cache-control"] == "no-store"
    assert left(refused) == [0, 3]
    assert refused.headers["ratelimit-policy"] == POLICY
    time.sleep(int(refused.headers["retry-after"]))
    again = client.get(PATH, headers=caller)
    assert again.status_code == 200
    # What one limit has refused is not taken off the other.
    assert left(again) == [1, 2]


def test_refused_request_is_not_carried_out(client: httpx.Client, caller: dict[str, str]) -> None:
    for status in (200, 200, 429):
        assert client.request("GET" if status == 200 else "POST", PATH, headers=caller, **TASK).status_code == status

    assert client.get(PATH, headers={"X-Forwarded-For": "203.0.113.1"}).json() == []


def test_answer_is_as_the_readme_shows_it(start: Start) -> None:
    flags = shlex.split(block("docs/operations.md", "sh", "## How do I limit requests?"))[2:]
    status, *fields = block("docs/operations.md", "http", "## How do I limit requests?").splitlines()

    # They may come in two of the seconds for each of which there is a limit.
    given = exchange(start(*flags).url, request("GET", PATH) * 1001)
    refused = next(answer for answer in given if answer.status == 429)

    assert status == "HTTP/1.1 429 Too Many Requests"
    for name, value in (field.split(": ") for field in fields):
        assert re.sub("r=4...;t=3...", "", refused.headers[name]) == re.sub("r=4...;t=3...", "", value)


def test_caller_waits_for_the_last_of_the_limits_that_are_used_up(start: Start) -> None:
    client = start("--rate-limit", "3/hour; 2 per 2 seconds, 3/minute").client
    answers = [client.get(PATH) for _ in range(3)]

    assert [answer.headers.get("retry-after") for answer in answers] == [None, None, "2"]
    assert left(answers[-1]) == [0, 1, 1]
    time.sleep(2)
    assert left(client.get(PATH)) == [1, 0, 0]
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
def test_callers_are_told_apart_by_their_addresses(client: httpx.Client, first: str, second: str, same: bool) -> None:
    answers = [client.get(PATH, headers={"X-Forwarded-For": address}) for address in (first, second)]

    assert [left(answer) for answer in answers] == [[1, 4], [0, 3] if same else [1, 4]]


def test_nobody_but_a_trusted_proxy_says_who_asks(start: Start) -> None:
    service = start("--trusted-proxies", "10.0.0.0/8")

    answers = [service.client.get(PATH, headers={"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as elsewhere:
        assert elsewhere.get(service.url + PATH).headers["ratelimit"] == FIRST


def test_key_has_limits_of_its_own_wherever_it_is_used(start: Start, store: Store, tmp_path: Path) -> None:
    keys = [bearer(make_key(store, tmp_path, name)) for name in ("first", "second")]
    client = start().client
    callers = [{**keys[0], "X-Forwarded-For": "192.0.2.1"}, {**keys[0], "X-Forwarded-For": "192.0.2.2"}, keys[1], {}]
    # The keys are looked at with the first request.
    assert client.get(PATH).status_code == 401

    answers = [client.get(PATH, headers=caller) for caller in callers]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 401]
    assert [left(answer)[1] for answer in answers] == [4, 3, 4, 3]
    # Whoever tries out keys is soon told to wait, and no longer whether they are right.
    assert [client.get(PATH, headers=bearer(f"tasks_{number}")).status_code for number in range(4)][-1] == 429


def test_key_and_address_of_the_same_name_are_counted_apart(start: Start, store: Store, tmp_path: Path) -> None:
    """A proxy may name an address in any words, also in those with which a key would be counted."""
    names = ["127.0.0.1", "192.0.2.1", "192.0.2.1.", "localhost", "unknown", "_hidden", "key", "address", "1"]
    keys = {name: bearer(make_key(store, tmp_path, name)) for name in names}
    client = start("--rate-limit", "9/hour").client
    # The keys are looked at with the first request.
    assert client.get(PATH, headers={"X-Forwarded-For": "198.51.100.1"}).status_code == 401

    for name, key in keys.items():
        elsewhere = {**key, "X-Forwarded-For": "198.51.100.2"}
        assert left(client.get(PATH, headers=elsewhere)) == [8]
        for address in (name, f"key {name}", f"key-{name}", f"key_{name}", f"address {name}"):
            answer = client.get(PATH, headers={"X-Forwarded-For": address})
            assert (answer.status_code, left(answer)) == (401, [8]), address
        assert left(client.get(PATH, headers={**key, "X-Forwarded-For": name})) == [7]
    assert left(client.get(PATH, headers={"X-Forwarded-For": "198.51.100.2"})) == [8]


def test_long_limit_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    limited = RateLimits(app, "2/second;3/day;5/2 hour", "")

    def ask() -> dict[str, str]:
        """Return the fields about limits of a response, or of a refusal."""
        scope = {"type": "http", "path": PATH, "headers": [], "client": ("192.0.2.1", 1)}
        fields: dict[str, str] = {}

        async def send(message: Message) -> None:
            fields.update({name.decode(): value.decode() for name, value in message.get("headers", [])})

        async def receive() -> Message:
            raise AssertionError

        try:
            asyncio.run(limited(scope, receive, send))
        except Refusal as refusal:
            assert refusal.status_code == 429
            return {name.lower(): value for name, value in (refusal.headers or {}).items()}
        return fields

    assert ask() == {
        "ratelimit": '"2-per-1-second";r=1;t=1, "5-per-2-hour";r=4;t=7200, "3-per-1-day";r=2;t=86400',
        "ratelimit-policy": '"2-per-1-second";q=2;w=1, "5-per-2-hour";q=5;w=7200, "3-per-1-day";q=3;w=86400',
    }
    now += 3600.5
    assert ask()["ratelimit"] == '"2-per-1-second";r=1;t=1, "5-per-2-hour";r=3;t=3600, "3-per-1-day";r=1;t=82800'
    now += 3600
    assert ask()["ratelimit"] == '"2-per-1-second";r=1;t=1, "5-per-2-hour";r=4;t=7200, "3-per-1-day";r=0;t=79200'
    now += 10
    refused = ask()
    assert refused["ratelimit"] == '"2-per-1-second";r=1;t=1, "5-per-2-hour";r=3;t=7190, "3-per-1-day";r=0;t=79190'
    assert refused["retry-after"] == "79190"
    now += 79189
    assert ask()["retry-after"] == "1"
    now += 0.5
    assert ask()["ratelimit"].endswith('"3-per-1-day";r=2;t=86400')


def test_health_is_told_without_limits(client: httpx.Client, caller: dict[str, str]) -> None:
    for _ in range(3):
        answer = client.get("/health/live", headers=caller)
        assert answer.status_code != 429
        assert "ratelimit" not in answer.headers
        assert "ratelimit-policy" not in answer.headers
    assert client.get(PATH, headers=caller).headers["ratelimit"] == FIRST


@pytest.mark.slow
def test_without_limits_nothing_is_said_and_no_library_is_loaded(tmp_path: Path) -> None:
    program = "import sys, handlers.application as a; a.create_app(); print({'limits', 'redis'} & sys.modules.keys())"
    command = [sys.executable, "-c", program]

    for limits, loaded in (("", "set()"), ("1/hour", "{'limits', 'redis'}")):
        variables = environment({"TASKS_API_RATE_LIMIT": limits})
        said = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout
        assert sorted(said) == sorted(f"{loaded}\n")


def test_callers_whose_windows_have_ended_are_forgotten() -> None:
    async def most_known() -> int:
        memory = Memory()
        most = 0
        for number in range(30_000):
            await memory.incr(f"{number}", 0.01)
            most = max(most, len(memory.storage), len(memory.expirations), len(memory.locks))
            # A thousand in each window.
            if number % 100 == 99:
                await asyncio.sleep(0.001)
        return most

    assert asyncio.run(most_known()) < 5000


def test_count_takes_no_longer_where_there_are_many_callers() -> None:
    async def seconds() -> float:
        memory = Memory()
        for number in range(100_000):
            await memory.incr(f"{number}", 3600)
        before = time.process_time()
        for _ in range(100):
            await memory.incr("1", 3600)
            await asyncio.sleep(0)
        return time.process_time() - before

    # With one look through all of them, it would be ten times as much.
    assert asyncio.run(seconds()) < 0.1


def test_redis_that_does_not_answer_holds_no_more_requests_than_it_must() -> None:
    asked = 0
    back = asyncio.Event()
    windows = [Window(parse("1/day"), 1, 86400)]

    async def ask(_: str) -> list[Window]:
        nonlocal asked
        asked += 1
        await back.wait()
        return windows

    async def flood(counted: WhileReachable) -> tuple[int, float, list[list[Window]]]:
        before, began = asked, time.monotonic()
        answers = await asyncio.gather(*(counted("") for _ in range(320)))
        return asked - before, time.monotonic() - began, answers

    async def outage() -> None:
        counted = WhileReachable(ask)
        # A group of them waits, and those behind it then do not.
        first, seconds, answers = await flood(counted)
        assert (first, answers) == (32, [[]] * 320)
        # One after the other, they would take ten times the patience.
        assert seconds < 10 * PATIENCE
        assert (await flood(counted))[0] == 0
        await asyncio.sleep(1.1)
        # One of them finds out that it is still not back.
        assert (await flood(counted))[0] == 1
        back.set()
        assert await counted("") == []
        await asyncio.sleep(1.1)
        assert await counted("") == windows
        assert (await flood(counted))[2] == [windows] * 320

    asyncio.run(outage())


def test_answer_from_before_an_outage_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    windows = [Window(parse("1/day"), 1, 86400)]

    async def ask(who: str) -> list[Window]:
        await asyncio.sleep(0.1)
        if who == "unlucky":
            raise StorageError(ConnectionError("Gone"))
        return windows

    async def outage() -> None:
        counted = WhileReachable(ask)
        assert list(await asyncio.gather(counted("unlucky"), counted("lucky"))) == [[], windows]
        assert await counted("unlucky") == []

    asyncio.run(outage())
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["Gone"]


class RedisServer:
    """A Redis server, which keeps nothing on a disk."""

    def __init__(self, command: Path) -> None:
        self._command = command
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/1"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([self._command, *options], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert any("Ready to accept connections" in line for line in self._process.stdout)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def hang_up(self) -> None:
        """Have it close all connections."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"CLIENT KILL TYPE normal SKIPME yes\r\n")
            assert connection.recv(64).startswith(b":")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer(tool("redis-server", "/usr/bin/redis-server"))
    yield server
    server.kill()


def test_services_with_one_redis_have_one_limit(start: Start, redis: RedisServer) -> None:
    flags = ("--rate-limit", "20/hour", "--rate-limit-storage", redis.url)
    urls = [start(*flags, "--workers", "2").url, start(*flags).url]

    # Each on a connection of its own, which any of the workers may get.
    answers = [exchange(urls[number % 3 // 2], request("GET", PATH))[0] for number in range(21)]

    assert [left(answer) for answer in answers] == [[number] for number in (*range(19, -1, -1), 0)]
    assert [answer.status for answer in answers] == [200] * 20 + [429]


def test_redis_knows_when_a_window_ends(start: Start, redis: RedisServer) -> None:
    service = start("--rate-limit", "1/2 second;9/day", "--rate-limit-storage", redis.url)
    client = service.client
    began = time.monotonic()
    assert client.get(PATH).headers["ratelimit"] == '"1-per-2-second";r=0;t=2, "9-per-1-day";r=8;t=86400'

    # To the nearest second, the last time is one too early.
    for _ in range(4):
        time.sleep(0.15)
        refused = client.get(PATH)
        assert refused.status_code == 429
        assert time.monotonic() + int(refused.headers["retry-after"]) >= began + 2
    time.sleep(int(refused.headers["retry-after"]))
    assert client.get(PATH).status_code == 200
    assert service.stop() == 0
    assert service.log() == ""


def until_limited(client: httpx.Client) -> httpx.Response:
    """Make requests until one is counted, and return its answer."""
    deadline = time.monotonic() + 60
    while "ratelimit" not in (answer := client.get(PATH)).headers:
        assert answer.status_code == 200
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def test_requests_are_not_limited_while_redis_does_not_answer(start: Start, redis: RedisServer) -> None:
    service = start("--rate-limit", "2/hour", "--rate-limit-storage", redis.url)
    client = service.client
    assert [client.get(PATH).status_code for _ in range(3)] == [200, 200, 429]

    # A connection that nobody used for long may have been closed, which is no outage.
    redis.hang_up()
    assert client.get(PATH).status_code == 429
    assert service.log() == ""

    redis.signal(signal.SIGSTOP)
    for _ in range(2):
        answer = client.get(PATH)
        assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
    redis.signal(signal.SIGCONT)
    assert until_limited(client).status_code == 429
    assert service.log().count("\n") == 1

    redis.kill()
    assert [client.get(PATH).status_code for _ in range(3)] == [200] * 3
    time.sleep(1.1)
    assert client.get(PATH).status_code == 200
    redis.start()
    assert left(until_limited(client)) == [1]
    assert [client.get(PATH).status_code for _ in range(2)] == [200, 429]
    hung, gone = service.log().splitlines()
    assert hung.endswith("Redis does not answer, so that requests are not limited: it takes too long")
    assert "Redis does not answer, so that requests are not limited: Error" in gone
