"""An interrupted test run leaves no process and no folder behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.calls import wait_until
from tests.support.project import ROOT, TIMEOUT, tool

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield the temporary folder for another test run; its path is short, because the run creates sockets in it."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        yield Path(folder)


def commands_of_run(folder: Path) -> list[str]:
    """Return the commands of all processes of a test run, except the process that cleans up after the run."""
    commands = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR", "").startswith(str(folder)) or process.cwd().startswith(str(folder)):
                commands.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return commands


@pytest.mark.parametrize(
    ("number", "to_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_interrupted_run_leaves_nothing_behind(
    number: signal.Signals, to_group: bool, folder: Path, tmp_path: Path
) -> None:
    tool("chromium", "google-chrome")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "tests/support/endless.py"]
    environment = os.environ | {"TMPDIR": str(folder), "STARTED": str(tmp_path)}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until(lambda: {"server", "browser"} <= {file.name for file in tmp_path.iterdir()} or bool(run.poll()))
        assert run.poll() is None, (tmp_path / "output").read_text("utf-8")
        commands = " ".join(commands_of_run(folder))
        assert "postgres" in commands
        assert "chrom" in commands
        assert "launcher.py" in commands

        (os.killpg if to_group else os.kill)(run.pid, number)
        run.wait(timeout=3 * TIMEOUT)
    finally:
        run.kill()

    assert commands_of_run(folder) == []
    assert list(folder.iterdir()) == []
