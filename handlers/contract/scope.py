"""The part of a request's ASGI scope that the server, the middleware and the handlers share."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from starlette.types import Scope

# An observer is called after each request, with the scope, the status of the response (None if there was no
# response) and the duration in seconds.
Observer = Callable[[Scope, int | None, float], None]


class RequestState(TypedDict, total=False):
    """The type of `scope["state"]`."""

    observers: Sequence[Observer]  # from the lifespan of the application
    public_url: str  # from the lifespan of the application; empty if it is not set
    request_id: str  # set by the protocol
    operation_id: str | None  # set by the routing; None if the path has no operation for the method
    key_name: str  # set by the security middleware: the name of the API key


def state_of(scope: Any) -> RequestState:
    """Return the state of a request."""
    state: RequestState = scope["state"]
    return state


def operation_id_of(scope: Scope) -> str | None:
    """Return the operation id that the routing found, or None."""
    return state_of(scope).get("operation_id")
