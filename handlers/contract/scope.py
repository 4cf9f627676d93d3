"""What the server, the middleware and the handlers share about a request in its ASGI scope."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.types import Scope

# Called after each request with its scope, the status of its response or None, and its duration in seconds.
Observer = Callable[[Scope, int | None, float], None]


class RequestState(TypedDict, total=False):
    """The type of `scope["state"]`."""

    observers: Sequence[Observer]  # from the lifespan of the application
    request_id: str  # set by the protocol
    refused_with: int | None  # set by the protocol when it ends a request itself: the status that it sent, if any
    key_name: str  # set by the security middleware: the name of the API key


def state_of(scope: Any) -> RequestState:
    """Return the state of a request."""
    state: RequestState = scope["state"]
    return state


def operation_id_of(scope: Scope) -> str | None:
    """Return the operation id that the routing middleware found, or None."""
    routing: dict[str, Any] = scope.get("extensions", {}).get(ROUTING_CONTEXT, {})
    return routing.get("operation_id")
