"""Publishes the contract, Swagger UI to read it and try it out, and the tests that hold a deployment against it."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from handlers import entity_tags
from handlers.contract import document as contract
from handlers.contract.reply import Reply
from handlers.settings import ServerSettings
from models.database.errors import UnavailableError
from models.keys import ring

PATH = "/docs"
ASSETS = Path(__file__).with_name("swagger_ui")
# Swagger UI draws its icons as data URLs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes(settings: ServerSettings) -> list[BaseRoute]:
    """Return the routes of what is published, as the settings have it."""
    closed, document = contract.PATH.read_text(), contract.document()
    if settings.public_url:
        closed = _with(closed, ("servers", 0, "url"), json.dumps(settings.public_url))
        first, *others = document["servers"]
        document = {**document, "servers": [{**first, "url": settings.public_url}, *others]}
    # There are no keys to ask for.
    opened = _with(closed, ("security",), "[]")
    closed_json, opened_json = _as_json(document), _as_json({**document, "security": []})
    return [
        Route("/", _root),
        Route(PATH, _page),
        Mount(f"{PATH}/assets", StaticFiles(directory=ASSETS)),
        Route("/openapi.yaml", _contract(closed.encode(), opened.encode(), "application/yaml")),
        Route("/openapi.json", _contract(closed_json, opened_json, "application/json")),
        *(
            Route(f"{PATH}/contract/{path.name}", _document(path.read_bytes(), "text/plain; charset=utf-8"))
            for path in contract.TESTS.iterdir()
            if path.is_file()
        ),
    ]


async def _root(_: Request) -> Response:
    return RedirectResponse(PATH)


async def _page(request: Request) -> Response:
    page = (ASSETS / "index.html").read_bytes()
    response = _answer(request, page, "text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


def _contract(closed: bytes, opened: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        # Where the database is out of reach, nobody can be let in either, and what was known last is said.
        with suppress(UnavailableError):
            await ring.refresh()
        return _answer(request, closed if ring.required else opened, media_type)

    return endpoint


def _document(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return _answer(request, content, media_type)

    return endpoint


def _answer(request: Request, content: bytes, media_type: str) -> Response:
    """Return the content with its entity tag, or only that it is what the caller has."""
    reply = Reply(content, {"ETag": f'"{sha256(content).hexdigest()[:32]}"', "Cache-Control": "no-cache"}, 200)
    known = ", ".join(request.headers.getlist("If-None-Match")) or None
    reply = entity_tags.unless_known(reply, known)
    return Response(reply.body, reply.status or 200, reply.headers, media_type if reply.body else None)


def _as_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _with(text: str, path: tuple[str | int, ...], value: str) -> str:
    """Return a YAML document with another value at one place, and everything else as it was."""
    node: Any = yaml.compose(text, yaml.CSafeLoader)
    for step in path:
        if isinstance(node, yaml.MappingNode):
            node = next(child for name, child in node.value if name.value == step)
        else:
            node = node.value[step]
    start, end = node.start_mark.index, node.end_mark.index
    # A block ends where what follows it begins.
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    return text[:start] + value + text[end:]
