"""Write the access log: one line of JSON per request, without confidential data."""

import json
import logging
from functools import lru_cache

from starlette.types import Scope

from handlers.contract import document, routing
from handlers.contract.scope import operation_id_of, state_of
from models.database.clock import now

logger = logging.getLogger(__name__)
_to_json = lru_cache(json.dumps)  # for strings that recur


def write(scope: Scope, status: int | None, seconds: float) -> None:
    """Write the line for a request. The scope is incomplete if the protocol refused the request."""
    state = state_of(scope)
    # A request id has no characters that JSON escapes.
    logger.info(
        f'{{"time":"{now()}","method":{_to_json(scope.get("method"))},"route":{_to_json(_route(scope))},'
        f'"status":{_to_json(status)},"duration_ms":{round(seconds * 1000, 3)},"request_id":"{state["request_id"]}",'
        f'"key":{_to_json(state.get("key_name"))}}}'
    )


def _route(scope: Scope) -> str | None:
    """Return the path template of a request, because the actual path may be confidential."""
    if operation_id := operation_id_of(scope):
        return document.operations()[operation_id].path
    # For the documentation and the health probes, Starlette adds the route to the scope.
    if "route" in scope:
        return str(scope["route"].path)
    found = routing.match(scope) if "raw_path" in scope else None
    return found.template if found else None
