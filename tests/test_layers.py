"""Imports run one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT

FILES = [path.relative_to(ROOT) for folder in ("handlers", "models") for path in (ROOT / folder).rglob("*.py")]


def imported(path: Path) -> Iterator[str]:
    """Yield the name of every module that a file imports."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    modules = list(imported(path))

    if path.parts[0] == "models":
        assert not [module for module in modules if module.startswith(("handlers", "connexion", "starlette"))]
    if path.name != "cli.py":
        assert not [module for module in modules if module.startswith("handlers.application")]
    if path.name == "tasks.py":
        assert not [module for module in modules if module.startswith(("connexion", "starlette", "peewee"))]
