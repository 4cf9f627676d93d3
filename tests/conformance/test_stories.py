"""Run the Arazzo stories against a service with Redocly Respect."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from handlers.contract import document
from tests.support.edits import replace_in
from tests.support.project import ROOT, RUN_FROM_SOURCE
from tests.support.service import Service, Start

STORIES = ROOT / "tests/contract/stories.arazzo.yaml"
# For each story, an edit of the service that plants a defect which no other story finds.
DEFECTS = {
    "write-find-complete-delete": (
        "delete_task",
        "await self.database.write(self.tasks.delete, id, versions)",
        "pass",
    ),
    "retry-with-idempotency-key": ("create_task", "request.caller, idempotency_key)", "request.caller, None)"),
    "edit-that-loses-the-race": ("replace_task", "id, body, versions", "id, body, None"),
}
HINT = "DEFECTS in tests/conformance/test_stories.py must name each story, with a defect that only this story finds"


def redocly(node: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command `redocly` without telemetry and update notices."""
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    return subprocess.run(
        [node / "redocly", *arguments],
        env=os.environ | quiet,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def run_stories(node: Path, service: Service, folder: Path, *options: str) -> tuple[int, dict[str, str]]:
    """Run the stories against a service; return the exit status and the result of each story."""
    report, stories = folder / "report.json", folder / STORIES.name
    (folder / "openapi.yaml").write_bytes(document.to_yaml(document.raw()))
    stories.write_text(STORIES.read_text("utf-8").replace("../../build/openapi.yaml", "openapi.yaml"), "utf-8")
    server = f"tasks={service.url}"
    run = redocly(node, "respect", stories, "--server", server, "--json-output", report, *options)
    assert report.exists(), run.stdout
    (result,) = json.loads(report.read_text("utf-8"))["files"].values()
    return run.returncode, {story["workflowId"]: story["status"] for story in result["executedWorkflows"]}


def authorizations(har: Path) -> set[str]:
    """Return the values of all Authorization headers in a HAR report."""
    entries: list[dict[str, Any]] = json.loads(har.read_text("utf-8"))["log"]["entries"]
    headers = [{field["name"].lower(): field["value"] for field in entry["request"]["headers"]} for entry in entries]
    return {header["authorization"] for header in headers}


def test_stories_succeed_and_leave_no_tasks(node: Path, service: Service, tmp_path: Path) -> None:
    kept = service.client.post("/api/tasks", json={"title": "Not created by a story"}).json()

    status, results = run_stories(node, service, tmp_path)

    assert results.keys() == DEFECTS.keys(), HINT
    assert (status, results) == (0, dict.fromkeys(DEFECTS, "success"))
    assert service.client.get("/api/tasks").json() == [kept]


def test_every_request_carries_the_key(node: Path, service: Service, tmp_path: Path) -> None:
    har = tmp_path / "calls.har"

    status, _ = run_stories(
        node, service, tmp_path, "--input", "key=a-key", "--no-secrets-masking", "--har-output", str(har)
    )

    assert status == 0
    assert authorizations(har) == {"Bearer a-key"}


def test_make_runs_the_stories(node: Path, service: Service) -> None:
    # These options prevent any installation.
    options = ("--old-file=build/node/installed", f"--old-file={sys.prefix}/development", f"VENV={sys.prefix}")
    command = ["make", "--directory", str(ROOT), *options, "stories", f"URL={service.url}"]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)

    assert run.returncode == 0, run.stdout
    assert f"Workflows: {len(DEFECTS)} passed, {len(DEFECTS)} total" in run.stdout


@pytest.mark.parametrize("story", DEFECTS)
def test_story_finds_its_defect(node: Path, start: Start, checkout: Path, tmp_path: Path, story: str) -> None:
    replace_in(checkout / "handlers/tasks.py", *DEFECTS[story])
    service = start(folder=checkout, command=RUN_FROM_SOURCE)

    status, results = run_stories(node, service, tmp_path)

    assert status == 1
    assert results == dict.fromkeys(DEFECTS, "success") | {story: "error"}
