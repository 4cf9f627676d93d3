"""Enforce the security requirements of the contract.

The function in `handlers/security.py` that has the name of a security scheme in snake case checks its credentials. A
bearer scheme without a function stands for the API keys, which are not required before there is one. This replaces
Connexion's `SecurityMiddleware`, which skips what it does not support, and does not tell a function its scheme.
"""

import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from inspect import iscoroutinefunction, signature
from typing import Any, TypeVar
from urllib.parse import parse_qs

from inflection import underscore
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract import document
from handlers.contract.faults import FaultError, collected
from handlers.contract.problems import Refusal
from handlers.contract.scope import operation_id_of, state_of
from models.keys import KeyCache

T = TypeVar("T")
Description = Mapping[str, Any]
# Requirements, of which one must be satisfied. Each has the required scopes by scheme, and needs all of its schemes.
Alternatives = Sequence[Mapping[T, list[str]]]
# The kinds of security schemes, and how a 401 names them (RFC 9110, section 11.6.1). No RFC has a name for API keys.
CHALLENGES = {"bearer": "Bearer", "oauth2": "Bearer", "openIdConnect": "Bearer", "basic": "Basic", "apiKey": "ApiKey"}
AUTHORIZATION = re.compile(r"(\w+) +([\w.~+/-]+=*) *", re.ASCII)  # RFC 9110, section 11.6.2
USER_AND_PASSWORD = re.compile(r"([^:\x00-\x1f\x7f]*):([^\x00-\x1f\x7f]*)")  # RFC 7617, section 2
LOCATIONS = ("header", "query", "cookie")
API_KEY = re.compile(r"[!-~]+")


def author_functions() -> object:
    """Return the module `handlers/security.py`, or None if there is none."""
    return import_module("handlers.security") if find_spec("handlers.security") else None


def key_name_of(scope: Scope, keys: KeyCache) -> str | None:
    """Return the name of the API key that a request presents, or None if it presents no valid one."""
    credentials = _credentials(scope, {"type": "http", "scheme": "bearer"})
    return keys.name_of(credentials[0].encode()) if credentials else None


def without_keys(contract: Description, functions: object = None) -> dict[str, Any]:
    """Return the contract as it applies while there are no API keys: without the requirement of one."""
    schemes = contract.get("components", {}).get("securitySchemes", {})
    keys = {name for name, scheme in schemes.items() if _is_key(name, document.resolve(scheme), functions)}

    def edit(item: Any) -> Any:
        is_protected = isinstance(item, dict) and "security" in item
        return {**item, "security": _without(item["security"], keys)} if is_protected else item

    paths = {
        path: {name: edit(value) for name, value in item.items()} for path, item in contract.get("paths", {}).items()
    }
    return {**edit(contract), "paths": paths}


class Scheme:
    """A security scheme, and the function that checks its credentials. Raise FaultError if either is unsuitable."""

    def __init__(self, name: str, description: Description, keys: KeyCache, functions: object) -> None:
        async def name_of_key(key: str, _: list[str]) -> str | None:
            return keys.name_of(key.encode())

        self.description, self.kind = description, _kind(description)
        place, parameters = f"components.securitySchemes.{name}", "credential: str, scopes: list[str]"
        if self.kind not in CHALLENGES:
            raise FaultError(place, f"{self.kind} is not supported; use {', '.join(CHALLENGES)}.")
        if self.kind == "basic":
            parameters = "user: str, password: str"
        elif self.kind == "apiKey" and not ("name" in description and description.get("in") in LOCATIONS):
            raise FaultError(place, "write the name of the API key, and in: header, query or cookie.")
        found = getattr(functions, _python_name(name), name_of_key if self.kind == "bearer" else None)
        self.is_key = found is name_of_key
        if not iscoroutinefunction(found) or len(signature(found).parameters) != len(parameters.split(", ")):
            needed = f"async def {_python_name(name)}({parameters}) -> str | None"
            raise FaultError(place, f"write its check in handlers/security.py: {needed}.")
        self.check: Callable[..., Awaitable[str | None]] = found

    async def caller(self, scope: Scope, scopes: list[str]) -> str | None:
        """Return the name of the caller, or None if a request has no valid credentials."""
        credentials = _credentials(scope, self.description)
        arguments = credentials if self.kind == "basic" else (*credentials, scopes)
        return await self.check(*arguments) if credentials else None


