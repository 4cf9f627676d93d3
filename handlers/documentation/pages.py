"""Publish the contract, Swagger UI to read it and try it out, and the contract tests."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from handlers import entity_tags
from handlers.access.security import without_keys
from handlers.contract import document
from handlers.contract.public_url import base_url
from handlers.contract.reply import Reply
from handlers.contract.routing import route
from models.database.errors import UnavailableError
from models.keys import KeyCache

PATH = "/docs"
YAML, JSON = "/openapi.yaml", "/openapi.json"
ASSETS = Path(__file__).with_name("swagger_ui")
# In the published contract, the URL of the server that publishes it replaces this one.
URL_OF_THIS_SERVER = "https://url-of-this-server.invalid/"
# Swagger UI draws its icons as data URLs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes(keys: KeyCache) -> list[BaseRoute]:
    """Return the routes of all pages."""
    contract = document.raw()
    first, *others = contract.get("servers") or [{}]
    kept = {key: value for key, value in first.items() if key != "variables"}
    contract = {**contract, "servers": [{**kept, "url": URL_OF_THIS_SERVER}, *others]}
    index = (ASSETS / "index.html").read_text("utf-8").replace("{title}", escape(contract["info"]["title"]))
    index = index.replace("{base_path}", escape(document.base_path()))
    tests = [path for path in document.TESTS.iterdir() if path.is_file()]
    to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    @cache
    def published(path: str, with_keys: bool) -> list[bytes]:
        """Return the contract, split around the URL of the server. Writing YAML takes 20 ms."""
        version, url = contract if with_keys else without_keys(contract), URL_OF_THIS_SERVER.encode()
        return document.to_yaml(version).split(url) if path == YAML else to_json(version).encode().split(b'"%b"' % url)

    async def contract_page(request: Request) -> Response:
        # While the database is unavailable, use the last known state of the API keys.
        with suppress(UnavailableError):
            await keys.ensure_fresh()
        path: str = request.scope["path"]
        # A string in JSON is one in YAML too.
        server = to_json((base_url(request.scope) + document.base_path()) or "/").encode()
        content = server.join(published(path, keys.required))
        return _respond(request, content, path.replace("/openapi.", "application/"))

    return [
        route("/", _redirect(PATH.removeprefix("/"))),
        route(PATH, _page(index.encode(), "text/html", {"Content-Security-Policy": CONTENT_SECURITY_POLICY})),
        route(f"{PATH}/", _redirect(f"..{PATH}")),
        Mount(f"{PATH}/assets", StaticFiles(directory=ASSETS)),
        *(route(path, contract_page) for path in (YAML, JSON)),
        *(route(f"{PATH}/contract/{path.name}", _page(path.read_bytes(), "text/plain", {})) for path in tests),
    ]


def _redirect(url: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that redirects to a relative URL, which works under any prefix of a proxy."""

    async def redirect(_: Request) -> Response:
        return RedirectResponse(url)

    return redirect


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
