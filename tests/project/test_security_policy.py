"""SECURITY.md: it has each risk of OWASP's, and what it says is shown by a test is."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.project import ROOT

POLICY = (ROOT / "SECURITY.md").read_text()
ROWS = dict(re.findall(r"^\| API(\d+) [^|]+ \| [^|]+ \| ([^|]+) \|$", POLICY, re.MULTILINE))
NAMED = [name for tests in ROWS.values() for name in tests.split(", ")]
# What the standard library, and what is installed with the service or its tests, has to send requests with.
CLIENTS = {"aiohttp", "http.client", "httpx", "requests", "urllib.request", "urllib3"}


@cache
def names_in(path: str) -> set[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_risk_is_there_once_and_shown_by_a_test() -> None:
    assert list(ROWS) == [str(number) for number in range(1, 11)]
    assert POLICY.count("\n| API") == 10
    assert all(ROWS.values())


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_what_is_named_is_a_test(name: str) -> None:
    named = re.fullmatch(r"`(tests/[\w/]+/test_\w+\.py)::(test_\w+)`", name)

    assert named
    assert named[2] in names_in(named[1])


def test_files_that_are_named_are_there() -> None:
    for path in re.findall(r"\]\(([^:)#]+)\)", POLICY):
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", sorted(p for folder in ("handlers", "models") for p in (ROOT / folder).rglob("*.py")))
def test_service_sends_no_requests(path: Path) -> None:
    """Nothing of its own imports what could."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}

    assert not {name for name in imported if name in CLIENTS or name.split(".")[0] in CLIENTS}
