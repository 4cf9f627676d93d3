"""The JSON Schema Test Suite: its cases of Draft 4 for OpenAPI 3.0, and of Draft 2020-12 for OpenAPI 3.1."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.contract.validation import Rules
from tests.support.project import ROOT

SUITE = ROOT / "build" / "json-schema-tests" / "tests"
DRAFTS = {"3.0.4": "draft4", "3.1.1": "draft2020-12"}
# The keywords that OpenAPI 3.0 lacks, and those that give a part of a schema an identifier: a contract is one document.
# Draft 2020-12 has no `dependencies`, but its cases for compatibility do.
LEFT_OUT = {
    "3.0.4": {"additionalItems", "dependencies", "id"},
    "3.1.1": {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "dependencies"},
}
# In these, `format` is only an annotation. The files in `optional/format` check each format.
ANNOTATIONS = {"format.json", "format-assertion.json"}
FILES = [
    (version, path.relative_to(SUITE / draft))
    for version, draft in DRAFTS.items()
    for path in sorted((SUITE / draft).rglob("*.json"))
    if path.name not in ANNOTATIONS
]


def items(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value in a schema."""
    if isinstance(schema, dict):
        yield from schema.items()
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from items(part)


def is_applicable(version: str, schema: Any) -> bool:
    """Return whether the dialect has all keywords of a schema, in this form."""
    for key, value in items(schema):
        if key in LEFT_OUT[version] or (key == "$ref" and isinstance(value, str) and not value.startswith("#/")):
            return False
        # A list of schemas became `prefixItems` in Draft 2020-12.
        if key == "items" and isinstance(value, list):
            return False
    return True


def applicable(version: str, path: Path) -> list[dict[str, Any]]:
    cases = json.loads((SUITE / DRAFTS[version] / path).read_text("utf-8"))
    return [case for case in cases if is_applicable(version, case["schema"])]


def test_suite_is_installed() -> None:
    """`make` installs it; the numbers show that most of it applies."""
    tests = [len(case["tests"]) for version, path in FILES for case in applicable(version, path)]

    assert len(FILES) > 100
    assert sum(tests) > 2000


@pytest.mark.parametrize(("version", "path"), FILES, ids=str)
def test_rules_agree_with_the_suite(version: str, path: Path) -> None:
    for case in applicable(version, path):
        schema = case["schema"]
        # References are relative to the contract, so the contract is the schema.
        contract = {**schema, "openapi": version} if isinstance(schema, dict) else {"openapi": version}
        rules = Rules(schema, "value", contract=contract)
        for test in case["tests"]:
            assert rules.is_valid(test["data"]) == test["valid"], (case["description"], test["description"])
            assert bool(list(rules.violations(test["data"]))) != test["valid"], (
                case["description"],
                test["description"],
            )
