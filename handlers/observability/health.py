"""Answer liveness and readiness probes."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from handlers.contract import document
from handlers.contract.routing import route
from models.database.address import Database
from models.database.errors import UnavailableError
from models.database.migrate import ensure_ready


def routes(database: Database) -> list[BaseRoute]:
    """Return the routes of the probes. OPTIONS, which HAProxy sends by default, reports readiness too."""
    headers = document.constant_headers(None, 204)

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"}, headers=headers)

    async def ready(_: Request) -> Response:
        try:
            await ensure_ready(database)
        except Exception as error:
            # After any failure, the load balancer must use other nodes, which may be ready.
            raise UnavailableError(f"not ready: {error}") from error
        return JSONResponse({"status": "ready"}, headers=headers)

    return [route("/health/live", live), route("/health/ready", ready)]
