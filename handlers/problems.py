"""Every problem document (RFC 9457) that the service sends is made here, in the words of the contract."""

import logging
from functools import cache
from http import HTTPStatus
from typing import Any

from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.exceptions import HTTPException

from handlers import contract
from models.schemas import Problem, Violation

MEDIA_TYPE = "application/problem+json"

logger = logging.getLogger(__name__)


class Refusal(HTTPException):
    """The request is answered with a problem.

    Args:
        status: The status of the response.
        violations: The rules that the request broke, for a 400.
        headers: Headers of the response.
    """

    def __init__(
        self, status: int, violations: list[Violation] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, headers=headers)
        self.violations = violations


async def refused(request: ConnexionRequest, exception: HTTPException) -> ConnexionResponse:
    """Answer a request that an operation, the routing or Connexion refused."""
    violations = getattr(exception, "violations", None)
    return _problem(request, exception.status_code, violations, dict(exception.headers or {}))


async def unavailable(request: ConnexionRequest, exception: Exception) -> ConnexionResponse:
    """Answer a request that may succeed if it is made again."""
    logger.warning("%s %s: %s", request.method, request.url.path, exception.__cause__)
    return _problem(request, HTTPStatus.SERVICE_UNAVAILABLE, None, {"Retry-After": _retry_after()})


async def failed(request: ConnexionRequest, exception: Exception) -> ConnexionResponse:
    """Answer a request that failed; the cause goes into the log and nowhere else."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exception)
    return _problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, None, {})


def _problem(
    request: ConnexionRequest, status: int, violations: list[Violation] | None, headers: dict[str, str]
) -> ConnexionResponse:
    routing = request.scope.get("extensions", {}).get(ROUTING_CONTEXT, {})
    operation_id = routing.get("operation_id")
    problem = Problem.model_validate(_wording(operation_id, status))
    if violations:
        problem = problem.model_copy(
            update={"detail": "; ".join(violation.detail for violation in violations), "errors": violations}
        )
    body = problem.model_dump_json(exclude_none=True)
    return ConnexionResponse(problem.status, MEDIA_TYPE, MEDIA_TYPE, body, headers)


@cache
def _wording(operation_id: str | None, status: int) -> dict[str, Any]:
    """Return the first example that the contract gives of a problem, without the violations of that example.

    What the contract does not foresee is a failure of the service.
    """
    responses = contract.operations()[operation_id][1]["responses"] if operation_id else {}
    if response := responses.get(str(status)):
        example: dict[str, Any] = next(iter(response["content"][MEDIA_TYPE]["examples"].values()))["value"]
    else:
        elsewhere = contract.document()["x-problems"]
        example = elsewhere.get(str(status), elsewhere["500"])
    return {name: value for name, value in example.items() if name != "errors"}


@cache
def _retry_after() -> str:
    return str(contract.specification()["components"]["headers"]["RetryAfter"]["schema"]["default"])
