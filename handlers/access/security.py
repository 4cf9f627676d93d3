"""Require an API key once the service has keys.

Connexion's `SecurityMiddleware` enforces the contract's security schemes. This module replaces its check of bearer
tokens, and lets every request pass while the service has no keys.
"""

from collections.abc import Callable, Sequence
from typing import Any

from connexion.lifecycle import ConnexionRequest
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.security import SecurityMiddleware
from connexion.security import BearerSecurityHandler
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract.problems import Refusal
from handlers.contract.scope import state_of
from models.keys import KeyCache


def key_name_of(scope: Scope, keys: KeyCache) -> str | None:
    """Return the name of the API key that a request presents, or None if it presents no valid one."""
    credentials = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = (credentials[0] if len(credentials) == 1 else b"").partition(b" ")
    return keys.name_of(key.strip(b" ")) if scheme.lower() == b"bearer" else None


class BearerKey(BearerSecurityHandler):
    """Connexion's handler of `bearer` security schemes, which here accepts API keys."""

    def __init__(self, keys: KeyCache) -> None:
        self.keys = keys

    def get_fn(self, security_scheme: dict[str, Any], required_scopes: list[str]) -> Callable[..., Any]:
        return self._verify

    async def _verify(self, request: ConnexionRequest) -> dict[str, str]:
        name = key_name_of(request.scope, self.keys)
        if name is None:
            raise Refusal(401)
        state_of(request.scope)["key_name"] = name
        return {"sub": name}


class Security(SecurityMiddleware):
    """Middleware that requires an API key, unless the service has no keys or the route is open to everybody."""

    def __init__(self, app: ASGIApp, keys: KeyCache, open_routes: Sequence[BaseRoute]) -> None:
        super().__init__(app)
        self.keys = keys
        self.open_routes = open_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http":
            is_operation = "operation_id" in scope["extensions"][ROUTING_CONTEXT]
            if is_operation or all(route.matches(scope)[0] is Match.NONE for route in self.open_routes):
                await self.keys.ensure_fresh()
                if self.keys.required:
                    app = super().__call__
        await app(scope, receive, send)
