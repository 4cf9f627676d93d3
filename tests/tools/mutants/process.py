"""Runs programs in copies of the project, which end with this process."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_running: set[subprocess.Popen[str]] = set()


class Finished(NamedTuple):
    """The exit status of a program, and all that it wrote."""

    status: int
    output: str


def run(arguments: list[str], folder: Path, timeout: float, **variables: str) -> Finished:
    """Run a module of Python in a copy of the project, whose code comes before the installed one.

    Raises:
        subprocess.TimeoutExpired: It takes longer than the timeout.
    """
    # What a machine lacks is skipped, as everywhere but in CI, or each mutant would seem to be found.
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONDONTWRITEBYTECODE")}
    # Not to a pipe, which would stay open while anything runs that a test has left behind.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=inherited | {"PYTHONPATH": str(folder)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
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


def end_all() -> None:
    """Interrupt every program, so that it ends what it has started."""
    for process in [*_running]:
        process.terminate()
