"""Measures which lines each test file reaches, and how long it takes; selects the tests for a mutant."""

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
# A test file that takes longer does not end.
TIMEOUT = 900  # seconds

# For so many seconds tests are run for a mutant, the most promising first; what those far away would find survives.
BUDGET = 120


class Reach(BaseModel):
    """What a test file does when nothing is wrong.

    Attributes:
        failure: The end of its output, if it fails all the same.
        seconds: How long it takes.
        longest: How long its longest test takes.
        lines: The lines that it reaches, also in the services that it starts, by file.
    """

    failure: str = ""
    seconds: float = 0
    longest: float = 0
    lines: dict[str, set[int]] = {}


def measure(project: Path, file: str, scratch: Path) -> Reach:
    """Run a test file in a project under coverage.

    Args:
        project: The folder of the project.
        file: The test file, relative to that.
        scratch: An empty folder.
    """
    junit = scratch / "junit.xml"
    # With a worker of pytest-xdist, as in `make test`, coverage measures services, but not the tools that tests run.
    command = (
        f"coverage run -m pytest -p {PLUGIN} -x -q -n 1 --junit-xml={junit} -o junit_duration_report=total".split()
    )
    finished = process.run([*command, file], project, TIMEOUT, COVERAGE_FILE=str(scratch / "coverage"))
    if finished.status == pytest.ExitCode.NO_TESTS_COLLECTED:
        return Reach()
    if finished.status:
        return Reach(failure=finished.output[-3000:])
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
    return Reach(seconds=float(suite.get("time", 0)), longest=max(durations, default=0), lines=lines)


@cache
def _uses_by_name(source: str) -> dict[str, set[int]]:
    """Return the lines of a module that use a name, by name, but only lines in functions."""
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
    mutant: Mutant, reached: Mapping[str, Reach], sources: Mapping[str, str], found: Mapping[tuple[str, str], int]
) -> list[str]:
    """Return the test files that may find a mutant, the most promising first.

    Args:
        mutant: The mutant.
        reached: What each test file reaches.
        sources: The text of each module.
        found: How many mutants of a file a test file has found, by the names of both.
    """
    wanted = {mutant.file: set(mutant.lines)} if mutant.lines else {}
    if mutant.names:
        # A value that is set at import shows where it is used.
        uses = {file: _uses(text, mutant.names) for file, text in sources.items()}
        if any(uses.values()):
            wanted = uses
    files = _that_reach(wanted, reached) or _that_reach({mutant.file: set(mutant.lines)}, reached) or list(reached)
    mirrored = f"test_{Path(mutant.file).stem}"

    def cost(file: str) -> tuple[bool, float]:
        return Path(file).stem != mirrored, (1 + reached[file].seconds) / (1 + found.get((mutant.file, file), 0))

    chosen = sorted(files, key=cost)
    ends = accumulate(reached[file].seconds for file in chosen)
    return [file for file, end in zip(chosen, ends, strict=True) if file == chosen[0] or end <= BUDGET]


def _that_reach(wanted: Mapping[str, Iterable[int]], reached: Mapping[str, Reach]) -> list[str]:
    return [
        file
        for file, reach in reached.items()
        if any(not reach.lines.get(name, set()).isdisjoint(lines) for name, lines in wanted.items())
    ]
