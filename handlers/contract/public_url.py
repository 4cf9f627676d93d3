"""The URL under which clients reach the service, in the URLs that responses contain."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.contract.scope import state_of

FIELDS = {b"location", b"content-location", b"link"}
# The start of a path in a header field, or of a link in a list. Two slashes start a host (RFC 3986, section 4.2).
PATH = re.compile(rb"(^<?|,\s*<)(?=/(?!/))")


def base_url(scope: Scope) -> str:
    """Return the public URL, or else the scheme and host of the request. It is empty if there is no Host header."""
    if public_url := state_of(scope).get("public_url"):
        return public_url
    host = next((value.decode() for name, value in scope["headers"] if name == b"host"), "")
    return f"{scope['scheme']}://{host}" if host else ""


class PublicUrl:
    """Middleware that completes the paths in Location, Content-Location and Link with the public URL."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self.app, self.replacement = app, rb"\g<1>" + public_url.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, self._completed(value) if name in FIELDS else value) for name, value in message["headers"]
                ]
            await send(message)

        await self.app(scope, receive, send_completed)

    def _completed(self, value: bytes) -> bytes:
        # Most values are complete, and the regular expression would take 4 µs to find that out.
        return PATH.sub(self.replacement, value) if value.startswith(b"/") or b"</" in value else value
