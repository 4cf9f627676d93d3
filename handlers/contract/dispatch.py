"""Runs the operations: each is turned at start into a plan, which a request then follows."""

from collections.abc import Iterable
from http import HTTPStatus
from inspect import signature
from itertools import chain
from typing import Any, get_type_hints

from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from connexion.spec import Specification
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract import document as contract
from handlers.contract.body import MEDIA_TYPE, RequestBody
from handlers.contract.context import CONTEXT
from handlers.contract.parameters import Headers, Parameter, Parameters, header_texts, path_texts, query_texts, read
from handlers.contract.problems import Refusal
from models.schemas import Violation


class Plan:
    """An operation of the contract: what it takes, the handler that does it, and what it answers.

    Raises:
        KeyError: The contract has a parameter in a place that is not read.
        TypeError: The handler does not take what the contract gives it.
    """

    def __init__(self, operation: AbstractOperation) -> None:
        hints = get_type_hints(operation.function)
        self.handler = operation.function
        self.places: dict[str, Parameters] = {"path": {}, "query": {}, "header": {}}
        for description in operation.parameters:
            place, name = description["in"], description["name"]
            self.places[place][name.lower().encode() if place == "header" else name] = Parameter(description)
        self.body = RequestBody(operation.request_body, hints["body"]) if operation.request_body else None
        self.context = {name: CONTEXT[name] for name in CONTEXT.keys() & hints.keys()}
        self.status = contract.success(operation.operation_id)
        self.headers = {int(status): _headers(operation.operation_id, int(status)) for status in operation.responses}
        parameters = [parameter for place in self.places.values() for parameter in place.values()]
        self.required = [parameter for parameter in parameters if parameter.required]
        self.defaults = {parameter.argument: parameter.default for parameter in parameters if not parameter.required}
        arguments = [parameter.argument for parameter in parameters]
        signature(self.handler).bind(**dict.fromkeys([*arguments, *self.context, *["body"] * bool(self.body)]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arguments = self.defaults.copy()
        path, query, header = self.places.values()
        # A path that breaks a rule names nothing.
        if path and read(path, path_texts(scope["path_params"]), arguments):
            raise Refusal(404)
        violations: list[Violation] = []
        if scope["query_string"]:
            violations += read(query, query_texts(scope["query_string"]), arguments)
        if texts := header_texts(header, scope["headers"]):
            violations += read(header, texts, arguments)
        for parameter in self.required:
            if parameter.argument not in arguments:
                violations += parameter.read(None)[1]
        if self.body:
            try:
                arguments["body"] = await self.body.read(scope, receive)
            except ClientDisconnect:
                return
            except Refusal as refusal:
                raise _with(violations, refusal) from None
        if violations:
            raise Refusal(400, violations)
        for name, of in self.context.items():
            arguments[name] = of(scope)
        reply = await self.handler(**arguments)
        status = reply.status or self.status
        headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        if reply.body:
            headers.append((b"content-length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": status, "headers": headers + self.headers[status]})
        await send({"type": "http.response.body", "body": reply.body})


def _headers(operation_id: str, status: int) -> Headers:
    """Return the headers that every response of an operation with this status has."""
    headers = contract.constant_headers(operation_id, status)
    if MEDIA_TYPE in contract.responses(operation_id)[str(status)].get("content", ()):
        headers = {"Content-Type": MEDIA_TYPE, **headers}
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _with(violations: Iterable[Violation], refusal: Refusal) -> Refusal:
    """Return the refusal of a body, and if it lists violations, those of the parameters before them."""
    if refusal.status_code != HTTPStatus.BAD_REQUEST:
        return refusal
    return Refusal(HTTPStatus.BAD_REQUEST, chain(violations, refusal.violations))


class PlanAPI(RoutedAPI[Plan]):
    """The plans of a contract, by operation id."""

    def __init__(self, specification: Specification, next_app: ASGIApp, **options: Any) -> None:
        super().__init__(specification, next_app=next_app, **options)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> Plan:
        return Plan(operation)


class Dispatch(RoutedMiddleware[PlanAPI]):
    """Hands each request to the plan of its operation."""

    api_cls = PlanAPI
