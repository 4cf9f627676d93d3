"""SECURITY.md lists every OWASP API risk, and each test that it cites exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.project import ROOT

POLICY = (ROOT / "SECURITY.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| API(\d+) [^|]+ \| [^|]+ \| ([^|]+) \|$", POLICY, re.MULTILINE))
NAMED = [name for tests in ROWS.values() for name in tests.split(", ")]
# The HTTP clients in the standard library and in the packages that are installed with the service or its tests.
CLIENTS = {"aiohttp", "http.client", "httpx", "requests", "urllib.request", "urllib3"}


@cache
def names_in(path: str) -> set[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_risk_is_listed_once_and_cites_a_test() -> None:
    assert list(ROWS) == [str(number) for number in range(1, 11)]
    assert POLICY.count("\n| API") == 10
    assert all(ROWS.values())


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_cited_test_exists(name: str) -> None:
    cited = re.fullmatch(r"`(tests/[\w/]+/test_\w+\.py)::(test_\w+)`", name)

    assert cited
    assert cited[2] in names_in(cited[1])


def test_linked_files_exist() -> None:
    for path in re.findall(r"\]\(([^:)#]+)\)", POLICY):
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", sorted(p for folder in ("handlers", "models") for p in (ROOT / folder).rglob("*.py")))
def test_service_sends_no_requests(path: Path) -> None:
    """No module of the service imports an HTTP client."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}

    assert not {name for name in imported if name in CLIENTS or name.split(".")[0] in CLIENTS}
