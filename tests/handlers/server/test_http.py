"""Responses of the service, checked by independent HTTP linters: httplint and REDbot."""

import json
import subprocess
import sys
from pathlib import Path
from time import time

import httpx
import pytest
from httplint.message import HttpRequestLinter, HttpResponseLinter

from tests.support import wire
from tests.support.calls import UNKNOWN_METHOD
from tests.support.service import Service

TASK = {"title": "Write the tutorial"}
KEY = {"Idempotency-Key": "key"}
CALLS = [
    ("GET", "/api/tasks", None, {}),
    ("GET", "/api/tasks?limit=1", None, {}),
    ("GET", "/api/tasks", None, {"If-None-Match": "*"}),
    ("GET", "/api/tasks?limit=0", None, {}),
    ("POST", "/api/tasks", TASK, KEY),
    ("POST", "/api/tasks", TASK, KEY),
    ("POST", "/api/tasks", {"title": "another"}, KEY),
    ("POST", "/api/tasks", {"title": ""}, {}),
    ("POST", "/api/tasks", {"title": "a" * 70000}, {}),
    ("POST", "/api/tasks", None, {}),
    ("GET", "/api/tasks/1", None, {}),
    ("GET", "/api/tasks/1", None, {"If-None-Match": "*"}),
    ("GET", "/api/tasks/9999", None, {}),
    ("PUT", "/api/tasks/1", TASK, {}),
    ("PUT", "/api/tasks/1", TASK, {"If-Match": '"0"'}),
    ("DELETE", "/api/tasks/2", None, {"If-Match": '"0"'}),
    ("DELETE", "/api/tasks/2", None, {}),
    ("OPTIONS", "/api/tasks", None, {}),
    (UNKNOWN_METHOD, "/api/tasks/1", None, {}),
    ("GET", "/nowhere", None, {}),
    ("GET", "/" + "a" * 9000, None, {}),
    ("GET", "/api/tasks", None, {"A": "a" * 20000}),
]


# httplint warns about every response with the status 400 or 414.
EXPECTED_NOTES = {"STATUS_BAD_REQUEST", "STATUS_URI_TOO_LONG"}


def notes(request: bytes, response: bytes) -> dict[str, str]:
    """Return the name and level of each note that httplint makes about a response."""
    request_linter = HttpRequestLinter(start_time=time())
    head, _, _ = request.partition(b"\r\n\r\n")
    method, _, path = head.split(b"\r\n")[0].removesuffix(b" HTTP/1.1").partition(b" ")
    request_linter.process_request_topline(method, b"http://localhost" + path, b"1.1")
    request_linter.process_headers(header_fields(head))
    request_linter.finish_content(True)
    head, _, body = response.partition(b"\r\n\r\n")
    version, status, phrase = head.split(b"\r\n")[0].split(b" ", 2)
    response_linter = HttpResponseLinter(start_time=time())
    response_linter.request = request_linter
    response_linter.process_response_topline(version.removeprefix(b"HTTP/"), status, phrase)
    response_linter.process_headers(header_fields(head))
    response_linter.feed_content(body)
    response_linter.finish_content(True)
    return {type(note).__name__: note.level.name for note in response_linter.notes}


def header_fields(head: bytes) -> list[tuple[bytes, bytes]]:
    lines = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
    return [(name, value) for name, _, value in lines]


def test_httplint_finds_no_fault(service: Service) -> None:
    for _ in range(2):
        service.client.post("/api/tasks", json=TASK)
    for method, path, body, headers in CALLS:
        request = wire.request(method, path, body, {**headers, "Connection": "close"})
        with wire.connect(service.url) as connection:
            connection.sendall(request)
            response = wire.read_to_end(connection)

        levels = notes(request, response)

        assert {"DATE_CORRECT", "STORE_NO_STORE", "STORE_PRIVATE"} & levels.keys(), f"{method} {path}: {response!r}"
        faults = {name for name, level in levels.items() if level in ("WARN", "BAD")} - EXPECTED_NOTES
        assert faults == set(), f"{method} {path}: {response!r}"


def test_httplint_reports_an_invalid_response() -> None:
    levels = notes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nETag: 1\r\nContent-Length: 5\r\n\r\n{}")

    assert {levels[name] for name in levels} >= {"BAD"}


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks?limit=1", "/api/tasks/1", "/api/tasks/9999", "/nowhere"])
def test_redbot_finds_no_fault(shared_client: httpx.Client, path: str) -> None:
    """REDbot repeats the request with preconditions, ranges and other content codings."""
    for _ in range(2):
        shared_client.post("/api/tasks", json=TASK)
    url = f"{str(shared_client.base_url).rstrip('/')}{path}"
    redbot = subprocess.run(
        [Path(sys.executable).with_name("redbot"), "--output-format", "har", url], capture_output=True, check=True
    )

    (entry,) = json.loads(redbot.stdout)["log"]["entries"]
    levels = {note["note_id"]: note["level"] for note in entry["_red_messages"]}
    assert entry["response"]["status"] == shared_client.get(path).status_code
    assert {name: level for name, level in levels.items() if level in ("WARN", "BAD")} == {}
    assert ("INM_304" in levels) == (entry["response"]["status"] == 200)
