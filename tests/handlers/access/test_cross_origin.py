"""Pages of other origins, in a real browser: only those that the settings let in can call the service."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page

from handlers.application import create_app
from handlers.contract import document as contract
from handlers.settings import ServerSettings
from tests.support.calls import bearer, make_key, methods, wait_for
from tests.support.inside import run
from tests.support.service import Service, Start, running
from tests.support.stores import SqliteStore

pytestmark = pytest.mark.slow

# Makes calls of several kinds, and tells of each answer what a page may read.
CALLS = """async (url) => {
  const told = [];
  const call = async (method, path, options = {}) => {
    try {
      const answer = await fetch(url + path, {method, ...options});
      const names = ["ETag", "Location", "X-Request-ID", "Link"].filter((name) => answer.headers.get(name));
      told.push([method, answer.status, names, await answer.json()]);
      return answer;
    } catch (error) {
      told.push([method, String(error)]);
    }
  };
  const json = {"Content-Type": "application/json", "Idempotency-Key": "page"};
  const created = await call("POST", "/api/tasks", {headers: json, body: JSON.stringify({title: "From a page"})});
  const tag = created?.headers.get("ETag") ?? '"1-0"';
  await call("GET", "/api/tasks", {headers: {"X-Request-ID": "page"}});
  const change = {"Content-Type": "application/json", "If-Match": tag};
  await call("PUT", "/api/tasks/1", {headers: change, body: JSON.stringify({title: "Changed"})});
  await call("GET", "/api/tasks/0", {headers: {"Authorization": "Bearer key"}});
  await call("DELETE", "/api/tasks/1", {headers: {"If-Match": "*"}});
  return told;
}"""
REFUSED = "TypeError: Failed to fetch"


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A service with a key, which it returns too, with limits that are used up for one address, and with two tasks."""
    folder = tmp_path_factory.mktemp("limited")
    store = SqliteStore(folder / "tasks.db")
    key = make_key(store, folder)
    flags = ("--rate-limit", "99/day", "--trusted-proxies", "127.0.0.1", "--allowed-origins", ",".join(ALLOWED))
    with running("sqlite", folder, *flags, variables={"DATABASE_URL": store.url}) as service:
        for _ in range(2):
            assert service.client.post("/api/tasks", json={"title": "a"}, headers=bearer(key)).status_code == 201
        while service.client.get("/api/tasks", headers=LIMITED).status_code != 429:
            pass
        yield service, key


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page of another origin than the service's."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("<!doctype html><title>Another</title>")
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(tmp_path / "site"),
    ]
    site = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert site.stdout
    address = re.search(r"http://[0-9.]+:\d+", site.stdout.readline())
    assert address
    page = browser.new_page()
    page.goto(address[0])
    yield page
    page.close()
    site.terminate()
    site.communicate()


def origin(page: Page) -> str:
    return page.url.rstrip("/")


def preflight(service: Service, origin: str, method: str, headers: str = "") -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    return service.client.options(
        "/api/tasks", headers=asked | ({"Access-Control-Request-Headers": headers} if headers else {})
    )


@pytest.mark.parametrize("setting", ["{0}", "https://app.example.com, {0}", "*"])
def test_page_of_an_allowed_origin_calls_the_service(start: Start, page: Page, setting: str) -> None:
    service = start("--allowed-origins", setting.format(origin(page)))

    told = page.evaluate(CALLS, service.url)

    assert [call[:2] for call in told] == [["POST", 201], ["GET", 200], ["PUT", 200], ["GET", 404], ["DELETE", 200]]
    assert told[0][2] == ["ETag", "Location", "X-Request-ID"]
    assert told[3][3]["detail"] == "Task not found"


@pytest.mark.parametrize("setting", ["", "https://app.example.com"])
def test_page_of_another_origin_does_nothing(start: Start, page: Page, setting: str) -> None:
    service = start(*(["--allowed-origins", setting] if setting else []))
    service.client.post("/api/tasks", json={"title": "Mine"})

    told = page.evaluate(CALLS, service.url)

    assert {call[1] for call in told} == {REFUSED}
    assert [task["title"] for task in service.client.get("/api/tasks").json()] == ["Mine"]


