"""Publish the contract, Swagger UI to read it and try it out, and the contract tests."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from handlers import entity_tags
from handlers.access.security import without_keys
from handlers.contract import document
from handlers.contract.reply import Reply
from models.database.errors import UnavailableError
from models.keys import KeyCache

PATH = "/docs"
ASSETS = Path(__file__).with_name("swagger_ui")
# Swagger UI draws its icons as data URLs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes(public_url: str, keys: KeyCache) -> list[BaseRoute]:
    """Return the routes of all pages. A public URL replaces the URL of the first server in the contract."""
    contract = document.raw()
    if public_url:
        first, *others = contract.get("servers") or [{}]
        kept = {key: value for key, value in first.items() if key != "variables"}
        contract = {**contract, "servers": [{**kept, "url": public_url + document.base_path()}, *others]}
    index = (ASSETS / "index.html").read_text().replace("{title}", escape(contract["info"]["title"])).encode()
    tests = [path for path in document.TESTS.iterdir() if path.is_file()]
    to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    open_contract = without_keys(contract)
    # The first version is published if API keys exist, the second if there are none.
    published = {
        "/openapi.yaml": (document.to_yaml(contract), document.to_yaml(open_contract)),
        "/openapi.json": (to_json(contract).encode(), to_json(open_contract).encode()),
    }

    async def contract_page(request: Request) -> Response:
        # While the database is unavailable, use the last known state of the API keys.
        with suppress(UnavailableError):
            await keys.ensure_fresh()
        path: str = request.scope["path"]
        return _respond(request, published[path][not keys.required], path.replace("/openapi.", "application/"))

    return [
        Route("/", RedirectResponse(PATH), methods=["GET"]),
        Route(PATH, _page(index, "text/html", {"Content-Security-Policy": CONTENT_SECURITY_POLICY})),
        Mount(f"{PATH}/assets", StaticFiles(directory=ASSETS)),
        *(Route(path, contract_page) for path in published),
        *(Route(f"{PATH}/contract/{path.name}", _page(path.read_bytes(), "text/plain", {})) for path in tests),
    ]


def _page(content: bytes, media_type: str, headers: Mapping[str, str]) -> Callable[[Request], Awaitable[Response]]:
    async def page(request: Request) -> Response:
        response = _respond(request, content, media_type)
        response.headers.update(headers)
        return response

    return page


def _respond(request: Request, content: bytes, media_type: str) -> Response:
    """Return the content, or 304 if the client already has it."""
    reply = Reply(content, {"ETag": entity_tags.of_content(content), "Cache-Control": "no-cache"}, 200)
    if_none_match = ", ".join(request.headers.getlist("If-None-Match")) or None
    reply = entity_tags.not_modified_or(reply, if_none_match)
    return Response(reply.body, reply.status or 200, reply.headers, media_type if reply.body else None)
