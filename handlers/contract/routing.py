"""Finds the operation for a path and a method, in a table made from the contract."""

import re
from typing import Any

from connexion.middleware.abstract import ROUTING_CONTEXT, AbstractRoutingAPI
from connexion.middleware.routing import RoutingMiddleware
from connexion.operations import AbstractOperation
from connexion.spec import Specification
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from handlers.contract import document as contract
from handlers.contract.problems import Refusal

Methods = dict[str, str]


class RoutingTable(AbstractRoutingAPI[str]):
    """The operation ids of the contract, by path and method."""

    def __init__(self, specification: Specification, **options: Any) -> None:
        self.paths: dict[str, Methods] = {}
        self.templates: dict[re.Pattern[str], Methods] = {}
        super().__init__(specification, **options)

    def find(self, path: str) -> tuple[Methods, dict[str, str]] | None:
        """Return the methods and the parameters of a path, or None if the contract does not name it."""
        if methods := self.paths.get(path):
            return methods, {}
        for template, methods in self.templates.items():
            if match := template.fullmatch(path):
                return methods, match.groupdict()
        return None

    def make_operation(self, operation: AbstractOperation) -> str:
        return str(operation.operation_id)

    @staticmethod
    def _framework_path_and_name(operation: AbstractOperation, path: str) -> tuple[str, str]:
        return path, path

    def _add_operation_internal(self, method: str, path: str, operation: str, name: str | None = None) -> None:
        path = self.base_path + path
        if "{" in path:
            template = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
            methods = self.templates.setdefault(re.compile(template), {})
        else:
            methods = self.paths.setdefault(path, {})
        methods[method.upper()] = operation
        if method == "get":
            methods["HEAD"] = operation


class ContractRouting(RoutingMiddleware):
    """Connexion's routing, with one look-up in the place of a search through Starlette's routes."""

    def add_api(self, specification: Specification, base_path: str | None = None, **options: Any) -> None:
        self.table = RoutingTable(specification, base_path=base_path, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        routing = {"api_base_path": self.table.base_path}
        # An encoded slash is a part of a segment (RFC 3986, section 2.2), and no path of a contract has such a part.
        if b"%2f" not in scope["raw_path"].lower() and (found := self.table.find(scope["path"])):
            methods, scope["path_params"] = found
            if operation_id := methods.get(scope["method"]):
                routing["operation_id"] = operation_id
            else:
                routing["allow"] = ", ".join([*methods, "OPTIONS"])
        scope["extensions"] = {**scope.get("extensions", {}), ROUTING_CONTEXT: routing}
        await self.app(scope, receive, send)


async def without_operation(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that leads to no operation: OPTIONS on a path of the contract.

    Raises:
        Refusal: 404 for another path, and 405 for another method.
    """
    allow = scope["extensions"][ROUTING_CONTEXT].get("allow")
    if not allow:
        raise Refusal(404)
    if scope["method"] != "OPTIONS":
        raise Refusal(405, headers={"Allow": allow})
    headers = contract.constant_headers(None, 204) | {"Allow": allow}
    await Response(status_code=204, headers=headers)(scope, receive, send)