def test_page_cannot_embed_an_answer(start: Start, page: Page) -> None:
    """Not even as what needs no permission to be asked for."""
    service = start()
    complaints: list[str] = []
    page.on("requestfailed", lambda request: complaints.append(request.failure or ""))

    page.evaluate(
        "url => new Promise(done => { const image = new Image(); image.onerror = done; image.src = url; })",
        f"{service.url}/docs/assets/favicon-32x32.png",
    )

    assert complaints == ["net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin"]


def test_preflight_answers_what_the_contract_has(start: Start) -> None:
    service = start("--allowed-origins", "https://app.example.com")
    allowed = preflight(service, "https://app.example.com", "PUT", "if-match")
    other = preflight(service, "https://evil.example.com", "PUT", "if-match")
    options = service.client.options("/api/tasks", headers={"Origin": "https://app.example.com"})
    got = service.client.get("/api/tasks", headers={"Origin": "https://app.example.com"})

    assert (allowed.status_code, allowed.content, other.status_code, other.content) == (204, b"", 204, b"")
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
    every = {method for path in contract.document()["paths"] for method in methods(path)} - {"HEAD", "OPTIONS"}
    assert every >= {"DELETE", "GET", "POST", "PUT"}
    assert allowed.headers["access-control-allow-methods"] == ", ".join(sorted(every))
    assert {"If-Match", "If-None-Match", "Idempotency-Key", "Authorization"} < set(
        allowed.headers["access-control-allow-headers"].split(", ")
    )
    assert "content-type" not in allowed.headers
    assert "access-control-allow-origin" not in other.headers
    assert options.headers["allow"] == ", ".join(methods("/api/tasks"))
    responses = [response for id in contract.operations() for response in contract.responses(id).values()]
    assert set(got.headers["access-control-expose-headers"].split(", ")) == {
        name for response in responses for name in response["headers"]
    }
    assert "Origin" in got.headers["vary"]
    assert "access-control-allow-credentials" not in got.headers


def test_preflight_needs_no_key(start: Start, tmp_path: Path) -> None:
    service = start("--allowed-origins", "https://app.example.com")
    assert run(tmp_path, "key", "new", "app").returncode == 0
    wait_for(service.client, 401)

    assert preflight(service, "https://app.example.com", "GET", "authorization").status_code == 204
    refused = service.client.get("/api/tasks", headers={"Origin": "https://app.example.com"})
    assert refused.headers["access-control-allow-origin"] == "https://app.example.com"


def test_nothing_is_said_of_origins_unless_they_are_set(start: Start) -> None:
    service = start()
    answers = [
        preflight(service, "https://app.example.com", "GET"),
        service.client.get("/api/tasks", headers={"Origin": "https://app.example.com"}),
    ]

    assert not [name for answer in answers for name in answer.headers if name.startswith("access-control")]


ALLOWED = ["https://app.example.com", "http://localhost:3000", "https://other.example.org:8443"]
NEAR_MISSES = [
    *("https://appXexample.com", "https://app.exampleXcom", "https://otherXexample.org:8443"),
    *("https://app.example.com.evil.com", "https://app.example.community", "https://app.example.co"),
    *("https://evilapp.example.com", "https://evil.app.example.com", "https://example.com", "https://pp.example.com"),
    *("https://app.example.com@evil.com", "https://evil.com/https://app.example.com", "https://evil.com#app"),
    *("https://app.example.com:443", "https://app.example.com:8443", "https://other.example.org"),
    *("http://localhost", "http://localhost:300", "http://localhost:3001", "http://localhost:30000"),
    *("http://app.example.com", "https://localhost:3000", "http://other.example.org:8443", "ftp://app.example.com"),
    *("HTTPS://APP.EXAMPLE.COM", "https://App.example.com", "Https://app.example.com", "http://LOCALHOST:3000"),
    *("https://app.example.com/", "https://app.example.com/x", "https://app.example.com?", "https://app.example.com."),
    *("app.example.com", "//app.example.com", "localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000"),
    *("null", "Null", "*", "", "https://", "http", ".*", "https://*.example.com", "https://.*"),
    *(" ".join(ALLOWED), ", ".join(ALLOWED), ",".join(ALLOWED), "|".join(ALLOWED), "".join(ALLOWED)),
]
# A caller whose limit is used up.
LIMITED = {"Authorization": "none", "X-Forwarded-For": "192.0.2.1"}
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}


