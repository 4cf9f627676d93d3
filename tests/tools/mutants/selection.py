"""Measure the coverage and duration of each test file, and select the test files for a mutant."""

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from xml.etree import ElementTree

import pytest
from coverage import CoverageData
from pydantic import BaseModel

from tests.tools.mutants import process
from tests.tools.mutants.mutant import Mutant

PLUGIN = "tests.tools.mutants.plugin"
# A test file that takes longer than this is considered to hang.
TIMEOUT = 900  # seconds

# The maximum total duration of the test files that run for a mutant; the most promising test files run first.
BUDGET = 120  # seconds


class Coverage(BaseModel):
    """The coverage and duration of a test file on the unchanged project.

    Attributes:
        failure: The end of the output if the test file fails, otherwise empty.
        seconds: The duration of the test file.
        longest: The duration of the longest test in the test file.
        lines: The covered lines of each file, including lines that are covered in services that the tests start.
    """

    failure: str = ""
    seconds: float = 0
    longest: float = 0
    lines: dict[str, set[int]] = {}


def measure(project: Path, file: str, scratch: Path) -> Coverage:
    """Run a test file in a project, and return its coverage.

    Args:
        project: The folder of the project.
        file: The test file, relative to the project.
        scratch: An empty folder.
    """
    junit = scratch / "junit.xml"
    # Use a pytest-xdist worker, as `make test` does: coverage.py then measures services, but not the tools of tests.
    command = (
        f"coverage run -m pytest -p {PLUGIN} -x -q -n 1 --junit-xml={junit} -o junit_duration_report=total".split()
    )
    finished = process.run([*command, file], project, TIMEOUT, COVERAGE_FILE=str(scratch / "coverage"))
    if finished.status == pytest.ExitCode.NO_TESTS_COLLECTED:
        return Coverage()
    if finished.status:
        return Coverage(failure=finished.output[-3000:])
    suite = ElementTree.parse(junit).getroot()[0]
    durations = [float(case.get("time", 0)) for case in suite.iter("testcase")]
    lines: dict[str, set[int]] = {}
    for path in scratch.glob("coverage.*"):
        data = CoverageData(str(path))
        data.read()
        for measured in data.measured_files():
            if Path(measured).is_relative_to(project):
                name = str(Path(measured).relative_to(project))
                lines.setdefault(name, set()).update(data.lines(measured) or ())
    return Coverage(seconds=float(suite.get("time", 0)), longest=max(durations, default=0), lines=lines)


@cache
def _uses_by_name(source: str) -> dict[str, set[int]]:
    """Return for each name the lines that use it in the functions of a module."""
    uses: dict[str, set[int]] = {}
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for node in (node for statement in function.body for node in ast.walk(statement)):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                    uses.setdefault(name, set()).add(node.lineno)
    return uses


def _uses(source: str, names: Iterable[str]) -> set[int]:
    return {line for name in names for line in _uses_by_name(source).get(name, ())}


def select(
    mutant: Mutant, coverages: Mapping[str, Coverage], sources: Mapping[str, str], found: Mapping[tuple[str, str], int]
) -> list[str]:
    """Return the test files that may find a mutant, the most promising first.

    Args:
        mutant: The mutant.
        coverages: The coverage of each test file.
        sources: The text of each module.
        found: For each pair of source file and test file, how many mutants of the source file the test file has found.
    """
    lines_by_file = {mutant.file: set(mutant.lines)} if mutant.lines else {}
    if mutant.names:
        # A wrong value that is assigned at import has an effect only in the lines that use it.
        uses = {file: _uses(text, mutant.names) for file, text in sources.items()}
        if any(uses.values()):
            lines_by_file = uses
    own_lines = {mutant.file: set(mutant.lines)}
    files = _covering(lines_by_file, coverages) or _covering(own_lines, coverages) or list(coverages)
    mirrored = f"test_{Path(mutant.file).stem}"

    def cost(file: str) -> tuple[bool, float]:
        return Path(file).stem != mirrored, (1 + coverages[file].seconds) / (1 + found.get((mutant.file, file), 0))

    ranked = sorted(files, key=cost)
    ends = accumulate(coverages[file].seconds for file in ranked)
    return [file for file, end in zip(ranked, ends, strict=True) if file == ranked[0] or end <= BUDGET]


def _covering(lines_by_file: Mapping[str, Iterable[int]], coverages: Mapping[str, Coverage]) -> list[str]:
    """Return the test files that cover at least one of the given lines."""
    return [
        file
        for file, coverage in coverages.items()
        if any(not coverage.lines.get(name, set()).isdisjoint(lines) for name, lines in lines_by_file.items())
    ]
