"""Imports between packages run one way, and no test imports another test module."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT


def module_of(path: Path) -> str:
    """Return the dotted name of the module in a file."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


# For each package or module, the parts of this project that it may import; the longest matching name applies.
MAY_IMPORT = {
    "models.schemas": set[str](),
    "models.database": set[str](),
    "models": {"models.database", "models.schemas"},
    "models.migrations": set[str](),
    "models.transfer": {"models"},
    "handlers.contract": {"models.database.errors", "models.schemas"},
    "handlers.environment": {"models.database.errors"},
    "handlers.settings": {"handlers.contract", "handlers.environment", "models.database"},
    "handlers.arguments": {"models.database.errors"},
    "handlers.entity_tags": {"handlers.contract", "models.database.errors"},
    "handlers.compression": {"handlers.contract", "handlers.entity_tags"},
    "handlers.idempotency": {"handlers.contract", "models"},
    "handlers.services": {"handlers.idempotency", "models.database"},
    "handlers.lookup": {"handlers.contract", "handlers.services"},
    "handlers.access": {"handlers.contract", "models"},
    "handlers.observability": {"handlers.contract", "handlers.settings", "models.database"},
    "handlers.documentation": {"handlers.access", "handlers.contract", "handlers.entity_tags", "models"},
    "handlers.application": {"handlers", "models"},
    "handlers.server": {"handlers", "models"},
    "handlers.commands": {"handlers", "models"},
    "handlers.cli": {"handlers.arguments", "handlers.commands", "handlers.contract", "handlers.server.output"}
    | {"models.database.errors"},
}
# For each package, the only packages that may import it, so that it is easy to remove and no lower layer imports it.
ONLY = {
    "handlers.cli": set[str](),
    "handlers.commands": {"handlers.cli"},
    "handlers.server": {"handlers.cli", "handlers.commands"},
    "handlers.application": {"handlers.server", "handlers.commands"},
    "models.transfer": {"handlers.commands"},
    "uvicorn": {"handlers.server"},
    "peewee": {"models"},
    "playhouse": {"models"},
    "psycopg": {"models.database", "models.transfer"},
    "psycopg_pool": {"models.database"},
    "starlette": {"handlers.contract", "handlers.server", "handlers.access", "handlers.observability"}
    | {"handlers.documentation", "handlers.application", "handlers.compression"},
    "werkzeug": {"handlers.compression"},
    "connexion": {"handlers.contract.framework"},
    "limits": {"handlers.access", "handlers.settings"},
    "redis": {"handlers.access"},
    "dotenv": {"handlers.environment"},
    "prometheus_client": {"handlers.observability"},
}
FILES = [path.relative_to(ROOT) for folder in ("handlers", "models") for path in (ROOT / folder).rglob("*.py")]
# The other modules of `handlers` contain the operations. They may also import each other.
OPERATIONS = {
    module
    for path in FILES
    if re.fullmatch(r"handlers\.[a-z]\w*", module := module_of(path)) and module not in MAY_IMPORT
}
MAY_IMPORT |= dict.fromkeys(
    OPERATIONS, OPERATIONS | {"handlers.contract", "handlers.entity_tags", "handlers.services", "models"}
)
ONLY |= dict.fromkeys(OPERATIONS, OPERATIONS)
ONLY["starlette"] |= OPERATIONS
TESTS = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")]


def imported_names(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that a file imports."""
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    module = module_of(path)
    own = max((name for name in MAY_IMPORT if is_within(module, name)), key=len, default=None)
    ours = [name for name in imported_names(path) if name.split(".")[0] in ("handlers", "models")]
    if own is None:
        assert ours == [], f"add {module} to MAY_IMPORT"
        return

    allowed = MAY_IMPORT[own] | {own}
    assert [name for name in ours if not any(is_within(name, package) for package in allowed)] == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_libraries_and_upper_layers_are_imported_in_one_place(path: Path) -> None:
    module = module_of(path)
    for name in imported_names(path):
        for package, importers in ONLY.items():
            if is_within(name, package):
                assert any(is_within(module, importer) for importer in importers | {package}), (
                    f"{module} imports {name}"
                )


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_no_test_module_imports_another(path: Path) -> None:
    """Shared code belongs in tests/support or conftest.py, so that each module can be changed and run alone."""
    imported_tests = [module for module in imported_names(path) if re.search(r"(^|\.)test_\w+", module)]

    assert imported_tests == [], f"move what {path} needs of {imported_tests} to tests/support"
