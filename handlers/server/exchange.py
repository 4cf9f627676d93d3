"""A request and its response, as an ASGI application receives and sends them. A head is spelled as in the contract."""

import asyncio
import logging
import re
from collections.abc import Iterable
from http import HTTPStatus
from time import perf_counter
from typing import Protocol

from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from handlers.contract import document, problems
from handlers.contract.dispatch import WITHOUT_CONTENT
from handlers.contract.scope import state_of

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a method or a header name (RFC 9110, section 5.6.2)
CONTROL_CHARACTERS = bytes({*range(32), 127} - {ord("\t")})
STATUS_LINES = {int(status): f"HTTP/1.1 {status} {status.phrase}".encode() for status in HTTPStatus}
FREQUENT_NAMES = ["Date", "Content-Type", "Content-Length", "ETag"]
# The headers of every response, and further headers of responses to requests over HTTPS.
COMMON_HEADERS, TLS_HEADERS = (
    b"".join(f"\r\n{name}: {header['schema']['default']}".encode() for name, header in headers.items())
    for headers in (document.raw()["x-headers"], document.raw()["x-headers-tls"])
)

logger = logging.getLogger(__name__)


class FieldNames(dict[bytes, bytes]):
    """The start of each header line, spelled as in the contract or an RFC, by the name in lower case."""

    def __missing__(self, name: bytes) -> bytes:
        if not TOKEN.fullmatch(name) or name != name.lower():
            raise RuntimeError("A header name is not valid, or not in lower case.")
        return b"\r\n%s: " % b"-".join(map(bytes.capitalize, name.split(b"-")))


NAMES = [*FREQUENT_NAMES, *document.header_names(None, *document.operations())]
FIELD_NAMES = FieldNames({name.lower().encode(): f"\r\n{name}: ".encode() for name in NAMES})


def format_head(status: int, headers: Iterable[tuple[bytes, bytes]], scope: Scope) -> bytes:
    """Return the head of a response, with the headers of every response. The given names are in lower case.

    Raise RuntimeError if a header is not valid.
    """
    lines = [FIELD_NAMES[name] + value for name, value in headers]
    fields = b"".join(lines)
    # The only control characters are the line break before each line.
    if len(fields.translate(None, CONTROL_CHARACTERS)) != len(fields) - 2 * len(lines):
        raise RuntimeError("A header value is not valid.")
    common = COMMON_HEADERS + TLS_HEADERS if scope["scheme"] == "https" else COMMON_HEADERS
    status_line = STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status
    return b"%b%b%b\r\nX-Request-ID: %b\r\n\r\n" % (status_line, fields, common, state_of(scope)["request_id"].encode())


def problem_response(status: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the headers and the body of a problem document after which the connection closes."""
    body = to_json(problems.problem(None, status))
    fields = document.constant_headers(None, status) | {
        "Content-Type": problems.MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    return [(name.lower().encode(), value.encode()) for name, value in fields.items()], body


class Connection(Protocol):
    """What an exchange uses of its connection."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState

    def close(self) -> None: ...

    def on_response_complete(self) -> None: ...


class Exchange:
    """A request and its response. `receive` and `send` are those of ASGI (asgi.readthedocs.io, specs/www).

    `expects_continue` says whether the client waits for 100 (Continue) before it sends the body.
    """

    def __init__(self, connection: Connection, scope: Scope, keep_alive: bool, expects_continue: bool) -> None:
        self.scope = scope
        self.running: asyncio.Task[None] | None = None  # the call of the application
        self.body = b""  # received, but not read by the application
        self.more_body = True
        self.keep_alive, self.expects_continue = keep_alive, expects_continue
        self.disconnected = self.response_started = self.response_complete = False
        self.status: int | None = None  # of the response; None if there is none
        self._connection = connection
        self._head = b""  # is sent with the first part of the body
        self._remaining: int | None = None  # bytes of the body that are not sent yet; None if the body is chunked
        # Whether `receive` has something to return, and the event that it waits for, which few requests need.
        self._has_news = False
        self._news: asyncio.Event | None = None

    async def run(self, app: ASGIApp) -> None:
        """Call the application, and then the observers. Answer 500 if the application fails."""
        started = perf_counter()
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("The application has not completed the response.")
        except BaseException:
            logger.exception("Exception in ASGI application")
            if self.response_started:
                # It is too late for another response.
                self._connection.transport.close()
            else:
                headers, body = problem_response(500)
                await self.send({"type": "http.response.start", "status": 500, "headers": headers})
                await self.send({"type": "http.response.body", "body": body})
        finally:
            self._connection.server_state.tasks.discard(self.running)
            for observe in state_of(self.scope).get("observers", ()):
                observe(self.scope, self.status, perf_counter() - started)

    def notify(self) -> None:
        """Wake `receive` after a change of the exchange."""
        self._has_news = True
        if self._news:
            self._news.set()

    async def receive(self) -> Message:
        """Return the next part of the request's body, or `http.disconnect` after the exchange."""
        if self.expects_continue and not self._connection.transport.is_closing():
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.expects_continue = False
        if not self.disconnected and not self.response_complete:
            self._connection.flow.resume_reading()
            if not self._has_news:
                self._news = self._news or asyncio.Event()
                self._news.clear()
                await self._news.wait()
            self._has_news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Send a part of the response. Hold the head back, and send it with the first part of the body."""
        if self._connection.flow.write_paused and not self.disconnected:
            await self._connection.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self.status = message["status"]
            self._head = self._start(self.status, message.get("headers", ()))
            self.response_started, self.expects_continue = True, False
            return
        data, is_last = message.get("body", b""), not message.get("more_body", False)
        if self.response_complete:
            raise RuntimeError("The response is complete already.")
        if self.scope["method"] == "HEAD":
            data = b""
        elif self._remaining is None:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n" * is_last
        else:
            self._remaining -= len(data)
            if self._remaining < 0 or (is_last and self._remaining):
                raise RuntimeError("The response does not have the length in Content-Length.")
        # If the client has sent more requests and reset the connection, only the last one is set to disconnected.
        if not self._connection.transport.is_closing():
            self._connection.transport.writelines((self._head, data))
        self._head = b""
        if is_last:
            self.response_complete = True
            self.notify()
            if not self.keep_alive:
                self._connection.close()
            self._connection.on_response_complete()

    def _start(self, status: int, own_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the head of the response. Decide how its body is framed and whether the connection stays open."""
        headers = [*self._connection.server_state.default_headers, *own_headers]
        fields = dict(headers)
        if b"transfer-encoding" in fields:
            # ASGI servers ignore the field, and decide themselves.
            headers = [header for header in headers if header[0] != b"transfer-encoding"]
        if b"content-length" in fields:
            self._remaining = int(fields[b"content-length"])
        elif self.scope["method"] == "HEAD" or status in WITHOUT_CONTENT:
            self._remaining = 0
        else:
            headers.append((b"transfer-encoding", b"chunked"))
        if b"close" in fields.get(b"connection", b"").lower():
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        return format_head(status, headers, self.scope)
