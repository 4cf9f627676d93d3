"""Says to what runs the service whether it lives, and whether it is ready for requests."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from handlers.contract import document as contract
from models.database.errors import UnavailableError
from models.database.migrate import ensure_ready


def routes() -> list[BaseRoute]:
    """Return the routes, which are beside the contract's."""
    return [Route("/health/live", _live), Route("/health/ready", _ready)]


async def _live(_: Request) -> Response:
    return _answer("live")


async def _ready(_: Request) -> Response:
    try:
        await ensure_ready()
    except Exception as error:
        # Whatever it is, others may be ready.
        raise UnavailableError(f"not ready: {error}") from error
    return _answer("ready")


def _answer(status: str) -> Response:
    return JSONResponse({"status": status}, headers=contract.constant_headers(None, 204))
