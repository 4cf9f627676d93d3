"""Pages of other origins, in a real browser: only those that the settings let in can call the service."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from handlers import contract
from tests.support.calls import methods, wait_for
from tests.support.inside import run
from tests.support.service import Service, Start

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


@pytest.mark.parametrize("setting", ["app.example.com", "https://app.example.com/", "null", "ftp://a", "https://a, b"])
def test_what_is_no_origin_is_refused(tmp_path: Path, setting: str) -> None:
    ended = run(tmp_path, "serve", "--allowed-origins", setting)

    assert ended.returncode == 1
    assert ended.stderr == (
        "--allowed-origins or TASKS_API_ALLOWED_ORIGINS: give them as https://app.example.com,"
        " with commas between, or * for any.\n"
    )
