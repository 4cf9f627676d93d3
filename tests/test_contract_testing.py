"""Contract tests of a deployment, as others run them: what they report, and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from tests.conftest import FROM_FOLDER, ROOT, Service, Start

BIN = Path(sys.executable).parent
KEY = "not-to-be-read-in-a-report"


@pytest.fixture(scope="module")
def backend() -> str:
    """What is tested here is the tests, which are the same for each."""
    return "sqlite"


@pytest.fixture
def broken(start: Start, checkout: Path) -> Service:
    """A service that breaks its contract: a PUT does not look at If-Match, and a POST takes any type of content."""
    for file, old, new in (
        ("tasks.py", "id, body, entity_tags.versions(if_match)", "id, body, None"),
        ("body.py", "return len(types) == 1 and _names_json(types[0]) and not codings", "return True"),
    ):
        code = checkout / "handlers" / file
        assert code.read_text().count(old) == 1
        code.write_text(code.read_text().replace(old, new))
    return start(folder=checkout, command=FROM_FOLDER, variables={"TASKS_API_VALIDATE_RESPONSES": "false"})


def make(folder: Path, url: str, *variables: str) -> list[str]:
    """Return the command `make contract` with its reports in a folder, and with what this Python has installed."""
    here = (f"BIN={BIN}", f"REPORTS={folder}", f"URL={url}")
    return ["make", "--directory", str(ROOT), "--old-file", ".venv/development", "contract", *here, *variables]


def finish(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return what it said."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)


def failures(junit: Path) -> list[str]:
    """Return what a JUnit report holds against the service."""
    suites = ElementTree.parse(junit).getroot()
    assert suites.findall(".//testcase")
    return [str(failure.text) for failure in suites.findall(".//failure")]


def calls(har: Path) -> list[dict[str, Any]]:
    """Return the calls of a HAR report."""
    entries: list[dict[str, Any]] = json.loads(har.read_text())["log"]["entries"]
    return entries


def test_make_tests_a_deployment_and_spares_its_tasks(client: httpx.Client, service: Service, tmp_path: Path) -> None:
    for title in ("a", "b", "c"):
        client.post("/api/tasks", json={"title": title})
    before = client.get("/api/tasks")

    run = finish(make(tmp_path, service.url, f"KEY={KEY}", "EXAMPLES=5"))

    assert run.returncode == 0, run.stdout
    assert f"JUnit: {tmp_path}/junit.xml" in run.stdout
    assert f"HAR: {tmp_path}/har.json" in run.stdout
    assert failures(tmp_path / "junit.xml") == []
    made = calls(tmp_path / "har.json")
    assert {call["request"]["method"] for call in made} >= {"GET", "POST", "PUT", "DELETE"}
    assert {
        header["value"] for call in made for header in call["request"]["headers"] if header["name"] == "Authorization"
    }
    assert KEY not in run.stdout + (tmp_path / "har.json").read_text() + (tmp_path / "junit.xml").read_text()
    after = client.get("/api/tasks")
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])


def test_make_fails_at_a_finding_and_leaves_no_tasks(broken: Service, tmp_path: Path) -> None:
    kept = broken.client.post("/api/tasks", json={"title": "Not of the run"}).json()

    run = finish(make(tmp_path, broken.url, "EXAMPLES=5"))

    assert run.returncode == 2, run.stdout
    found = failures(tmp_path / "junit.xml")
    assert any("tag_is_known_and_stale_tag_is_refused" in failure for failure in found), found
    assert calls(tmp_path / "har.json")
    assert broken.client.get("/api/tasks").json() == [kept]


def test_interrupted_run_leaves_no_tasks(service: Service, tmp_path: Path) -> None:
    with subprocess.Popen(
        make(tmp_path, service.url, "EXAMPLES=1000"), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout
        said = ""
        while "Coverage" not in said:
            said += run.stdout.readline()
        # Not between two phases, where Schemathesis may go on for a while.
        tasks = "/api/tasks?limit=1000"
        there = len(service.client.get(tasks).json())
        while len(service.client.get(tasks).json()) < there + 10:
            assert run.poll() is None
        os.killpg(run.pid, signal.SIGINT)
        said += run.stdout.read()

    assert run.returncode != 0
    assert "No issues found" not in said
    assert service.client.get("/api/tasks").json() == []
