"""The contract as tests need it."""

from functools import cache
from typing import Any

from connexion.json_schema import resolve_refs

from handlers.contract import document
from handlers.contract.document import snake_case
from models.answers import KeptAnswer
from models.keys import ApiKey
from models.tables import all_tables


@cache
def resolved() -> dict[str, Any]:
    """Return the published contract with every reference resolved."""
    found: dict[str, Any] = resolve_refs(document.raw())
    return found


def own_files() -> set[str]:
    """Return the Python files that are about this contract: its handlers, its tables, and the generated models."""
    handlers = {f"handlers/{snake_case(tag['name'])}.py" for tag in document.raw()["tags"]}
    tables = {table.__module__ for table in {*all_tables()} - {KeptAnswer, ApiKey}}
    return {*handlers, *(f"{module.replace('.', '/')}.py" for module in tables), "models/schemas.py"}
