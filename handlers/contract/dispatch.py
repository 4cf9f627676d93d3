"""Call the handler of an operation with its parameters and body, and send its reply.

Connexion finds the handler of each operation, and its `RoutedMiddleware` calls the operation of a request. This module
replaces Connexion's own conversion of parameters, bodies and responses, which takes longer than a handler itself.
"""

from functools import lru_cache
from http import HTTPStatus
from inspect import signature
from itertools import chain
from typing import Any, get_type_hints
from urllib.parse import parse_qs, parse_qsl, urlencode

from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from connexion.spec import Specification
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract import document
from handlers.contract.body import MEDIA_TYPE, RequestBody
from handlers.contract.parameters import Parameter, Parameters, read
from handlers.contract.problems import Refusal
from handlers.contract.scope import state_of


class RequestContext:
    """Data about the request. A handler receives it in an argument annotated `RequestContext`."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @property
    def caller(self) -> bytes:
        """The identity of the client: the name of its API key, or else its Authorization header, which may be empty."""
        if name := state_of(self._scope).get("key_name"):
            return f"key {name}".encode()
        return b"\n".join(value for name, value in self._scope["headers"] if name == b"authorization")

    def url(self, **query: int | None) -> str:
        """Return the request's URL with some query parameters replaced. It is relative if there is no Host header."""
        scope = self._scope
        host = next((value.decode() for name, value in scope["headers"] if name == b"host"), "")
        origin = f"{scope['scheme']}://{host}" if host else ""
        replaced = "&".join([f"{name}={value}" for name, value in query.items()])
        return f"{origin}{scope['raw_path'].decode()}?{_without(scope['query_string'], *query)}{replaced}"


@lru_cache
def _without(query_string: bytes, *names: str) -> str:
    kept = [pair for pair in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True) if pair[0] not in names]
    return urlencode(kept) + "&" * bool(kept)


class OperationHandler:
    """An ASGI application that serves one operation.

    The constructor raises KeyError for an unsupported parameter, TypeError if the handler's arguments do not match.
    """

    def __init__(self, operation: AbstractOperation) -> None:
        self.function = operation.function
        hints = get_type_hints(self.function)
        self.parameters: dict[str, Parameters] = {"path": {}, "query": {}, "header": {}}
        for description in operation.parameters:
            location, name = description["in"], description["name"]
            key = name.lower().encode() if location == "header" else name
            self.parameters[location][key] = Parameter(description)
        self.body = RequestBody(operation.request_body, hints["body"]) if operation.request_body else None
        self.context_argument = next((name for name, hint in hints.items() if hint is RequestContext), None)
        self.status = document.success_status(operation.operation_id)
        self.headers = {int(status): _headers(operation.operation_id, int(status)) for status in operation.responses}
        parameters = [parameter for location in self.parameters.values() for parameter in location.values()]
        self.required = [parameter for parameter in parameters if parameter.required]
        self.defaults = {parameter.argument: parameter.default for parameter in parameters if not parameter.required}
        arguments = [parameter.argument for parameter in parameters] + ["body"] * bool(self.body)
        signature(self.function).bind(**dict.fromkeys(filter(None, [*arguments, self.context_argument])))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            arguments = await self._arguments(scope, receive)
        except ClientDisconnect:
            return
        reply = await self.function(**arguments)
        status = reply.status or self.status
        headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        if reply.body:
            headers.append((b"content-length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": status, "headers": headers + self.headers[status]})
        await send({"type": "http.response.body", "body": reply.body})

    async def _arguments(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        arguments = self.defaults.copy()
        path, query, header = self.parameters.values()
        # An invalid path parameter identifies no resource.
        if path and read(path, {name: [value] for name, value in scope["path_params"].items()}, arguments):
            raise Refusal(404)
        text = scope["query_string"].decode("latin-1")
        violations = read(query, parse_qs(text, keep_blank_values=True), arguments) if text else []
        fields: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            if name in header:
                fields.setdefault(name, []).append(value.decode("latin-1"))
        violations += read(header, fields, arguments)
        for parameter in self.required:
            if parameter.argument not in arguments:
                violations += parameter.read(None)[1]
        if self.body:
            try:
                arguments["body"] = await self.body.read(scope, receive)
            except Refusal as refusal:
                if refusal.status_code != HTTPStatus.BAD_REQUEST:
                    raise
                raise Refusal(400, violations=chain(violations, refusal.violations)) from None
        if violations:
            raise Refusal(400, violations=violations)
        if self.context_argument:
            arguments[self.context_argument] = RequestContext(scope)
        return arguments


def _headers(operation_id: str, status: int) -> list[tuple[bytes, bytes]]:
    """Return the headers that are the same in all of an operation's responses with this status."""
    headers = document.constant_headers(operation_id, status)
    if MEDIA_TYPE in document.responses(operation_id)[str(status)].get("content", ()):
        headers = {"Content-Type": MEDIA_TYPE, **headers}
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


class OperationHandlers(RoutedAPI[OperationHandler]):
    """Connexion's table of operations, by operation id."""

    def __init__(self, specification: Specification, next_app: ASGIApp, **options: Any) -> None:
        super().__init__(specification, next_app=next_app, **options)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> OperationHandler:
        return OperationHandler(operation)


class Dispatch(RoutedMiddleware[OperationHandlers]):
    """Middleware that passes each request to its operation."""

    api_cls = OperationHandlers
