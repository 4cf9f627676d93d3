"""The contract as tests need it."""

from functools import cache
from typing import Any

from connexion.json_schema import resolve_refs

from handlers.contract import document


@cache
def resolved() -> dict[str, Any]:
    """Return the published contract with every reference resolved."""
    found: dict[str, Any] = resolve_refs(document.raw())
    return found
