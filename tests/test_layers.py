"""Imports run one way, and no test imports another."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT

FILES = [path.relative_to(ROOT) for folder in ("handlers", "models") for path in (ROOT / folder).rglob("*.py")]


TESTS = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")]


def imported_names(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a file imports."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    modules = list(imported_names(path))

    if path.parts[0] == "models":
        assert not [module for module in modules if module.startswith(("handlers", "connexion", "starlette"))]
    if path.name != "cli.py":
        assert not [module for module in modules if module.startswith("handlers.application")]
    if path.name == "tasks.py":
        assert not [module for module in modules if module.startswith(("connexion", "starlette", "peewee"))]


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_no_test_imports_another(path: Path) -> None:
    """Shared code belongs in tests/support or conftest.py, so that each test file can be changed and run alone."""
    imported_tests = [module for module in imported_names(path) if re.search(r"(^|\.)test_\w+", module)]

    assert imported_tests == [], f"{path} imports {imported_tests}: move the shared code to tests/support"
