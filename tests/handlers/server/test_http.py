"""What independent judges of HTTP say of the answers."""

import json
import subprocess
import sys
from pathlib import Path
from time import time

import httpx
import pytest
from httplint.message import HttpRequestLinter, HttpResponseLinter

from tests.support import wire
from tests.support.calls import FOREIGN_METHOD
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
    (FOREIGN_METHOD, "/api/tasks/1", None, {}),
    ("GET", "/nowhere", None, {}),
    ("GET", "/" + "a" * 9000, None, {}),
    ("GET", "/api/tasks", None, {"A": "a" * 20000}),
]


# What httplint remarks on every 400 and 414, which is that they are one.
STATUSES = {"STATUS_BAD_REQUEST", "STATUS_URI_TOO_LONG"}


def notes(request: bytes, answer: bytes) -> dict[str, str]:
    """Return the level of each note that httplint makes on an answer, by its name."""
    judged = HttpRequestLinter(start_time=time())
    head, _, _ = request.partition(b"\r\n\r\n")
    method, _, path = head.split(b"\r\n")[0].removesuffix(b" HTTP/1.1").partition(b" ")
    judged.process_request_topline(method, b"http://localhost" + path, b"1.1")
    judged.process_headers(fields(head))
    judged.finish_content(True)
    head, _, body = answer.partition(b"\r\n\r\n")
    version, status, phrase = head.split(b"\r\n")[0].split(b" ", 2)
    linter = HttpResponseLinter(start_time=time())
    linter.request = judged
    linter.process_response_topline(version.removeprefix(b"HTTP/"), status, phrase)
    linter.process_headers(fields(head))
    linter.feed_content(body)
    linter.finish_content(True)
    return {type(note).__name__: note.level.name for note in linter.notes}


def fields(head: bytes) -> list[tuple[bytes, bytes]]:
    lines = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
    return [(name, value) for name, _, value in lines]


def test_httplint_finds_no_fault(service: Service) -> None:
    for _ in range(2):
        service.client.post("/api/tasks", json=TASK)
    for method, path, body, headers in CALLS:
        request = wire.request(method, path, body, {**headers, "Connection": "close"})
        with wire.connect(service.url) as connection:
            connection.sendall(request)
            answer = wire.read_to_end(connection)

        said = notes(request, answer)

        assert {"DATE_CORRECT", "STORE_NO_STORE", "STORE_PRIVATE"} & said.keys(), f"{method} {path}: {answer!r}"
        faults = {name for name, level in said.items() if level in ("WARN", "BAD")} - STATUSES
        assert faults == set(), f"{method} {path}: {answer!r}"


def test_httplint_sees_a_fault() -> None:
    faults = notes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nETag: 1\r\nContent-Length: 5\r\n\r\n{}")

    assert {faults[name] for name in faults} >= {"BAD"}


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks?limit=1", "/api/tasks/1", "/api/tasks/9999", "/nowhere"])
def test_redbot_finds_no_fault(shared_client: httpx.Client, path: str) -> None:
    """It asks again, with conditions, for ranges and for other codings."""
    for _ in range(2):
        shared_client.post("/api/tasks", json=TASK)
    address = f"{str(shared_client.base_url).rstrip('/')}{path}"
    run = subprocess.run(
        [Path(sys.executable).with_name("redbot"), "--output-format", "har", address], capture_output=True, check=True
    )

    (entry,) = json.loads(run.stdout)["log"]["entries"]
    said = {note["note_id"]: note["level"] for note in entry["_red_messages"]}
    assert entry["response"]["status"] == shared_client.get(path).status_code
    assert {name: level for name, level in said.items() if level in ("WARN", "BAD")} == {}
    assert ("INM_304" in said) == (entry["response"]["status"] == 200)
