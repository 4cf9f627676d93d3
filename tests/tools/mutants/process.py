"""Run programs in copies of the project, and end these programs together with this process."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_running: set[subprocess.Popen[str]] = set()


class Finished(NamedTuple):
    """The exit status and the output of a program."""

    status: int
    output: str


def run(arguments: list[str], folder: Path, timeout: float, **variables: str) -> Finished:
    """Run a Python module in a copy of the project, so that it imports the code of the copy.

    Raises:
        subprocess.TimeoutExpired: The module takes longer than the timeout.
    """
    # If CI were set, a test whose program is not installed would fail, and would seem to find every mutant.
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONDONTWRITEBYTECODE")}
    # Do not use a pipe, which would stay open until every process that a test has left behind ends.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=inherited | {"PYTHONPATH": str(folder)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        _running.add(process)
        try:
            process.wait(timeout)
        finally:
            process.kill()
            process.wait()
            _running.discard(process)
        output.seek(0)
        return Finished(process.returncode, output.read())


def interrupt_all() -> None:
    """Send SIGTERM to every running program, so that it ends its child processes."""
    for process in [*_running]:
        process.terminate()
