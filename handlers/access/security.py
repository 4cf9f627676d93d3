"""Lets in who has a key, once the service has keys; Connexion asks for it, as the contract's security scheme says."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from connexion.lifecycle import ConnexionRequest
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.security import SecurityMiddleware
from connexion.security import BearerSecurityHandler
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.contract.problems import Refusal
from models.keys import ring


def key_name(scope: Scope) -> str | None:
    """Return the name of the key that a request comes with, or None if it has none that is valid.

    The keys are what they were when they were last looked at, so that this does not wait for the database.
    """
    credentials = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = (credentials[0] if len(credentials) == 1 else b"").partition(b" ")
    return ring.name_of(key.strip(b" ")) if scheme.lower() == b"bearer" else None


class BearerKey(BearerSecurityHandler):
    """How Connexion checks a scheme `bearer`."""

    def get_fn(self, security_scheme: dict[str, Any], required_scopes: list[str]) -> Callable[..., Any]:
        return _verify


class Security(SecurityMiddleware):
    """Connexion's layer for security; here a service without keys is open, and some paths always are.

    Args:
        app: The next layer.
        open_routes: Those that ask for no key.
    """

    def __init__(self, app: ASGIApp, open_routes: Sequence[BaseRoute]) -> None:
        super().__init__(app)
        self.open_routes = open_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open_route(scope):
            await self.app(scope, receive, send)
            return
        if monotonic() > ring.fresh_until:
            await ring.refresh()
        if ring.required:
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_open_route(self, scope: Scope) -> bool:
        if "operation_id" in scope["extensions"][ROUTING_CONTEXT]:
            return False
        return any(route.matches(scope)[0] is not Match.NONE for route in self.open_routes)


async def _verify(request: ConnexionRequest) -> dict[str, str]:
    await ring.refresh()
    name = key_name(request.scope)
    if name is None:
        raise Refusal(401)
    request.scope["state"]["key"] = name
    return {"sub": name}
