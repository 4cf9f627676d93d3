"""Publishes the contract, and Swagger UI to read it and try it out."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from handlers import contract

PATH = "/docs"
ASSETS = Path(__file__).with_name("swagger_ui")
# Swagger UI draws its icons as data URLs.
CONTENT_SECURITY_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"


async def _root(_: Request) -> Response:
    return RedirectResponse(PATH)


async def _page(_: Request) -> Response:
    return FileResponse(ASSETS / "index.html", headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


async def _yaml(_: Request) -> Response:
    return FileResponse(contract.PATH, media_type="application/yaml")


async def _json(_: Request) -> Response:
    return JSONResponse(contract.document())


ROUTES = [
    Route("/", _root),
    Route(PATH, _page),
    Mount(f"{PATH}/assets", StaticFiles(directory=ASSETS)),
    Route("/openapi.yaml", _yaml),
    Route("/openapi.json", _json),
]
