"""The access log: a line of JSON for each request, which says nothing of what a caller keeps to itself."""

import json
import logging
import re
from functools import cache

from starlette.types import Scope

from handlers.contract import document as contract
from handlers.contract.problems import operation_of
from models.database.clock import now

logger = logging.getLogger(__name__)
_encode = json.JSONEncoder(separators=(",", ":")).encode


def write(scope: Scope, status: int | None, seconds: float) -> None:
    """Write the line of a request.

    Args:
        scope: The request; one that the protocol refused may have no method.
        status: Of its answer; None if there was none.
        seconds: How long it took.
    """
    line = {
        "time": now(),
        "method": scope.get("method"),
        "route": _route(scope),
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "request_id": scope["state"]["request_id"],
        "key": scope["state"].get("key"),
    }
    logger.info(_encode(line))


def _route(scope: Scope) -> str | None:
    """Return the path that the code or the contract has for a request, as it is written there."""
    if operation_id := operation_of(scope):
        return contract.operations()[operation_id][0]
    # Starlette names the route that it has found; what is refused before or beside an operation has none.
    if "route" in scope:
        path: str = scope["route"].path
        return path
    if b"%2f" in scope.get("raw_path", b"").lower():
        return None
    return next((path for path, pattern in _patterns().items() if pattern.fullmatch(scope.get("path", ""))), None)


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    paths = [path for path, _ in contract.operations().values()]
    return {path: re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))) for path in paths}
