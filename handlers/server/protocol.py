"""The HTTP/1.1 protocol, which extends uvicorn's.

It answers malformed and oversized requests with problem documents, limits the time for receiving and sending, passes
unknown methods on to the routing, ignores Upgrade, and closes connections on which further requests would get no
response. It builds on internals of uvicorn, so `pyproject.toml` limits uvicorn's version.
"""

import asyncio
import re
import socket
from functools import lru_cache
from secrets import token_hex
from typing import Any
from urllib.parse import unquote

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.contract import document, problems
from handlers.contract.scope import state_of
from handlers.server.response import TOKEN, Cycle, ResponseWriter, format_head

# The parser rejects unknown methods. So every method that OpenAPI 3.0 cannot describe (Path Item Object) is replaced by
# PROPFIND, and the routing then answers 405.
METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"}
OTHER_METHOD = b"PROPFIND"
# The syntax of Host (RFC 9110, section 7.2), but with less strict rules for IPv6 addresses in brackets.
HOST = rb"(?:[!$&'()*+,;=%\w.~-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
match_host = lru_cache(re.compile(HOST).fullmatch)
# The absolute form of a request target (RFC 9112, section 3.2.2). The host is not empty, and there is no userinfo.
match_absolute_form = re.compile(rb"(?i:(https?))://(?=[^:/?])(" + HOST + rb")([/?].*)?").fullmatch
# The first value of X-Forwarded-Proto. Empty list elements are ignored (RFC 9110, section 5.6.1).
match_forwarded_scheme = re.compile(rb"[ \t,]*(https?)[ \t]*(?:,.*)?", re.IGNORECASE).fullmatch
LINGER_TIMEOUT = 5  # seconds that a client may keep sending after the last response of a connection
# With this option, Linux closes a connection if the client receives nothing for the given time (man 7 tcp).
USER_TIMEOUT = [socket.TCP_USER_TIMEOUT] if hasattr(socket, "TCP_USER_TIMEOUT") else []
MAX_TARGET_BYTES: int = document.responses(None)["414"]["x-max-bytes"]
MAX_HEADERS_BYTES: int = document.responses(None)["431"]["x-max-bytes"]
REQUEST_ID = re.compile(document.raw()["components"]["headers"]["RequestId"]["schema"]["pattern"].encode())


