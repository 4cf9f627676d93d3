"""Measure requests for the access log and the metrics."""

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.scope import state_of


class Observation:
    """Middleware that calls the observers, which are in the request's state, after each response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, started = None, perf_counter()

        async def send_and_record(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, send_and_record)
        finally:
            seconds, state = perf_counter() - started, state_of(scope)
            for observe in state["observers"]:
                # The protocol may have ended the request with its own response.
                observe(scope, state.get("refused_with", status), seconds)
