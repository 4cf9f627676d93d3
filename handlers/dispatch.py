"""Runs the operations: each is turned at start into a plan, which a request then follows."""

from inspect import signature
from typing import Any, get_type_hints

from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from connexion.spec import Specification
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.body import MEDIA_TYPE, RequestBody
from handlers.parameters import Parameter, path_arguments, query_arguments


class Plan:
    """An operation of the contract: what it takes, the handler that does it, and what it answers.

    Raises:
        KeyError: The contract has a parameter in a place that is not read.
        TypeError: The handler does not take what the contract gives it.
    """

    def __init__(self, operation: AbstractOperation) -> None:
        hints = get_type_hints(operation.function)
        self.handler = operation.function
        self.parameters: dict[str, dict[str, Parameter]] = {"path": {}, "query": {}}
        for description in operation.parameters:
            self.parameters[description["in"]][description["name"]] = Parameter(description)
        self.body = RequestBody(operation.request_body, hints["body"]) if operation.request_body else None
        self.status = next(int(status) for status in operation.responses if status.startswith("2"))
        arguments = [parameter.argument for place in self.parameters.values() for parameter in place.values()]
        signature(self.handler).bind(**dict.fromkeys(arguments + ["body"] * bool(self.body)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arguments = path_arguments(self.parameters["path"], scope["path_params"])
        arguments |= query_arguments(self.parameters["query"], scope["query_string"])
        if self.body:
            try:
                arguments["body"] = await self.body.read(scope, receive)
            except ClientDisconnect:
                return
        reply = await self.handler(**arguments)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(reply.body))]
        headers += [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


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
