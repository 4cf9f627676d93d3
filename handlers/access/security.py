"""Enforce the security requirements of the contract.

The function in `handlers/security.py` that has the name of a security scheme in snake case checks its credentials. A
bearer scheme without a function stands for the API keys, which are not required before there is one.
"""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from inspect import iscoroutinefunction, signature
from time import monotonic
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import Scope, Send

from handlers.contract import document
from handlers.contract.faults import FaultError, collected
from handlers.contract.problems import Refusal
from handlers.contract.scope import operation_id_of
from models.keys import KeyCache

# Requirements, of which one must be satisfied. Each has the required scopes by scheme, and needs all of its schemes.
Requirements = Sequence[Mapping[str, list[str]]]
# The kinds of security schemes, and how a 401 names them (RFC 9110, section 11.6.1). No RFC has a name for API keys.
CHALLENGES = {"bearer": "Bearer", "oauth2": "Bearer", "openIdConnect": "Bearer", "basic": "Basic", "apiKey": "ApiKey"}
LOCATIONS = ("header", "query", "cookie")
TOKEN = r"([\w.~+/-]+=*)"  # noqa: S105, a pattern (RFC 9110, section 11.2)
USER_AND_PASSWORD = re.compile(r"([^:\x00-\x1f\x7f]*):([^\x00-\x1f\x7f]*)")  # RFC 7617, section 2


def key_name_of(scope: Scope, keys: KeyCache) -> str | None:
    """Return the name of the API key that a request presents, or None if it presents no valid one."""
    credentials = _credentials(scope, "bearer", {})
    return keys.name_of(credentials[0].encode()) if credentials else None