class Access:
    """Who may call an operation; without requirements, everybody may.

    The constructor raises FaultError for a requirement that cannot be enforced.
    """

    def __init__(
        self,
        place: str,
        requirements: Alternatives[str],
        schemes: Mapping[str, Description],
        keys: KeyCache,
        functions: object = None,
    ) -> None:
        used: dict[str, Scheme] = {}
        for name, scopes in (pair for requirement in requirements for pair in requirement.items()):
            if name not in schemes:
                raise FaultError(place, f"{name} is not declared; declare it in components.securitySchemes.")
            used[name] = Scheme(name, schemes[name], keys, functions)
            if scopes and (used[name].is_key or used[name].kind == "basic"):
                raise FaultError(place, f"{name} has no scopes; write an empty list.")
        self.keys = keys
        # Anonymous access comes last, so that valid credentials identify the caller.
        ordered = sorted(requirements, key=lambda item: not item)
        self.alternatives: Alternatives[Scheme] = [{used[name]: item[name] for name in item} for item in ordered]
        self.without_keys = _without(self.alternatives, {scheme for scheme in used.values() if scheme.is_key})
        self.has_keys = self.alternatives != self.without_keys
        names = dict.fromkeys(CHALLENGES[scheme.kind] for scheme in used.values())
        self.challenge = ", ".join(f'{name} realm="{document.NAME}"' for name in names)

    async def authenticate(self, scope: Scope) -> None:
        """Add the name of the caller to the state of a request. Raise Refusal if no alternative is satisfied."""
        alternatives = self.alternatives
        if self.has_keys:
            await self.keys.ensure_fresh()
            if not self.keys.required:
                alternatives = self.without_keys
        if not alternatives:
            return
        refusal: HTTPException | None = None
        for alternative in alternatives:
            try:
                names = [await scheme.caller(scope, scopes) or "" for scheme, scopes in alternative.items()]
            except HTTPException as error:
                refusal = error
            else:
                if all(names):
                    if names:
                        state_of(scope)["key_name"] = ", ".join(names)
                    return
        refusal = refusal or Refusal(401)
        is_constant = "WWW-Authenticate" in document.constant_headers(operation_id_of(scope), 401)
        if refusal.status_code == HTTPStatus.UNAUTHORIZED and not is_constant:
            refusal.headers = {"WWW-Authenticate": self.challenge, **(refusal.headers or {})}
        raise refusal


def find_access(keys: KeyCache, faults: list[str]) -> dict[str | None, Access]:
    """Return the access to each operation, and under None that to everything else; add what is faulty to `faults`."""
    contract, functions = document.raw(), author_functions()
    schemes = contract.get("components", {}).get("securitySchemes", {})
    described = {name: document.resolve(scheme) for name, scheme in schemes.items()}
    # Requests that match no operation need what the contract requires by default.
    required: dict[str | None, tuple[str, Any]] = {None: ("security", contract.get("security", []))}
    for name, operation in document.operations().items():
        required[name] = (f"{operation.place}.security", operation.description["security"])
    found: dict[str | None, Access] = {}
    for operation_id, (place, requirements) in required.items():
        with collected(faults):
            found[operation_id] = Access(place, requirements, described, keys, functions)
    return found


class Security:
    """Middleware that requires credentials, unless the operation or the route is open to everybody.

    `access` has the access to each operation, and under None that to everything else except the open routes.
    """

    def __init__(self, app: ASGIApp, open_routes: Sequence[BaseRoute], access: Mapping[str | None, Access]) -> None:
        self.app = app
        self.open_routes = open_routes
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            operation_id = operation_id_of(scope)
            if operation_id or all(route.matches(scope)[0] is Match.NONE for route in self.open_routes):
                await self.access[operation_id].authenticate(scope)
        await self.app(scope, receive, send)


def _credentials(scope: Scope, scheme: Description) -> Sequence[str]:
    """Return the token or key, or the user and the password, of a request; nothing if they are missing or malformed."""
    kind = _kind(scheme)
    if kind == "apiKey":
        values = _values(scope, scheme["in"], scheme["name"])
        return values if len(values) == 1 and API_KEY.fullmatch(values[0]) else ()
    values = _values(scope, "header", "authorization")
    found = AUTHORIZATION.fullmatch(values[0]) if len(values) == 1 else None
    if not found or found[1].lower() != CHALLENGES[kind].lower():
        return ()
    if kind != "basic":
        return (found[2],)
    try:
        pair = USER_AND_PASSWORD.fullmatch(b64decode(found[2], validate=True).decode())
    except ValueError:
        return ()
    return pair.groups() if pair else ()


def _values(scope: Scope, location: str, name: str) -> list[str]:
    """Return all values that a request has for a header field, a query parameter or a cookie."""
    if location == "query":
        return parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name, [])
    field = b"cookie" if location == "cookie" else name.lower().encode()
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == field]
    if location == "header":
        return values
    return [value for key, value in cookie_parser("; ".join(values)).items() if key == name]


def _kind(scheme: Description) -> str:
    kind = scheme.get("type", "")
    return str(scheme.get("scheme", kind).lower() if kind == "http" else kind)


def _is_key(name: str, scheme: Description, functions: object) -> bool:
    """Return whether the credentials of a scheme are the API keys."""
    return _kind(scheme) == "bearer" and not hasattr(functions, _python_name(name))


def _python_name(name: str) -> str:
    return underscore(re.sub(r"\W", "_", name))


def _without(requirements: Alternatives[T], keys: Container[T]) -> Alternatives[T]:
    """Return the requirements without API keys. Those that require nothing else are left out, so all others stay."""
    left = [{name: scopes for name, scopes in item.items() if name not in keys} for item in requirements]
    return [item for item, whole in zip(left, requirements, strict=True) if item or not whole]
