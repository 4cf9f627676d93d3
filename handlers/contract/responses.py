"""Validate responses against the contract. This is meant for tests, because it takes time."""

import gzip
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from http import HTTPStatus
from typing import Any

import jiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract import document, problems
from handlers.contract.faults import collected
from handlers.contract.parameters import Parameter
from handlers.contract.reply import is_json
from handlers.contract.scope import operation_id_of
from handlers.contract.validation import Rules

FRAMING = {"content-type", "content-length"}  # headers that HTTP itself needs


class InvalidResponseError(Exception):
    """A response violates the contract; the message says how."""


class ResponseValidation:
    """Middleware that answers 500 instead of passing on a response that violates the contract."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self.app(scope, receive, collect)
        # There are no messages if the client disconnected.
        for message in messages[:1]:
            headers, body = Headers(raw=message["headers"]), b"".join(message.get("body", b"") for message in messages)
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            faults = _faults(operation_id_of(scope), message["status"], headers, body)
            if found := "; ".join(faults):
                error = InvalidResponseError(f"{operation_id_of(scope)}: {found}")
                await problems.answer(error, scope, receive, send)
                return
        for message in messages:
            await send(message)


def _faults(operation_id: str | None, status: int, headers: Headers, body: bytes) -> Iterator[str]:
    # Successful responses without an operation come from the documentation and the health probes.
    if not operation_id and status < HTTPStatus.BAD_REQUEST:
        return
    declared = _declared(operation_id, status)
    if not declared:
        yield f"The contract declares no response {status} here"
        return
    parameters, rules = declared
    for name in set(headers) - FRAMING - set(parameters):
        yield f"The contract declares no header {name} here"
    for name, parameter in parameters.items():
        yield from (violation.detail for violation in parameter.read(headers.getlist(name) or None)[1])
    media_type = headers.get("content-type", "")
    # Parameters of the media type, such as a charset, do not matter.
    plain = media_type.partition(";")[0]
    if described := next((name for name in rules if name == media_type or fnmatchcase(plain, name)), None):
        value = jiter.from_json(body) if is_json(media_type) else body.decode("latin-1")
        found = rules[described].violations(value)
        yield from (f"{violation.pointer or 'the body'}: {violation.detail}" for violation in found)
    elif rules or media_type or body:
        yield f"The contract declares no body of type {media_type} here"


def check(faults: list[str]) -> None:
    """Add a sentence to `faults` for each part of a declared response that cannot be validated."""
    for operation_id, operation in document.operations().items():
        for status, response in document.responses(operation_id).items():
            _compile(response, f"{operation.place}.responses.{status}", faults)


@cache
def _declared(operation_id: str | None, status: int) -> tuple[dict[str, Parameter], dict[str, Rules]] | None:
    response = document.response(operation_id, status)
    return _compile(response, "", []) if response else None


def _compile(response: dict[str, Any], place: str, faults: list[str]) -> tuple[dict[str, Parameter], dict[str, Rules]]:
    """Return the headers of a response by name, and the rules for its body by media type."""
    headers, rules = {}, {}
    for name, header in response["headers"].items():
        with collected(faults):
            description = {"name": name, "in": "header", **header}
            headers[name.lower()] = Parameter(description, f"{place}.headers.{name}", "response")
    for name, media in response.get("content", {}).items():
        with collected(faults):
            schema_place = f"{place}.content.{name}.schema"
            rules[name] = Rules(media.get("schema", {}), "The body", place=schema_place, direction="response")
    # The protocol adds this header after the validation.
    headers.pop("x-request-id", None)
    return headers, rules
