"""Compress the responses that the contract declares with the header `Content-Encoding` (RFC 9110, section 8.4)."""

import asyncio
import gzip
from functools import lru_cache
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from werkzeug.http import parse_accept_header

from handlers import entity_tags
from handlers.contract import document

LEVEL = 1  # level 6 takes up to five times as long, and saves at most a fifth more
THREAD_SIZE = 65_536  # bytes; compressing more would delay the event loop by more than 0.3 ms


def compressed(operation_id: str, app: ASGIApp, min_size: int) -> ASGIApp:
    """Return an operation's application that compresses responses from `min_size` bytes, or none if that is 0."""
    if not min_size or not any(map(_declares, document.responses(operation_id).values())):
        return app

    async def compress(scope: Scope, receive: Receive, send: Send) -> None:
        accepted = [value for name, value in scope["headers"] if name == b"accept-encoding"]
        if not accepted or not _prefers_gzip(b",".join(accepted)):
            await app(scope, receive, send)
            return
        start: Message = {}

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start:
                headers = MutableHeaders(scope=start)
                if (
                    len(message["body"]) >= min_size
                    and not message.get("more_body")
                    and "content-encoding" not in headers
                    and _declares(document.response(operation_id, start["status"]))
                ):
                    message = {**message, "body": await _to_gzip(message["body"])}
                    headers.update({"Content-Encoding": "gzip", "Content-Length": str(len(message["body"]))})
                    if "etag" in headers:
                        headers["ETag"] = entity_tags.of_compressed(headers["etag"])
                await send(start)
                start = {}
            await send(message)

        await app(scope, receive, send_compressed)

    return compress


@lru_cache
def _prefers_gzip(accept_encoding: bytes) -> bool:
    """Return whether the client accepts gzip, and does not prefer a response that is not compressed."""
    accepted = parse_accept_header(accept_encoding.decode("latin-1").lower().replace("x-gzip", "gzip"))
    return bool(accepted.best_match(["gzip", "identity"]) == "gzip")


def _declares(response: dict[str, Any] | None) -> bool:
    """Return whether a response of the contract may be compressed."""
    return any(name.lower() == "content-encoding" for name in (response or {}).get("headers", ()))


async def _to_gzip(body: bytes) -> bytes:
    if len(body) < THREAD_SIZE:
        return gzip.compress(body, LEVEL, mtime=0)
    # zlib releases the GIL.
    return await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)
