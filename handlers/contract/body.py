"""Read and validate the body of a request."""

from functools import lru_cache
from typing import Any

import jiter
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from handlers.contract import document
from handlers.contract.problems import Refusal
from handlers.contract.validation import Rules, Violation, message, messages

MEDIA_TYPE = "application/json"


class RequestBody:
    """The request body of an operation, described by the contract and typed by the handler's argument `body`."""

    def __init__(self, description: dict[str, Any], model: Any, place: str = "") -> None:
        self.max_bytes: int = description.get("x-max-bytes", document.raw()["x-max-bytes"])
        self.rules = Rules(description["content"][MEDIA_TYPE]["schema"], messages()["body"])
        self.model = model

    async def read(self, scope: Scope, receive: Receive) -> BaseModel:
        """Return the validated body as an object of the handler's type.

        Raises:
            Refusal: 415 for another media type, 413 as soon as the body is too large, 400 with all violations.
            ClientDisconnect: The client disconnected before the end of the body.
        """
        if not _is_json(scope["headers"]):
            raise Refusal(415)
        content = await self._receive(scope["headers"], receive)
        try:
            value = jiter.from_json(content, allow_inf_nan=False, catch_duplicate_keys=True)
        except ValueError as error:
            sentence = message("json", self.rules.name, error)
            raise Refusal(400, violations=[Violation(sentence, pointer="")]) from error
        if not self.rules.is_valid(value):
            found = self.rules.violations(value)
            violations = (Violation(sentence, pointer=_pointer(path)) for path, sentence in found)
            raise Refusal(400, violations=violations)
        return self.model.model_validate(value)

    async def _receive(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes:
        if next((int(value) for name, value in headers if name == b"content-length"), 0) > self.max_bytes:
            raise Refusal(413)
        body = bytearray()
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ClientDisconnect
            body += event.get("body", b"")
            if len(body) > self.max_bytes:
                raise Refusal(413)
            if not event.get("more_body"):
                return bytes(body)


def _is_json(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether the headers declare JSON exactly once, without compression (RFC 9110, sections 8.3 and 8.4)."""
    types = [value for name, value in headers if name == b"content-type"]
    codings = [value for name, value in headers if name == b"content-encoding" and value.lower() != b"identity"]
    return len(types) == 1 and _is_json_type(types[0]) and not codings


@lru_cache
def _is_json_type(content_type: bytes) -> bool:
    """Return whether a Content-Type is JSON in UTF-8 (RFC 8259, section 8.1)."""
    media_type, *parameters = (part.strip() for part in content_type.decode("latin-1").lower().split(";"))
    return media_type == MEDIA_TYPE and all(part in ("", "charset=utf-8", 'charset="utf-8"') for part in parameters)


def _pointer(path: list[str]) -> str:
    """Return the JSON Pointer for a path (RFC 6901, section 3)."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)
