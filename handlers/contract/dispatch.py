"""Pass a request to its operation: call the handler with the parameters and the body, and send its reply."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, lru_cache
from http import HTTPStatus
from itertools import chain
from typing import Any, get_type_hints
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract import document, problems
from handlers.contract.body import RequestBody
from handlers.contract.document import Operation
from handlers.contract.faults import FaultError, collected
from handlers.contract.framework import AbstractOperation, RoutedAPI, RoutedMiddleware, Specification
from handlers.contract.parameters import Parameter, Parameters, read
from handlers.contract.problems import Refusal
from handlers.contract.public_url import base_url
from handlers.contract.reply import Reply, encoded
from handlers.contract.routing import find_operation
from handlers.contract.scope import state_of
from handlers.contract.validation import Violation

# Header parameters that OpenAPI ignores, because other parts describe them (Parameter Object).
IGNORED = {"accept", "content-type", "authorization"}
WITHOUT_CONTENT = {204, 304}  # RFC 9110, section 6.4.1
# Called before the operation. It may raise Refusal, or return a function that changes the response before sending it.
Check = Callable[[Scope, Send], Awaitable[Send]]


class RequestContext:
    """Data about the request. A handler receives it in an argument annotated `RequestContext`."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @property
    def caller(self) -> bytes:
        """The identity of the client: the name of its API key, or else its Authorization header; empty without both."""
        if name := state_of(self._scope).get("key_name"):
            return f"key {name}".encode()
        credentials = [value for name, value in self._scope["headers"] if name == b"authorization"]
        return b"header " + b"\n".join(credentials) if credentials else b""

    def url(self, **query: int | None) -> str:
        """Return the request's URL with some query parameters replaced: a path if the client's URL is not known."""
        scope = self._scope
        replaced = "&".join([f"{name}={value}" for name, value in query.items()])
        return f"{base_url(scope)}{scope['raw_path'].decode()}?{_without(scope['query_string'], *query)}{replaced}"


@lru_cache
def _without(query_string: bytes, *names: str) -> str:
    kept = [pair for pair in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True) if pair[0] not in names]
    return urlencode(kept) + "&" * bool(kept)


@lru_cache
def _parse_query(query_string: str) -> dict[str, list[str]]:
    return parse_qs(query_string, keep_blank_values=True)


