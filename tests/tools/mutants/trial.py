"""Run tests on a mutant, and judge whether the tests find the mutant."""

import subprocess
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.tools.mutants import process
from tests.tools.mutants.project import Copy
from tests.tools.mutants.selection import PLUGIN, Coverage

# If tests take longer than FACTOR times their usual duration plus MARGIN, the mutant times out and counts as found.
FACTOR = 3
MARGIN = 30  # seconds
FOUND = "found"
SURVIVED = "survived"
TIMED_OUT = "timed out"


class Outcome(NamedTuple):
    """The verdict on whether tests found a mutant, and the evidence for the verdict."""

    verdict: str
    evidence: str = ""


def attempt(copy: Copy, file: str, text: str, tests: list[str], coverages: Mapping[str, Coverage]) -> Outcome:
    """Run test files on a mutant until a test fails.

    Args:
        copy: The copy of the project to use.
        file: The file with the defect.
        text: The text of the file with the defect.
        tests: The test files, the most promising first.
        coverages: The coverage and duration of each test file.
    """
    try:
        with copy.planted(file, text):
            return _run(copy, tests, coverages)
    except subprocess.CalledProcessError:
        return Outcome(FOUND, "the models cannot be generated")


def _run(copy: Copy, tests: list[str], coverages: Mapping[str, Coverage]) -> Outcome:
    longest = FACTOR * max(coverages[test].longest for test in tests) + MARGIN
    # The timeout of a single test ends most runs that hang; the overall timeout ends runs that hang outside of a test.
    overall = FACTOR * sum(coverages[test].seconds for test in tests) + longest
    options = ["-x", "-q", "-p", PLUGIN, "-p", "no:cacheprovider", "--tb=no"]
    timeout = ["-o", f"faulthandler_timeout={longest:.0f}", "-o", "faulthandler_exit_on_timeout=true"]
    try:
        finished = process.run(["pytest", *options, *timeout, *tests], copy.folder, overall)
    except subprocess.TimeoutExpired:
        return Outcome(TIMED_OUT, f"the tests do not end within {overall:.0f} s")
    if finished.status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return Outcome(SURVIVED)
    lines = finished.output.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if not failed and any(line.startswith("Timeout (") for line in lines):
        return Outcome(TIMED_OUT, f"a test does not end within {longest:.0f} s")
    return Outcome(FOUND, failed[0] if failed else "the tests cannot be run")


def test_file(outcome: Outcome) -> str:
    """Return the test file that found a mutant, or an empty string if the test file is unknown."""
    return outcome.evidence.partition(" ")[2].partition(" ")[0].partition("::")[0]
