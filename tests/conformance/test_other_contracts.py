"""Contract tests of a service with several resources change and delete only what they created."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import pytest

from tests.support.board import KEY, Board, serving
from tests.support.reports import CONTRACT_TESTS, failures, run_command

pytestmark = pytest.mark.slow
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


def command(folder: Path, url: str, *options: str) -> list[str]:
    """Write the configuration with an API key to a folder, and return a command that tests a service with it."""
    (folder / "checks.py").write_text((CONTRACT_TESTS / "checks.py").read_text("utf-8"), "utf-8")
    configuration = (CONTRACT_TESTS / "schemathesis.toml").read_text("utf-8")
    (folder / "schemathesis.toml").write_text(f'{configuration}\n[auth.openapi.Key]\napi_key = "{KEY}"\n', "utf-8")
    report = ("--report", "junit", "--report-junit-path", str(folder / "junit.xml"))
    return [str(SCHEMATHESIS), "run", url, "--seed", "1", *report, *options]


def test_run_changes_only_what_it_created(tmp_path: Path) -> None:
    board = Board()
    before = board.state()

    with serving(board) as url:
        run = run_command(command(tmp_path, url, "--max-examples", "5"), cwd=tmp_path)

    assert run.returncode == 0, run.stdout
    assert board.state() == before
    # These operations could only change what the run did not create, so they are not tested.
    untested = {"deleteAllTasks", "putSettings"}
    paths = board.contract["paths"].values()
    operations = {
        operation["operationId"] for path in paths for name, operation in path.items() if name != "parameters"
    }
    assert board.succeeded == operations - untested
    assert f"Selected: {len(operations) - 2}/{len(operations)}" in run.stdout


def test_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    board = Board()
    before = board.state()

    with (
        serving(board) as url,
        subprocess.Popen(
            command(tmp_path, url, "--phases", "fuzzing", "--max-examples", "1000"),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ) as run,
    ):
        assert run.stdout
        # Interrupt Schemathesis during a phase: between two phases, it may ignore an interrupt.
        while "addProject" not in board.succeeded:
            assert run.poll() is None
            sleep(0.01)
        os.kill(run.pid, signal.SIGINT)
        run.stdout.read()

    assert run.returncode != 0
    assert board.state() == before


def test_findings_say_what_differed(tmp_path: Path) -> None:
    with serving(Board(is_broken=True)) as url:
        run = run_command(command(tmp_path, url, "--phases", "coverage"), cwd=tmp_path)

    assert run.returncode == 1, run.stdout
    reported = "".join(failures(tmp_path / "junit.xml")) + run.stdout
    for message in (
        r"PUT \S+/tasks/\d+ returned 200: `title` is '.*', not '.*' as sent",
        r"The list contains '[0-9a-f-]{36}' 0 times, not 1 times",
        r"GET \S+/tasks\?\S+ returned 200, but repeats \[\d+\] of earlier pages",
        r"GET \S+ returned 200, not 404 or 410, although DELETE \S+ returned 204 just before",
        r"DELETE \S+ returned 500, so it remains",
    ):
        assert re.search(message, reported), message