class OperationHandler:
    """An ASGI application that serves one operation with its handler. It adds what it cannot serve to `faults`."""

    def __init__(self, operation_id: str, function: Callable[..., Any], faults: list[str]) -> None:
        operation = document.operations()[operation_id]
        self.operation_id, self.function = operation_id, function
        hints = _hints(operation, function, faults)
        self.context_argument = next((name for name, hint in hints.items() if hint is RequestContext), None)
        self.status = document.success_status(operation_id)
        if not document.response(operation_id, self.status):
            faults.append(f"{operation.place}.responses: it has no successful response; add one.")
        number_of_faults = len(faults)
        self.parameters: dict[str, Parameters] = {"path": {}, "query": {}, "header": {}, "cookie": {}}
        for place, description in operation.parameters.items():
            with collected(faults):
                if (name := description["name"]).lower() not in IGNORED or description["in"] != "header":
                    key = name.lower().encode() if description["in"] == "header" else name
                    self.parameters[description["in"]][key] = Parameter(description, place)
        self.body: RequestBody | None = None
        if body := operation.description["requestBody"]:
            with collected(faults):
                self.body = RequestBody(body, hints.get("body", Any), f"{operation.place}.requestBody")
        parameters = [parameter for location in self.parameters.values() for parameter in location.values()]
        self.required = [parameter for parameter in parameters if parameter.required]
        self.defaults = {parameter.argument: parameter.default for parameter in parameters if not parameter.required}
        self.keys = _query_keys(operation)
        with collected(faults):
            arguments = [parameter.argument for parameter in parameters] + ["body"] * bool(body)
            if len(faults) > number_of_faults:
                return
            _check_signature(operation, function, arguments, self.context_argument)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            arguments = await self._arguments(scope, receive)
        except ClientDisconnect:
            return
        reply = await self.function(**arguments)
        if isinstance(reply, Response):
            await self._pass_on(reply, scope, receive, send)
        else:
            if type(reply) is not Reply:
                reply = Reply(reply)
            status = reply.status or self.status
            headers = _headers(self.operation_id, status).copy()
            for field, text in reply.headers.items():
                headers[_lower(field)] = text.encode()
            body = reply.body
            if type(body) is not bytes:
                body = encoded(body, headers.get(b"content-type", b""))
            if status in WITHOUT_CONTENT:
                body = b""
                headers.pop(b"content-type", None)
            if body:
                headers[b"content-length"] = b"%d" % len(body)
            await send({"type": "http.response.start", "status": status, "headers": list(headers.items())})
            await send({"type": "http.response.body", "body": body})

    async def _pass_on(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a response of Starlette with the headers of the contract."""
        for name, value in _headers(self.operation_id, response.status_code).items():
            response.headers.setdefault(name.decode(), value.decode())
        # The contract declares no ranges, so a file is always sent as a whole (RFC 9110, section 14.2).
        if "accept-ranges" in response.headers:
            del response.headers["accept-ranges"]
        kept = [field for field in scope["headers"] if field[0] != b"range"]
        await response({**scope, "headers": kept}, receive, send)

    async def _arguments(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        arguments, violations = self._read_parameters(scope)
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

    def _read_parameters(self, scope: Scope) -> tuple[dict[str, Any], list[Violation]]:
        arguments = self.defaults.copy()
        path, query, header, cookie = self.parameters.values()
        for name, parameter in path.items():
            arguments[parameter.argument], invalid = parameter.read([scope["path_params"][name]])
            # An invalid path parameter identifies no resource.
            if invalid:
                raise Refusal(404)
        text = scope["query_string"].decode("latin-1")
        violations = read(query, _parse_query(text), arguments, self.keys) if text else []
        fields: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            if name in header:
                fields.setdefault(name, []).append(value.decode("latin-1"))
        if fields:
            violations += read(header, fields, arguments)
        if cookie:
            cookies = HTTPConnection(scope).cookies
            violations += read(cookie, {name: [unquote(value)] for name, value in cookies.items()}, arguments)
        for parameter in self.required:
            if parameter.argument not in arguments:
                violations += parameter.read(None)[1]
        return arguments, violations


@lru_cache
def _lower(name: str) -> bytes:
    return name.lower().encode()


@cache
def _headers(operation_id: str, status: int) -> dict[bytes, bytes]:
    """Return the headers that are the same in all of an operation's responses with this status."""
    response = document.response(operation_id, status)
    if not response:
        raise LookupError(f"The contract declares no response {status} of {operation_id}.")
    headers, content = document.constant_headers(operation_id, status), response.get("content", {})
    if media_type := next((name for name in content if name != problems.MEDIA_TYPE), None):
        headers = {"Content-Type": "application/octet-stream" if "*" in media_type else media_type, **headers}
    return {name.lower().encode(): value.encode() for name, value in headers.items()}


def _hints(operation: Operation, function: Callable[..., Any], faults: list[str]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError) as error:
        faults.append(f"{operation.place}: an annotation of its handler cannot be read: {error}; import what it names.")
        return {}


def _query_keys(operation: Operation) -> set[str]:
    """Return the names of query parameters that hold API keys."""
    used = [document.security_schemes().get(name, {}) for item in operation.description["security"] for name in item]
    return {scheme["name"] for scheme in used if (scheme.get("in"), "name" in scheme) == ("query", True)}


def _check_signature(
    operation: Operation, function: Callable[..., Any], arguments: list[str], context_argument: str | None
) -> None:
    """Raise FaultError if a handler does not fit its operation."""
    handler = f"the handler {function.__module__}.{getattr(function, '__name__', function)}"
    if not inspect.iscoroutinefunction(function):
        raise FaultError(operation.place, f"{handler} is not asynchronous; write async def.")
    if twice := {name for name in arguments if arguments.count(name) > 1}:
        raise FaultError(operation.place, f"two parameters become the argument {twice.pop()}; rename one.")
    given = [*arguments, context_argument] if context_argument else arguments
    try:
        inspect.signature(function).bind(**dict.fromkeys(given))
    except TypeError as error:
        names = ", ".join(arguments) or "none"
        raise FaultError(operation.place, f"{handler} does not fit: {error}; its arguments must be {names}.") from error


class OperationHandlers(RoutedAPI[ASGIApp]):
    """Connexion's table of operations, by operation id."""

    def __init__(self, specification: Specification, next_app: ASGIApp, **options: Any) -> None:
        super().__init__(specification, next_app=next_app, **options)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> ASGIApp:
        handler: ASGIApp = operation.function
        return handler


class Dispatch(RoutedMiddleware[OperationHandlers]):
    """Middleware that passes each request to its operation, or to the next application, and answers every exception.

    `checks` are called before that, in their order.
    """

    api_cls = OperationHandlers

    def __init__(self, app: ASGIApp, checks: Sequence[Check]) -> None:
        super().__init__(app)
        self.checks = checks

    def add_api(self, specification: Specification, **options: Any) -> OperationHandlers:
        api: OperationHandlers = super().add_api(specification, **options)
        self.operations = api.operations
        return api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Clients for tests, such as HTTPX, call the application without a state.
        scope.setdefault("state", {})
        try:
            operation_id = find_operation(scope)
            for check in self.checks:
                send = await check(scope, send)
            application = self.operations[operation_id] if operation_id else self.app
            await application(scope, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            await problems.answer(error, scope, receive, send)
