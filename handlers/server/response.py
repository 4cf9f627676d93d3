"""Write responses: each head in one piece with the first part of its body, with the header names of the contract.

It builds on internals of uvicorn, so `pyproject.toml` limits uvicorn's version.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from handlers.contract import document
from handlers.contract.dispatch import WITHOUT_CONTENT
from handlers.contract.scope import state_of

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a method or a header name (RFC 9110, section 5.6.2)
CONTROL_CHARACTERS = bytes({*range(32), 127} - {ord("\t")})
FREQUENT_NAMES = ["Date", "Content-Type", "Content-Length", "ETag"]
# The headers of every response, and further headers of responses to requests over HTTPS.
COMMON_HEADERS, TLS_HEADERS = (
    b"".join(f"\r\n{name}: {header['schema']['default']}".encode() for name, header in headers.items())
    for headers in (document.raw()["x-headers"], document.raw()["x-headers-tls"])
)


class FieldNames(dict[bytes, bytes]):
    """The start of each header line, spelled as in the contract or an RFC, by the name in lower case."""

    def __missing__(self, name: bytes) -> bytes:
        if not TOKEN.fullmatch(name) or name != name.lower():
            raise RuntimeError("A header name is not valid, or not in lower case.")
        return b"\r\n%s: " % b"-".join(map(bytes.capitalize, name.split(b"-")))


NAMES = [*FREQUENT_NAMES, *document.header_names(None, *document.operations())]
FIELD_NAMES = FieldNames({name.lower().encode(): f"\r\n{name}: ".encode() for name in NAMES})


def format_head(status: int, headers: list[tuple[bytes, bytes]], scope: Mapping[str, Any]) -> bytes:
    """Return the head of a response, with the headers of every response. The given names are in lower case.

    Raise RuntimeError if a header is not valid.
    """
    lines = [FIELD_NAMES[name] + value for name, value in headers]
    fields = b"".join(lines)
    # The only control characters are the line break before each line.
    if len(fields.translate(None, CONTROL_CHARACTERS)) != len(fields) - 2 * len(lines):
        raise RuntimeError("A header value is not valid.")
    common = COMMON_HEADERS + TLS_HEADERS if scope["scheme"] == "https" else COMMON_HEADERS
    request_id = state_of(scope)["request_id"].encode()
    return b"".join((STATUS_LINE[status][:-2], fields, common, b"\r\nX-Request-ID: ", request_id, b"\r\n\r\n"))


class ResponseWriter:
    """The transport that uvicorn writes a response to. It sends the head together with the first part of the body.

    uvicorn calls `close` to end the connection after the response.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.is_closing = transport.is_closing
        self.close = close
        self.head = b""
        self._transport = transport

    def write(self, data: bytes) -> None:
        # If the client has sent more requests and reset the connection, uvicorn sets only the last one to disconnected.
        if not self.is_closing():
            self._transport.writelines((self.head, data))
        self.head = b""


class Cycle(RequestResponseCycle):
    """A request and its response.

    uvicorn would check each header by itself, spell its name in lower case, and write the head and the body separately.
    """

    # The protocol passes a writer, which is not a subclass of the transport that uvicorn declares.
    transport: ResponseWriter  # type: ignore[assignment]

    async def send(self, message: Any) -> None:
        """Send a part of the response. Hold the head back, and send it together with the next part."""
        if self.response_started or self.disconnected or message["type"] != "http.response.start":
            await super().send(message)
        else:
            self.transport.head = self._head(message["status"], [*self.default_headers, *message.get("headers", ())])
            self.response_started, self.waiting_for_100_continue = True, False
            if self.scope["method"] == "HEAD":
                self.transport.write(b"")

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the head of the response. Decide how its body is framed and whether the connection stays open."""
        fields = dict(headers)
        if b"transfer-encoding" in fields:
            # ASGI servers ignore the field, and decide themselves.
            headers = [header for header in headers if header[0] != b"transfer-encoding"]
        if b"content-length" in fields:
            self.expected_content_length, self.chunked_encoding = int(fields[b"content-length"]), False
        elif self.scope["method"] != "HEAD" and status not in WITHOUT_CONTENT:
            self.chunked_encoding = True
            headers.append((b"transfer-encoding", b"chunked"))
        if b"close" in fields.get(b"connection", b"").lower():
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        return format_head(status, headers, self.scope)