def allowed_origins(setting: str, origins: list[str]) -> list[list[str]]:
    """Return, for each origin, the origins that the preflight and the request itself are told, without a service."""

    async def ask() -> list[list[str]]:
        app: Any = create_app(ServerSettings(allowed_origins=setting))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            found = []
            for origin in origins:
                checked = await client.options("/api/tasks/1", headers={"Origin": origin, **PREFLIGHT})
                got = await client.get("/health/live", headers={"Origin": origin})
                assert (checked.status_code, got.status_code) == (204, 200)
                # Without it, a cache would give one origin the response to another.
                assert setting == "*" or "Origin" in checked.headers["vary"]
                told = [answer.headers.get_list("access-control-allow-origin") for answer in (checked, got)]
                found.append([value for values in told for value in values])
            return found

    # Playwright keeps an event loop running in this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, ask()).result()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_origin_is_allowed_only_as_it_is_set(count: int, separator: str) -> None:
    set_, others = ALLOWED[:count], [*ALLOWED[count:], *NEAR_MISSES]

    told = allowed_origins(separator.join(set_), [*set_, *others])

    assert told[:count] == [[origin] * 2 for origin in set_]
    assert [origin for origin, values in zip(others, told[count:], strict=True) if values] == []


def test_every_origin_is_allowed_with_a_star() -> None:
    origins = [*ALLOWED, "https://appXexample.com", "null"]

    assert allowed_origins("*", origins) == [["*"] * 2] * len(origins)


@pytest.mark.parametrize(
    ("call", "headers", "status", "fields"),
    [
        ("GET /api/tasks?limit=1", {}, 200, {"ETag", "Link"}),
        ("HEAD /api/tasks?limit=1", {}, 200, {"ETag", "Link"}),
        ("GET /api/tasks?limit=1", {"If-None-Match": "*"}, 304, {"ETag", "Link"}),
        ("GET /api/tasks?limit=0", {}, 400, set()),
        ("GET /api/tasks/9999", {}, 404, set()),
        ("GET /nowhere", {}, 404, set()),
        ("TRACE /api/tasks", {}, 405, {"Allow"}),
        ("OPTIONS /api/tasks", {}, 204, {"Allow"}),
        ("DELETE /api/tasks/1", {"If-Match": '"0"'}, 412, set()),
        ("POST /api/tasks", {}, 415, set()),
        ("GET /api/tasks", {"Authorization": "none"}, 401, {"WWW-Authenticate"}),
        ("HEAD /nowhere", {"Authorization": "none"}, 401, {"WWW-Authenticate"}),
        ("GET /api/tasks", LIMITED, 429, {"Retry-After"}),
        ("HEAD /api/tasks", LIMITED, 429, {"Retry-After"}),
        ("OPTIONS /nowhere", LIMITED, 429, {"Retry-After"}),
    ],
)
def test_page_reads_every_response(
    limited: tuple[Service, str], call: str, headers: dict[str, str], status: int, fields: set[str]
) -> None:
    """Whatever the response, it has its own fields, and those that let a page read it, each once."""
    service, key = limited

    answer = service.client.request(*call.split(), headers={"Origin": ALLOWED[0], **bearer(key), **headers})

    assert answer.status_code == status
    assert answer.headers.get_list("access-control-allow-origin") == [ALLOWED[0]]
    assert answer.headers["vary"] == "Origin"
    fields = fields | {"RateLimit", "RateLimit-Policy", "Cache-Control", "X-Request-ID"}
    assert {name: len(answer.headers.get_list(name)) for name in fields} == dict.fromkeys(fields, 1)
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    # A page may read Cache-Control in any case, and the contract has no operation with Allow.
    assert fields - {"Cache-Control", "Allow"} <= exposed


@pytest.mark.parametrize("setting", ["app.example.com", "https://app.example.com/", "null", "ftp://a", "https://a, b"])
def test_what_is_no_origin_is_refused(tmp_path: Path, setting: str) -> None:
    ended = run(tmp_path, "serve", "--allowed-origins", setting)

    assert ended.returncode == 1
    assert ended.stderr == (
        "--allowed-origins or TASKS_API_ALLOWED_ORIGINS: give them as https://app.example.com,"
        " with commas between, or * for any.\n"
    )