class Protocol(HttpToolsProtocol):
    """A connection.

    | State     | `_reading_stopped` | `_closing_after_responses` | Ends with                                        |
    |-----------|--------------------|----------------------------|--------------------------------------------------|
    | reading   | no                 | no                         | an error, a timeout, the client's EOF, shutdown  |
    | draining  | yes                | yes                        | the last response, then a refusal if one is due  |
    | lingering | yes                | no                         | the client's EOF, or LINGER_TIMEOUT              |

    A connection without pending requests skips draining. If the client has stopped sending, the connection
    skips lingering. `timeout` is the time in seconds for receiving a request and for sending a part of a response.
    """

    def __init__(self, *arguments: Any, timeout: float, max_connections: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.timeout = timeout
        self.max_connections = max_connections
        self._start_parser()
        self.url = b""
        # Request ids consist of a prefix, which is unique among all connections, and a counter.
        self._request_id_prefix = token_hex(8)
        self._request_count = 0
        self._last_complete_scope: object = None  # the scope of the last request that was received completely
        self._received = 0  # bytes in the segment that is being parsed
        self._pending = 0  # bytes received since the last complete head or part of a body
        self._reading_stopped = self._closing_after_responses = self._eof_received = False
        self._final_status = 0  # the status of the refusal that ends the connection; 0 for no refusal
        self._request_timer: asyncio.TimerHandle | None = None  # runs while a request is being received

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # A socket for IPv6 and IPv4 reports IPv4 addresses in the form ::ffff:127.0.0.1.
        self.client = self.client and (self.client[0].removeprefix("::ffff:"), self.client[1])
        for option in USER_TIMEOUT:
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, int(self.timeout * 1000))
        self._close_after(self.timeout_keep_alive)
        if len(self.connections) > self.max_connections:
            self._stop_reading(503)

    def data_received(self, data: bytes) -> None:
        if self._reading_stopped:
            return
        self._unset_keepalive_if_required()
        self._received = len(data)
        self._pending += len(data)
        if self.scope is self._last_complete_scope:
            method, space, rest = data.partition(b" ")
            if space and method not in METHODS and TOKEN.fullmatch(method):
                data = OTHER_METHOD + b" " + rest
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._stop_reading(self._size_violation() or 400)
        else:
            if self._pending > MAX_TARGET_BYTES + MAX_HEADERS_BYTES:
                self._stop_reading(self._size_violation() or 431)
        self._update_timers()

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn does not stop the timer of a reset connection, and the timer keeps the connection in memory.
        self._unset_keepalive_if_required()
        self._stop_request_timer()
        if self.cycle and not self.cycle.response_started:
            state_of(self.cycle.scope).setdefault("refused_with", None)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether the connection stays open until the responses to earlier requests are sent."""
        self._eof_received = True
        if not self._reading_stopped:
            self._stop_reading()
        return self._closing_after_responses

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        # The parser recognizes "chunked" before spaces, but not before tabs, so `_is_unambiguous` needs what was sent.
        self.headers.append((name, value if name == b"transfer-encoding" else value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """Start the request, as uvicorn does, but with a `Cycle`."""
        if self.parser.should_upgrade():
            # `_parse` leaves Upgrade out, but it counts towards the limit.
            if self._size_violation():
                raise ValueError
            return
        fields = dict(self.headers)
        if not self._is_unambiguous(fields):
            raise ValueError
        if self.url[:1] != b"/":
            self._apply_absolute_form()
        # Check the received bytes first, because it is cheap: most heads are too short to exceed a limit.
        if max(self._received, self._pending) > MAX_TARGET_BYTES and self._size_violation():
            raise ValueError
        self._pending = 0
        if b"x-forwarded-proto" in fields:
            self._normalize_forwarded_scheme()
        scope, version = self.scope, self.parser.get_http_version()
        state_of(scope)["request_id"] = self._request_id(self.headers if b"x-request-id" in fields else [])
        # `self.headers` now takes the trailer section, which must not change the request (RFC 9110, section 6.5.1).
        self.headers = []
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["http_version"], scope["method"] = version, self.parser.get_method().decode()
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = url.path, url.query or b""
        # HTTP/1.0 has no 100 (Continue), so ignore the expectation (RFC 9110, section 10.1.1).
        expects = version == "1.1" and fields.get(b"expect", b"").lower() == b"100-continue"
        # A request with both headers may be an attempt at request smuggling, so close its connection (RFC 9112,
        # section 6.3). A client that waits for 100 (Continue) sends no body after a refusal, so close that one too.
        ambiguous = b"transfer-encoding" in fields and b"content-length" in fields
        keep_alive = version == "1.1" and self.parser.should_keep_alive() and not (expects or ambiguous)
        previous = self.cycle
        # A cycle only uses the methods of a transport that the writer has.
        writer: Any = ResponseWriter(self.transport, self.transport.close if keep_alive else self._close)
        self.cycle = Cycle(
            scope=scope,
            transport=writer,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        # After "close" in the trailer section, the parser would ignore further requests.
        if self.headers and b"connection" in dict(self.headers):
            raise ValueError
        self._last_complete_scope = self.scope
        super().on_message_complete()

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        # uvicorn may have paused reading while the next request was arriving, so restart its timer.
        if self._request_timer:
            self._stop_request_timer()
            self._update_timers()
        if last and self._closing_after_responses:
            self._refuse_and_close()
        elif self._reading_stopped and last:
            # uvicorn has replaced the timer of a lingering connection.
            self._close_after(LINGER_TIMEOUT)

    def shutdown(self) -> None:
        """Finish all complete requests, and refuse an incomplete request, before the server stops."""
        if not self._reading_stopped and self.scope is not self._last_complete_scope:
            self._stop_reading(503)
        if not self._closing_after_responses:
            super().shutdown()

    def _start_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        # The parser skips what follows "Connection: close" instead of failing, as in uvicorn.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True, lenient_chunked_length=True)

    def _parse(self, data: bytes) -> None:
        """Parse received bytes. Ignore Upgrade, because the service speaks HTTP/1.1 only (RFC 9110, section 7.8).

        The parser stops after a head with Upgrade. Then a new parser gets this head again, without Upgrade.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # The parser treats CONNECT as an upgrade too.
                method = self.parser.get_method() if self.parser.get_method() in METHODS else OTHER_METHOD
                version = self.parser.get_http_version().encode()
                lines = [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
                head = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(lines))
                data = head + data[upgrade.args[0] :]
                self._start_parser()

    def _close_after(self, seconds: float) -> None:
        """Close the connection after this many seconds, unless the client sends a request before then."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _update_timers(self) -> None:
        """Run the request timer while a request is being received, and the keep-alive timer between requests."""
        if self.scope is not self._last_complete_scope and not self._reading_stopped:
            if not self._request_timer:
                self._request_timer = self.loop.call_later(self.timeout, self._time_out)
            return
        self._stop_request_timer()
        # Data that starts no request, such as empty lines, has stopped the keep-alive timer, so restart it.
        if not self._reading_stopped and (not self.cycle or self.cycle.response_complete):
            self._close_after(self.timeout_keep_alive)

    def _stop_request_timer(self) -> None:
        if self._request_timer:
            self._request_timer.cancel()
            self._request_timer = None

    def _time_out(self) -> None:
        self._request_timer = None
        # uvicorn may have paused reading until the response to the previous request is sent.
        if self.flow.read_paused or self._reading_stopped:
            self._update_timers()
        else:
            self._stop_reading(408)

    def _is_unambiguous(self, fields: dict[bytes, bytes]) -> bool:
        """Return whether a head has one valid host and one valid length (RFC 9112, sections 3.2 and 6.3)."""
        if len(fields) < len(self.headers):
            names = [name for name, _ in self.headers]
            if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
                return False
        if fields.get(b"transfer-encoding", b"chunked").rstrip(b" ").lower() != b"chunked":
            return False
        version = self.parser.get_http_version()
        versioned = version == "1.0" or (version == "1.1" and b"host" in fields)
        return versioned and match_host(fields.get(b"host", b"")) is not None

    def _apply_absolute_form(self) -> None:
        """Take scheme and host from the request target, if it has them, instead of Host (RFC 9112, section 3.2.2)."""
        if target := match_absolute_form(self.url):
            scheme, host, path = target.groups(b"")
            self.scope["scheme"] = scheme.lower().decode()
            self._replace_header(b"host", host)
            self.url = path if path[:1] == b"/" else b"/" + path
        elif self.url[:1] != b"*":
            raise ValueError

    def _normalize_forwarded_scheme(self) -> None:
        """Replace X-Forwarded-Proto by its first scheme, because uvicorn does not read lists and capital letters."""
        name = b"x-forwarded-proto"
        scheme = match_forwarded_scheme(b",".join(value for header, value in self.headers if header == name))
        self._replace_header(name, scheme[1].lower() if scheme else b"")

    def _replace_header(self, name: bytes, value: bytes) -> None:
        # Change the list itself, because the scope has it too.
        self.headers[:] = [header for header in self.headers if header[0] != name] + [(name, value)]

    def _size_violation(self) -> int | None:
        """Return the status for a head that is too large, or None if its size is allowed."""
        if len(self.url) > MAX_TARGET_BYTES:
            return 414
        if sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADERS_BYTES:
            return 431
        return None

    def _request_id(self, headers: list[tuple[bytes, bytes]]) -> str:
        """Return the client's X-Request-ID if it is valid, otherwise a new unique id."""
        given = [value for name, value in headers if name == b"x-request-id"]
        if len(given) == 1 and REQUEST_ID.fullmatch(given[0]):
            return given[0].decode()
        self._request_count += 1
        return f"{self._request_id_prefix}-{self._request_count:x}"

    def _stop_reading(self, status: int = 0) -> None:
        """Stop reading, and close the connection after the responses to all complete requests.

        Before closing, send a refusal with this status, unless the status is 0.
        """
        self._reading_stopped, self._final_status = True, status
        in_body = self.scope is not self._last_complete_scope and "path" in self.scope
        if in_body and self.pipeline:
            self.pipeline.popleft()
        elif in_body and self.cycle.response_started:
            # A response has started, so the client would read a refusal as a part of it.
            self._final_status = 0
        elif in_body:
            self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
            self.cycle.message_event.set()
            # The request has reached the application, whose observers need the status.
            state_of(self.scope)["refused_with"] = status or None
        elif self.cycle:
            self.cycle.keep_alive &= bool(status)
        if not self.cycle or self.cycle.response_complete or self.cycle.disconnected:
            self._refuse_and_close()
        else:
            self._closing_after_responses = True

    def _refuse_and_close(self) -> None:
        status = self._final_status
        if not status:
            self.transport.close()
            return
        scope: Any = self.scope
        if scope is self._last_complete_scope:
            scope = {"state": {}, "headers": [], "scheme": self.scheme}
        state = state_of(scope)
        state.setdefault("request_id", self._request_id(scope["headers"]))
        if "refused_with" not in state:
            for observe in self.app_state.get("observers", ()):
                observe(scope, status, 0.0)
        body = to_json(problems.problem(None, status))
        fields = document.constant_headers(None, status) | {
            "Content-Type": problems.MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        self.transport.write(format_head(status, self.server_state.default_headers + headers, scope) + body)
        self._close()

    def _close(self) -> None:
        """Close the connection. Wait while the client still sends, because a reset would discard the last response."""
        self._reading_stopped, self._closing_after_responses = True, False
        self.pipeline.clear()
        if self.scope is self._last_complete_scope or self._eof_received:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._close_after(LINGER_TIMEOUT)
