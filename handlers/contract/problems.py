"""Turn exceptions into problem documents (RFC 9457) with the messages of the contract."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import islice
from typing import Any, cast

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from handlers.contract import document, standard
from handlers.contract.parameters import properties_of
from handlers.contract.scope import operation_id_of, state_of
from handlers.contract.validation import Violation
from models.database.errors import ChangedError, ConstraintError, MissingError, UnavailableError

MEDIA_TYPE = standard.PROBLEM
# Examples that are used only if a refusal names them.
ONLY_BY_NAME = {"EntityTagAltered", "FirstRequestRunning"}

logger = logging.getLogger(__name__)


class Refusal(HTTPException):
    """An exception that is answered with a problem document.

    `example` is the name of the example that the contract has for this problem, by default the first one. `violations`
    are listed in `errors`, up to the contract's limit.
    """

    def __init__(
        self,
        status: int,
        example: str | None = None,
        *,
        violations: Iterable[Violation] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, headers=headers)
        self.example = example
        self.violations = list(islice(violations, _errors_schema().get("maxItems", 100)))


async def answer(error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with the problem document for an error."""
    await _response(scope, error)(scope, receive, send)


def problem(
    operation_id: str | None, status: int, example: str | None = None, violations: Iterable[Violation] = ()
) -> dict[str, Any]:
    """Return a problem document, with status 500 if the contract does not declare the status.

    `operation_id` is None if the request matched no operation.
    """
    found = _example(operation_id, status, example)
    # The schema of an API that has its own may lack `rule`.
    omitted = () if "rule" in properties_of(_errors_schema().get("items", {})) else ("rule",)
    errors = [
        {key: value for key, value in error._asdict().items() if value is not None and key not in omitted}
        for error in violations
    ]
    if not errors:
        return found
    return {**found, "detail": "; ".join(error["detail"] for error in errors), "errors": errors}


def _response(scope: Scope, error: BaseException) -> Response:
    status, violations, operation_id = 500, getattr(error, "violations", ()), operation_id_of(scope)
    headers = dict(getattr(error, "headers", None) or {})
    # The path as it was sent: decoded, it might contain line breaks, with which clients could forge lines of the log.
    request = f"{state_of(scope).get('request_id', '-')} {scope['method']} {scope['raw_path'].decode('latin-1')}"
    match error:
        case HTTPException():
            status = error.status_code
        case MissingError():
            status = 404
        case ChangedError():
            status = 412
        case ConstraintError() if document.response(operation_id, 409):
            status = 409
        # uvicorn cancels requests that exceed the shutdown timeout.
        case UnavailableError() | asyncio.CancelledError():
            status = 503
            logger.warning("%s: %s", request, str(error) or "the service shut down before the response")
        case _:
            logger.error("%s failed", request, exc_info=error)
    found = problem(operation_id, status, getattr(error, "example", None), violations)
    if found["status"] != status:
        logger.error("%s failed: the contract declares no response %d of %s", request, status, operation_id)
    headers = document.constant_headers(operation_id, found["status"]) | headers
    return Response(to_json(found), found["status"], headers, MEDIA_TYPE)


def _errors_schema() -> dict[str, Any]:
    properties = document.raw()["components"]["schemas"]["Problem"].get("properties", {})
    return cast(dict[str, Any], document.resolve(properties.get("errors", {})))


@cache
def _example(operation_id: str | None, status: int, name: str | None) -> dict[str, Any]:
    """Return the contract's example of a problem document with this name or else the first one, without violations."""
    response = document.response(operation_id, status)
    if not response:
        return _example(operation_id, 500, None)
    content = response["content"][MEDIA_TYPE]
    values = {key: document.resolve(example).get("value") for key, example in content.get("examples", {}).items()}
    if not name:
        values = {key: value for key, value in values.items() if key not in ONLY_BY_NAME}
    choices = [values.get(name)] if name else [content.get("example"), *values.values()]
    example = next((choice for choice in choices if isinstance(choice, dict)), {})
    title = standard.title_of(status)
    complete = {"type": "about:blank", "title": title, "detail": title, **example, "status": status}
    return {key: complete[key] for key in ("type", "title", "status", *complete) if key != "errors"}
