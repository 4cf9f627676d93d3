"""Contract tests of a deployment, as others run them: what they report, and what they leave behind."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
import yaml

from tests.conftest import FROM_FOLDER, ROOT, Service, Start

BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs/contract-testing.md").read_text()
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/contract.yml").read_text())["jobs"]["contract"]["steps"]
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


def bash(script: str, folder: Path, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script as GitHub does, with the Schemathesis of this Python."""
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | (variables or {})
    return finish(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=folder, env=environment)


def test_commands_of_the_page_need_no_checkout(service: Service, tmp_path: Path) -> None:
    commands = re.findall(r"```sh\n(curl .*?)```", PAGE, re.DOTALL)
    assert len(commands) == 1
    script = commands[0].replace("https://tasks.example.com", service.url)
    script = script.replace("uvx --from 'schemathesis>=4.32,<5' ", "").rstrip()

    run = bash(f"{script} --max-examples 5", tmp_path)

    assert run.returncode == 0, run.stdout
    (junit,) = tmp_path.glob("schemathesis-report/junit*.xml")
    (har,) = tmp_path.glob("schemathesis-report/har*.json")
    assert failures(junit) == []
    assert calls(har)
    assert service.client.get("/api/tasks").json() == []


def test_page_names_every_check() -> None:
    code = (ROOT / "tests/contract/checks.py").read_text()

    assert re.findall(r"(?m)^\| `(\w+)`", PAGE) == re.findall(r"@schemathesis.check\n(?:def|class) (\w+)", code)


def script_of(name: str) -> str:
    """Return what a step of the workflow runs."""
    (script,) = (step["run"] for step in WORKFLOW if step.get("name") == name)
    return str(script)


def test_workflow_puts_nothing_of_its_caller_into_a_script() -> None:
    assert [step for step in WORKFLOW if "${{" in step.get("run", "")] == []


def test_workflow_tests_a_deployment(service: Service, tmp_path: Path) -> None:
    variables = {"URL": f"{service.url}/", "EXAMPLES": "5", "SEED": "1", "KEY": KEY}

    run = bash(script_of("Fetch the checks") + script_of("Test it"), tmp_path, variables)

    assert run.returncode == 0, run.stdout
    assert "Seed: 1" in run.stdout
    (har,) = tmp_path.glob("schemathesis-report/har*.json")
    sent = [field["name"] for call in calls(har) for field in call["request"]["headers"]]
    assert "Authorization" in sent
    assert service.client.get("/api/tasks").json() == []


def test_workflow_fails_at_a_finding(broken: Service, tmp_path: Path) -> None:
    variables = {"URL": broken.url, "EXAMPLES": "5", "SEED": "", "KEY": ""}

    run = bash(script_of("Fetch the checks") + script_of("Test it"), tmp_path, variables)

    assert run.returncode != 0
    (junit,) = tmp_path.glob("schemathesis-report/junit*.xml")
    assert failures(junit)
    assert broken.client.get("/api/tasks").json() == []


@pytest.mark.parametrize(("url", "image", "status"), [("a", "", 0), ("", "b", 0), ("a", "b", 1), ("", "", 1)], ids=str)
def test_workflow_wants_one_thing_to_test(url: str, image: str, status: int, tmp_path: Path) -> None:
    variables = {"GIVEN_URL": url, "IMAGE": image}

    run = bash(script_of("See to it that one thing is to be tested"), tmp_path, variables)

    assert run.returncode == status
    assert ("Name a url or an image" in run.stdout) is bool(status)