def without_keys(contract: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contract as it applies while there are no API keys: what requires nothing else requires nothing."""

    def edit(item: Any) -> Any:
        is_open = isinstance(item, dict) and "security" in item and _needs_only_keys(item["security"])
        return {**item, "security": []} if is_open else item

    paths = {path: {name: edit(value) for name, value in item.items()} for path, item in contract["paths"].items()}
    return {**edit(contract), "paths": paths}


class Scheme:
    """A required security scheme, and the function that checks it. Raise FaultError if either is unsuitable."""

    def __init__(self, place: str, name: str, scopes: list[str], keys: KeyCache) -> None:
        if name not in document.security_schemes():
            raise FaultError(place, f"{name} is not declared; declare it in components.securitySchemes.")
        self.description, function = document.security_schemes()[name], document.snake_case(name)
        self.kind, self.scopes, declaration = _kind(name), scopes, f"components.securitySchemes.{name}"
        if self.kind not in CHALLENGES:
            raise FaultError(declaration, f"{self.kind} is not supported; use {', '.join(CHALLENGES)}.")
        if self.kind == "apiKey" and not ("name" in self.description and self.description.get("in") in LOCATIONS):
            raise FaultError(declaration, "write the name of the API key, and in: header, query or cookie.")
        if scopes and (self.kind == "basic" or _is_key(name)):
            raise FaultError(place, f"{name} has no scopes; write an empty list.")
        # API keys are looked up at once, without a coroutine.
        self.keys = keys if _is_key(name) else None
        if self.keys:
            return
        self.check: Any = getattr(_author_functions(), function, None)
        parameters = "user: str, password: str" if self.kind == "basic" else "credential: str, scopes: list[str]"
        if not iscoroutinefunction(self.check) or len(signature(self.check).parameters) != parameters.count(":"):
            needed = f"async def {function}({parameters}) -> str | None"
            raise FaultError(declaration, f"write its check in handlers/security.py: {needed}.")

    async def caller(self, scope: Scope) -> str:
        """Return the name of the caller, which is empty if a request has no valid credentials."""
        credentials = _credentials(scope, self.kind, self.description)
        if not credentials:
            return ""
        if self.keys:
            return self.keys.name_of(credentials[0].encode()) or ""
        arguments = credentials if self.kind == "basic" else (*credentials, self.scopes)
        return await self.check(*arguments) or ""


class Access:
    """Who may call an operation; without requirements, everybody may. Raise FaultError for what cannot be enforced."""

    def __init__(self, place: str, requirements: Requirements, keys: KeyCache) -> None:
        # Anonymous access comes last, so that valid credentials identify the caller.
        ordered = sorted(requirements, key=lambda item: not item)
        self.alternatives = [[Scheme(place, *pair, keys) for pair in item.items()] for item in ordered]
        self.keys, self.has_keys = keys, any(_is_key(name) for item in requirements for name in item)
        self.needs_only_keys = _needs_only_keys(requirements)
        names = dict.fromkeys(CHALLENGES[scheme.kind] for schemes in self.alternatives for scheme in schemes)
        self.challenge = ", ".join(f'{name} realm="{document.NAME}"' for name in names)

    async def authenticate(self, scope: Scope) -> None:
        """Add the name of the caller to the state of a request. Raise Refusal if no alternative is satisfied."""
        refusal: HTTPException = Refusal(401)
        for schemes in self.alternatives:
            try:
                names = [await scheme.caller(scope) for scheme in schemes]
            except HTTPException as error:
                refusal = error
                continue
            if all(names):
                if names:
                    scope["state"]["key_name"] = ", ".join(names)
                return
        if refusal.status_code == HTTPStatus.UNAUTHORIZED:
            constant = document.constant_headers(operation_id_of(scope), 401)
            refusal.headers = {"WWW-Authenticate": self.challenge, **constant, **(refusal.headers or {})}
        raise refusal


def find_access(keys: KeyCache, faults: list[str]) -> dict[str | None, Access]:
    """Return the access to each operation, and under None that to everything else; add what is faulty to `faults`."""
    found: dict[str | None, Access] = {}
    with collected(faults):
        found[None] = Access("security", document.raw().get("security", []), keys)
    for operation_id, operation in document.operations().items():
        with collected(faults):
            found[operation_id] = Access(f"{operation.place}.security", operation.description["security"], keys)
    return found


class Security:
    """The check that requires credentials, unless the operation or the route is open to everybody."""

    def __init__(self, open_routes: Sequence[BaseRoute], access: Mapping[str | None, Access]) -> None:
        self.open_routes, self.access = open_routes, access

    async def __call__(self, scope: Scope, send: Send) -> Send:
        operation_id = scope["state"].get("operation_id")
        if operation_id or all(route.matches(scope)[0] is Match.NONE for route in self.open_routes):
            access = self.access[operation_id]
            if access.has_keys and monotonic() > access.keys.fresh_until:
                await access.keys.ensure_fresh()
            if not access.needs_only_keys or (access.has_keys and access.keys.required):
                await access.authenticate(scope)
        return send


def _credentials(scope: Scope, kind: str, scheme: Mapping[str, Any]) -> Sequence[str]:
    """Return the token or key, or the user and the password, of a request; nothing if they are missing or malformed."""
    name, location = scheme.get("name", "Authorization"), scheme.get("in", "header")
    if location == "header":
        field = _field(name)
        values = [value.decode("latin-1") for key, value in scope["headers"] if key == field]
    else:
        request = HTTPConnection(scope)
        values = [request.cookies.get(name, "")] if location == "cookie" else request.query_params.getlist(name)
    found = _pattern(kind).fullmatch(values[0]) if len(values) == 1 else None
    if found and kind == "basic":
        try:
            found = USER_AND_PASSWORD.fullmatch(b64decode(found[1], validate=True).decode())
        except ValueError:
            return ()
    return found.groups() if found else ()


@cache
def _field(name: str) -> bytes:
    return name.lower().encode()


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    """Return the syntax of credentials."""
    return re.compile("([!-~]+)" if kind == "apiKey" else f"{CHALLENGES[kind]} +{TOKEN} *", re.ASCII | re.IGNORECASE)


def _author_functions() -> object:
    """Return the module `handlers/security.py`, or None if there is none."""
    return import_module("handlers.security") if find_spec("handlers.security") else None


def _kind(name: str) -> str:
    scheme = document.security_schemes().get(name, {"type": ""})
    return str(scheme.get("scheme", "http").lower() if scheme["type"] == "http" else scheme["type"])


def _is_key(name: str) -> bool:
    """Return whether the credentials of a scheme are the API keys."""
    return _kind(name) == "bearer" and not hasattr(_author_functions(), document.snake_case(name))


def _needs_only_keys(requirements: Requirements) -> bool:
    """Return whether requirements consist of API keys, so that they apply only once there is one."""
    return all(_is_key(name) for item in requirements for name in item)
