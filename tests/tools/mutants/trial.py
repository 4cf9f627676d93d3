"""Runs tests on a mutant."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

from tests.tools.mutants.project import Copy
from tests.tools.mutants.reach import Reach, environment

# A mutant that is slower than this times out, which counts as found.
FACTOR = 3
MARGIN = 30  # seconds
FOUND = "found"
SURVIVED = "survived"
TIMED_OUT = "timed out"


class Outcome(NamedTuple):
    """Whether a mutant was found, and by what."""

    verdict: str
    evidence: str = ""


def attempt(copy: Copy, file: str, text: str, tests: list[str], reached: Mapping[str, Reach]) -> Outcome:
    """Run test files on a mutant until a test fails.

    Args:
        copy: The copy of the project to use.
        file: The file with the defect.
        text: Its text.
        tests: The test files, the most promising first.
        reached: What is known of them.
    """
    try:
        with copy.planted(file, text):
            return _run(copy, tests, reached)
    except subprocess.CalledProcessError:
        return Outcome(FOUND, "the models cannot be generated")


def _run(copy: Copy, tests: list[str], reached: Mapping[str, Reach]) -> Outcome:
    longest = FACTOR * max(reached[test].longest for test in tests) + MARGIN
    # The time for one test is what mostly ends those that hang; this is for what hangs elsewhere.
    overall = FACTOR * sum(reached[test].seconds for test in tests) + longest
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
    timeout = ["-o", f"faulthandler_timeout={longest:.0f}", "-o", "faulthandler_exit_on_timeout=true"]
    command = [sys.executable, "-m", "pytest", *options, *timeout, *tests]
    # Not to a pipe, which would stay open while anything runs that a test has left behind.
    with tempfile.TemporaryFile("w+") as output:
        try:
            run = subprocess.run(
                command,
                cwd=copy.folder,
                env=environment(copy.folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=overall,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(TIMED_OUT, f"the tests do not end within {overall:.0f} s")
        output.seek(0)
        lines = output.read().splitlines()
    if not run.returncode:
        return Outcome(SURVIVED)
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if not failed and any(line.startswith("Timeout (") for line in lines):
        return Outcome(TIMED_OUT, f"a test does not end within {longest:.0f} s")
    return Outcome(FOUND, failed[0] if failed else "the tests cannot be run")


def test_file(outcome: Outcome) -> str:
    """Return the test file that found a mutant; empty if that is not known."""
    return outcome.evidence.partition(" ")[2].partition(" ")[0].partition("::")[0]
