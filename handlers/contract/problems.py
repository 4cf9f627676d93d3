"""Every problem document (RFC 9457) that the service sends is made here, in the words of the contract."""

import asyncio
import logging
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from itertools import islice
from typing import Any

from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.exceptions import ExceptionMiddleware
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from handlers.contract import document as contract
from models.database.errors import UnavailableError
from models.schemas import Problem, Violation

MEDIA_TYPE = "application/problem+json"

logger = logging.getLogger(__name__)


class Refusal(HTTPException):
    """The request is answered with a problem.

    Args:
        status: The status of the response.
        violations: The rules that the request broke, for a 400; no more of them are read than the contract shows.
        headers: Headers of the response.
    """

    def __init__(
        self, status: int, violations: Iterable[Violation] = (), headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, headers=headers)
        self.violations = list(islice(violations, _most_violations()))


class Exceptions(ExceptionMiddleware):
    """Connexion's layer for exceptions; here a request that does not fail need not wait for what Starlette prepares."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            # uvicorn waits for it no longer, because the service ends.
            await self._answer(scope, receive, send, UnavailableError("the service ended before it was done"))
        except Exception as error:
            await self._answer(scope, receive, send, error)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
        known = self._exception_handlers
        answer = next(known[kind] for kind in type(error).__mro__ if kind in known)
        response = await answer(Request(scope), error)
        await response(scope, receive, send)


def problem(operation_id: str | None, status: int, violations: Iterable[Violation] = ()) -> Problem:
    """Return a problem in the words of the contract.

    Args:
        operation_id: The operation that is refused; None where the request led to none.
        status: The status of the response. One that the contract does not foresee is a failure of the service.
        violations: The rules that the request broke.
    """
    wording = Problem.model_validate(_wording(operation_id, status))
    errors = list(violations)
    if not errors:
        return wording
    return wording.model_copy(update={"detail": "; ".join(error.detail for error in errors), "errors": errors})


async def refused(request: ConnexionRequest, exception: HTTPException) -> ConnexionResponse:
    """Answer a request that an operation, the routing or Connexion refused."""
    violations = getattr(exception, "violations", ())
    return _response(request, exception.status_code, violations, dict(exception.headers or {}))


async def unavailable(request: ConnexionRequest, exception: Exception) -> ConnexionResponse:
    """Answer a request that may succeed if it is made again."""
    logger.warning("%s %s %s: %s", request.state.request_id, request.method, request.url.path, exception)
    return _response(request, HTTPStatus.SERVICE_UNAVAILABLE, (), {})


async def missing(request: ConnexionRequest, _: Exception) -> ConnexionResponse:
    """Answer a request for what there is not."""
    return _response(request, HTTPStatus.NOT_FOUND, (), {})


async def changed(request: ConnexionRequest, _: Exception) -> ConnexionResponse:
    """Answer a request to change what is no longer as the caller takes it to be."""
    return _response(request, HTTPStatus.PRECONDITION_FAILED, (), {})


async def failed(request: ConnexionRequest, exception: Exception) -> ConnexionResponse:
    """Answer a request that failed; the cause goes into the log and nowhere else."""
    logger.error("%s %s %s failed", request.state.request_id, request.method, request.url.path, exc_info=exception)
    return _response(request, HTTPStatus.INTERNAL_SERVER_ERROR, (), {})


def operation_of(scope: Scope) -> str | None:
    """Return the id of the operation that a request led to, or None if it led to none."""
    operation_id: str | None = scope.get("extensions", {}).get(ROUTING_CONTEXT, {}).get("operation_id")
    return operation_id


def _response(
    request: ConnexionRequest, status: int, violations: Iterable[Violation], headers: dict[str, str]
) -> ConnexionResponse:
    operation_id = operation_of(request.scope)
    document = problem(operation_id, status, violations)
    headers = contract.constant_headers(operation_id, document.status) | headers
    body = document.model_dump_json(exclude_none=True)
    return ConnexionResponse(document.status, MEDIA_TYPE, MEDIA_TYPE, body, headers)


@cache
def _wording(operation_id: str | None, status: int) -> dict[str, Any]:
    """Return the first example that the contract gives of a problem, without the violations of that example."""
    responses = contract.responses(operation_id)
    response = responses.get(str(status), responses["500"])
    example: dict[str, Any] = next(iter(response["content"][MEDIA_TYPE]["examples"].values()))["value"]
    return {name: value for name, value in example.items() if name != "errors"}


@cache
def _most_violations() -> int:
    most: int = contract.specification()["components"]["schemas"]["Problem"]["properties"]["errors"]["maxItems"]
    return most
