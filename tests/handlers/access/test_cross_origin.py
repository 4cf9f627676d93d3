"""CORS in a real browser: only web pages of allowed origins can call the service."""

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
from handlers.contract import document
from handlers.settings import ServerSettings
from tests.support.calls import bearer, make_key, methods, wait_for
from tests.support.inside import run
from tests.support.service import Service, Start, running
from tests.support.stores import SqliteStore

pytestmark = pytest.mark.slow

# JavaScript code that sends requests of several kinds, and returns the parts of each response that the page can read.
CALLS = """async (url) => {
  const results = [];
  const call = async (method, path, options = {}) => {
    try {
      const response = await fetch(url + path, {method, ...options});
      const names = ["ETag", "Location", "X-Request-ID", "Link"].filter((name) => response.headers.get(name));
      results.push([method, response.status, names, await response.json()]);
      return response;
    } catch (error) {
      results.push([method, String(error)]);
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
  return results;
}"""
REFUSED = "TypeError: Failed to fetch"


@pytest.fixture(scope="module")
def limited_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """Yield a service with two tasks, and its API key; one client address has exhausted its rate limit."""
    folder = tmp_path_factory.mktemp("limited_service")
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
    """Yield a web page whose origin differs from the origin of the service."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("<!doctype html><title>Another</title>", "utf-8")
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
    site = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
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
    request_headers = {"Origin": origin, "Access-Control-Request-Method": method}
    return service.client.options(
        "/api/tasks", headers=request_headers | ({"Access-Control-Request-Headers": headers} if headers else {})
    )


@pytest.mark.parametrize("setting", ["{0}", "https://app.example.com, {0}", "*"])
def test_page_of_an_allowed_origin_can_call_the_service(start: Start, page: Page, setting: str) -> None:
    service = start("--allowed-origins", setting.format(origin(page)))

    results = page.evaluate(CALLS, service.url)

    assert [call[:2] for call in results] == [["POST", 201], ["GET", 200], ["PUT", 200], ["GET", 404], ["DELETE", 200]]
    assert results[0][2] == ["ETag", "Location", "X-Request-ID"]
    assert results[3][3]["detail"] == "Task not found"


@pytest.mark.parametrize("setting", ["", "https://app.example.com"])
def test_page_of_another_origin_cannot_call_the_service(start: Start, page: Page, setting: str) -> None:
    service = start(*(["--allowed-origins", setting] if setting else []))
    service.client.post("/api/tasks", json={"title": "Mine"})

    results = page.evaluate(CALLS, service.url)

    assert {call[1] for call in results} == {REFUSED}
    assert [task["title"] for task in service.client.get("/api/tasks").json()] == ["Mine"]


def test_page_cannot_embed_a_response(start: Start, page: Page) -> None:
    """The page cannot even embed a response as an image, which needs no CORS permission."""
    service = start()
    failures: list[str] = []
    page.on("requestfailed", lambda request: failures.append(request.failure or ""))

    page.evaluate(
        "url => new Promise(done => { const image = new Image(); image.onerror = done; image.src = url; })",
        f"{service.url}/docs/assets/favicon-32x32.png",
    )

    assert failures == ["net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin"]


@pytest.mark.parametrize(
    "names",
    [
        "traceparent,tracestate,baggage,sentry-trace",
        "b3,x-b3-traceid,x-datadog-trace-id,uber-trace-id,x-amzn-trace-id,newrelic,request-id",
        "cache-control,pragma,x-requested-with",
    ],
)
def test_page_may_send_any_header(start: Start, page: Page, names: str) -> None:
    service = start("--allowed-origins", origin(page))
    headers = dict.fromkeys(names.split(","), "1")

    status = page.evaluate(
        "async ([url, headers]) => (await fetch(url, {headers})).status", [f"{service.url}/api/tasks", headers]
    )

    assert status == 200
    other = preflight(service, "https://evil.example.com", "GET", names)
    assert not [name for name in other.headers if name.startswith("access-control-")]


def test_preflight_allows_the_methods_of_the_contract(start: Start) -> None:
    service = start("--allowed-origins", "https://app.example.com")
    allowed = preflight(service, "https://app.example.com", "PUT", "if-match")
    other = preflight(service, "https://evil.example.com", "PUT", "if-match")
    options = service.client.options("/api/tasks", headers={"Origin": "https://app.example.com"})
    response = service.client.get("/api/tasks", headers={"Origin": "https://app.example.com"})

    assert (allowed.status_code, allowed.content, other.status_code, other.content) == (204, b"", 204, b"")
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
    every = {method for path in document.raw()["paths"] for method in methods(path)} - {"HEAD", "OPTIONS"}
    assert every >= {"DELETE", "GET", "POST", "PUT"}
    assert allowed.headers["access-control-allow-methods"] == ", ".join(sorted(every))
    assert allowed.headers["access-control-allow-headers"] == "if-match"
    assert "content-type" not in allowed.headers
    assert "access-control-allow-origin" not in other.headers
    assert options.headers["allow"] == ", ".join(methods("/api/tasks"))
    responses = [documented for id in document.operations() for documented in document.responses(id).values()]
    assert set(response.headers["access-control-expose-headers"].split(", ")) == {
        name for documented in responses for name in documented["headers"]
    }
    assert "Origin" in response.headers["vary"]
    assert "access-control-allow-credentials" not in response.headers


def test_preflight_needs_no_key(start: Start, tmp_path: Path) -> None:
    service = start("--allowed-origins", "https://app.example.com")
    assert run(tmp_path, "key", "new", "app").returncode == 0
    wait_for(service.client, 401)

    assert preflight(service, "https://app.example.com", "GET", "authorization").status_code == 204
    refused = service.client.get("/api/tasks", headers={"Origin": "https://app.example.com"})
    assert refused.headers["access-control-allow-origin"] == "https://app.example.com"


def test_no_cors_headers_by_default(start: Start) -> None:
    service = start()
    responses = [
        preflight(service, "https://app.example.com", "GET"),
        service.client.get("/api/tasks", headers={"Origin": "https://app.example.com"}),
    ]

    assert not [name for response in responses for name in response.headers if name.startswith("access-control")]


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
# The headers of a client that has exhausted its rate limit.
LIMITED = {"Authorization": "none", "X-Forwarded-For": "192.0.2.1"}
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}


def allowed_origins(setting: str, origins: list[str]) -> list[list[str]]:
    """Return, for each origin, the Access-Control-Allow-Origin values of a preflight and of a GET response."""

    async def ask() -> list[list[str]]:
        app: Any = create_app(ServerSettings(allowed_origins=setting))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            values_by_origin = []
            for origin in origins:
                preflight_response = await client.options("/api/tasks/1", headers={"Origin": origin, **PREFLIGHT})
                get_response = await client.get("/health/live", headers={"Origin": origin})
                assert (preflight_response.status_code, get_response.status_code) == (204, 200)
                # Without `Vary: Origin`, a cache could serve the response for one origin to a page of another origin.
                assert setting == "*" or "Origin" in preflight_response.headers["vary"]
                header_lists = [
                    response.headers.get_list("access-control-allow-origin")
                    for response in (preflight_response, get_response)
                ]
                values_by_origin.append([value for values in header_lists for value in values])
            return values_by_origin

    # Use another thread, because Playwright keeps an event loop running in this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, ask()).result()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_only_an_exact_match_allows_an_origin(count: int, separator: str) -> None:
    allowed, others = ALLOWED[:count], [*ALLOWED[count:], *NEAR_MISSES]

    results = allowed_origins(separator.join(allowed), [*allowed, *others])

    assert results[:count] == [[origin] * 2 for origin in allowed]
    assert [origin for origin, values in zip(others, results[count:], strict=True) if values] == []


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
def test_page_can_read_every_response(
    limited_service: tuple[Service, str], call: str, headers: dict[str, str], status: int, fields: set[str]
) -> None:
    """Each response has its usual header fields and the CORS header fields, and each field occurs once."""
    service, key = limited_service

    response = service.client.request(*call.split(), headers={"Origin": ALLOWED[0], **bearer(key), **headers})

    assert response.status_code == status
    assert response.headers.get_list("access-control-allow-origin") == [ALLOWED[0]]
    assert response.headers["vary"] == ("Accept-Encoding, Origin" if "Link" in fields else "Origin")
    fields = fields | {"RateLimit", "RateLimit-Policy", "Cache-Control", "X-Request-ID"}
    assert {name: len(response.headers.get_list(name)) for name in fields} == dict.fromkeys(fields, 1)
    exposed = set(response.headers["access-control-expose-headers"].split(", "))
    # Two fields need no exposure: a page may always read Cache-Control, and no operation of the contract sends Allow.
    assert fields - {"Cache-Control", "Allow"} <= exposed


# The origins of web views and browser extensions.
APP_ORIGINS = [
    *("capacitor://localhost", "ionic://localhost", "tauri://localhost", "http://tauri.localhost", "app://-"),
    *("chrome-extension://abcdefghijklmnopabcdefghijklmnop", "moz-extension://0f3a1b2c-1111-2222-3333-444455556666"),
    *("safari-web-extension://0F3A1B2C-1111-2222-3333-444455556666", "http://[::1]:3000", "https://example.com."),
]


def test_origins_of_apps_are_allowed() -> None:
    assert allowed_origins(" ".join(APP_ORIGINS), APP_ORIGINS) == [[origin] * 2 for origin in APP_ORIGINS]
