"""Holds what the service answers against the contract; on in tests, off in production unless it is asked for."""

from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

import jiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract import document as contract
from handlers.contract.parameters import Parameter
from handlers.contract.problems import operation_of
from handlers.contract.validation import Rules

# Fields that say what HTTP itself needs to know of a body.
FRAMING = {"content-type", "content-length"}
# Fields that only the server adds, to every answer.
ADDED = {"x-request-id"}


class InvalidResponseError(Exception):
    """The service was about to answer what the contract does not say."""


class ResponseValidation:
    """Lets a response through if it is one of those that the contract gives the operation.

    Raises:
        InvalidResponseError: It is not; the message says why.
    """

    def __init__(self, next_app: ASGIApp) -> None:
        self.app = next_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.app(scope, receive, keep)
        # There are none where the caller has gone.
        if messages:
            status, headers = messages[0]["status"], Headers(raw=messages[0]["headers"])
            body = b"".join(message.get("body", b"") for message in messages)
            operation_id = operation_of(scope)
            # Where no operation answers, a success is the documentation's.
            if operation_id or status >= HTTPStatus.BAD_REQUEST:
                faults = "; ".join(_faults(operation_id, status, headers, body))
                if faults:
                    raise InvalidResponseError(faults)
        for message in messages:
            await send(message)


def _faults(operation_id: str | None, status: int, headers: Headers, body: bytes) -> Iterator[str]:
    response = contract.responses(operation_id).get(str(status))
    if not response:
        yield f"The contract does not have a response {status} here"
        return
    declared = _headers(operation_id, status)
    for name in set(headers) - FRAMING - set(declared):
        yield f"The contract does not have the header {name} here"
    for name, header in declared.items():
        _, violations = header.read(headers.getlist(name) or None)
        yield from (violation.detail for violation in violations)
    media_type = headers.get("content-type", "")
    if "content" not in response and not media_type and not body:
        return
    if media_type not in response.get("content", ()):
        yield f"The contract does not have a body of type {media_type} here"
        return
    rules = _rules(operation_id, status, media_type)
    yield from (f"{'/'.join(path)}: {sentence}" for path, sentence in rules.violations(jiter.from_json(body)))


@cache
def _headers(operation_id: str | None, status: int) -> dict[str, Parameter]:
    headers: dict[str, Any] = contract.responses(operation_id)[str(status)].get("headers", {})
    described = {name.lower(): Parameter({"name": name, **header}) for name, header in headers.items()}
    return {name: header for name, header in described.items() if name not in ADDED}


@cache
def _rules(operation_id: str | None, status: int, media_type: str) -> Rules:
    content = contract.responses(operation_id)[str(status)]["content"]
    return Rules(content[media_type]["schema"], "The body")
