"""Measures requests, for the access log and the metrics; nothing of it is there unless one of them is wanted."""

from collections.abc import Callable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.observability import access_log
from handlers.settings import ServerSettings

# Is told of a request: what it was, the status of its answer or None if there was none, and how many seconds it took.
Observer = Callable[[Scope, int | None, float], None]


def observers(settings: ServerSettings) -> list[Observer]:
    """Return who is to be told of each request, as the settings have it."""
    wanted: list[Observer] = [access_log.write] if settings.access_log else []
    if settings.metrics:
        # Who wants no metrics need not load, and keep in memory, what counts them.
        from handlers.observability import metrics  # noqa: PLC0415

        wanted.append(metrics.count)
    return wanted


class Observation:
    """Tells the observers that the state of the application names of each request, once its answer is written.

    The connection may end a request by itself, and then says in the state of the request what it answered.
    """

    def __init__(self, next_app: ASGIApp) -> None:
        self.app = next_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status: int | None = None
        began = perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            seconds, state = perf_counter() - began, scope["state"]
            for observe in state["observers"]:
                observe(scope, state.get("answered", status), seconds)
