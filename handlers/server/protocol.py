"""The HTTP/1.1 protocol, which uvicorn's server runs.

It answers malformed and oversized requests with problem documents, limits the time for receiving and sending, passes
unknown methods on to the routing, ignores Upgrade, and closes connections on which further requests would get no
response. uvicorn's own protocol does nothing of that, and leaves little to build on.
"""

import asyncio
import re
import socket
from collections import deque
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from secrets import token_hex
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from handlers.contract import document
from handlers.server.exchange import TOKEN, Exchange, format_head, problem_response

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
ASGI = {"version": "3.0", "spec_version": "2.3"}
MAX_TARGET_BYTES: int = document.responses(None)["414"]["x-max-bytes"]
MAX_HEADERS_BYTES: int = document.responses(None)["431"]["x-max-bytes"]
REQUEST_ID = re.compile(document.raw()["components"]["headers"]["RequestId"]["schema"]["pattern"].encode())


class Expected(Enum):
    """What the client sends next."""

    REQUEST = "a new request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"


class Protocol(asyncio.Protocol):
    """A connection.

    | State     | `_reading_stopped` | `_closing_after_responses` | Ends with                                        |
    |-----------|--------------------|----------------------------|--------------------------------------------------|
    | reading   | no                 | no                         | an error, a timeout, the client's EOF, shutdown  |
    | draining  | yes                | yes                        | the last response, then a refusal if one is due  |
    | lingering | yes                | no                         | the client's EOF, or LINGER_TIMEOUT              |

    A connection without pending requests skips draining. If the client has stopped sending, the connection
    skips lingering. `timeout` is the time in seconds for receiving a request and for sending a part of a response.
    """

    transport: asyncio.Transport
    flow: FlowControl

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        timeout: float,
        max_connections: int,
    ) -> None:
        self.server_state = server_state
        self.timeout, self.keep_alive_timeout = timeout, config.timeout_keep_alive
        self.max_connections = max_connections
        self._app, self._app_state = config.loaded_app, app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._start_parser()
        self._expected = Expected.REQUEST
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        # The last exchange whose head was received; at first, one that is complete.
        self._exchange = Exchange(self, {}, keep_alive=True, expects_continue=False)
        self._exchange.response_complete = True
        self._pipeline: deque[Exchange] = deque()  # exchanges that wait for earlier ones, the last one first
        # Request ids consist of a prefix, which is unique among all connections, and a counter.
        self._request_id_prefix = token_hex(8)
        self._request_count = 0
        self._received = 0  # bytes in the segment that is being parsed
        self._pending = 0  # bytes received since the last complete head or part of a body
        self._reading_stopped = self._closing_after_responses = self._eof_received = False
        self._final_status = 0  # the status of the refusal that ends the connection; 0 for no refusal
        # Most deadlines change before they are reached, so the timer looks at the current one when it ends.
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_receiving = False  # whether the deadline is that of an incomplete request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport, self.flow = transport, FlowControl(transport)
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self._server, client = get_local_addr(transport), get_remote_addr(transport)
        # A socket for IPv6 and IPv4 reports IPv4 addresses in the form ::ffff:127.0.0.1.
        self._client = client and (client[0].removeprefix("::ffff:"), client[1])
        for option in USER_TIMEOUT:
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, int(self.timeout * 1000))
        self._set_deadline(self.keep_alive_timeout)
        if len(self.server_state.connections) > self.max_connections:
            self._stop_reading(503)

    def data_received(self, data: bytes) -> None:
        if self._reading_stopped:
            return
        self._received = len(data)
        self._pending += self._received
        if self._expected is Expected.REQUEST:
            method, space, rest = data.partition(b" ")
            if method not in METHODS and space and TOKEN.fullmatch(method):
                data = OTHER_METHOD + b" " + rest
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._stop_reading(self._size_violation() or 400)
        else:
            if self._pending > MAX_TARGET_BYTES + MAX_HEADERS_BYTES:
                self._stop_reading(self._size_violation() or 431)
        self._update_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reading_stopped = True
        self.server_state.connections.discard(self)
        # The parser and the timer keep the connection in memory.
        del self.parser
        if self._timer:
            self._timer.cancel()
        if not self._exchange.response_complete:
            self._exchange.disconnected = True
            self._exchange.notify()
        self.flow.resume_writing()

    def eof_received(self) -> bool:
        """Return whether the connection stays open until the responses to earlier requests are sent."""
        self._eof_received = True
        if not self._reading_stopped:
            self._stop_reading()
        return self._closing_after_responses

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def on_message_begin(self) -> None:
        self._expected, self._url, self._headers = Expected.HEAD, b"", []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        # The parser recognizes "chunked" before spaces, but not before tabs, so `_is_unambiguous` needs what was sent.
        self._headers.append((name, value if name == b"transfer-encoding" else value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """Start the request, or let it wait for the responses to earlier ones."""
        if self.parser.should_upgrade():
            # `_parse` leaves Upgrade out, but it counts towards the limit.
            if self._size_violation():
                raise ValueError
            return
        scheme, fields = "http", dict(self._headers)
        version = self.parser.get_http_version()
        if not self._is_unambiguous(fields, version):
            raise ValueError
        if self._url[:1] != b"/":
            scheme = self._apply_absolute_form()
        # Check the received bytes first, because it is cheap: most heads are too short to exceed a limit.
        if max(self._received, self._pending) > MAX_TARGET_BYTES and self._size_violation():
            raise ValueError
        self._pending = 0
        if b"x-forwarded-proto" in fields:
            self._normalize_forwarded_scheme()
        headers = self._headers
        # Clients should not send a fragment.
        raw_path, _, query = self._url.partition(b"#")[0].partition(b"?")
        path = raw_path.decode("ascii")
        request_id = self._request_id(headers if b"x-request-id" in fields else ())
        scope = {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "method": self.parser.get_method().decode(),
            "scheme": scheme,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": self._client,
            "server": self._server,
            "state": {**self._app_state, "request_id": request_id},
        }
        # These now take the trailer section, which must not change the request (RFC 9110, section 6.5.1).
        self._headers = []
        # HTTP/1.0 has no 100 (Continue), so ignore the expectation (RFC 9110, section 10.1.1).
        expects = b"expect" in fields and version == "1.1" and fields[b"expect"].lower() == b"100-continue"
        # A request with both headers may be an attempt at request smuggling, so close its connection (RFC 9112,
        # section 6.3). A client that waits for 100 (Continue) sends no body after a refusal, so close that one too.
        ambiguous = b"transfer-encoding" in fields and b"content-length" in fields
        keep_alive = version == "1.1" and self.parser.should_keep_alive() and not (expects or ambiguous)
        previous, self._exchange = self._exchange, Exchange(self, scope, keep_alive, expects)
        self._expected = Expected.BODY
        if previous.response_complete:
            self._start(self._exchange)
        else:
            self.flow.pause_reading()
            self._pipeline.appendleft(self._exchange)

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        exchange = self._exchange
        if not exchange.response_complete:
            exchange.body += body
            if len(exchange.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            exchange.notify()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        # After "close" in the trailer section, the parser would ignore further requests.
        if self._headers and b"connection" in dict(self._headers):
            raise ValueError
        self._expected = Expected.REQUEST
        exchange = self._exchange
        exchange.more_body = False
        exchange.notify()

    def on_response_complete(self) -> None:
        """Start the next request, or wait for one."""
        if self.transport.is_closing():
            self._pipeline.clear()
        else:
            self.flow.resume_reading()
        if self._pipeline:
            self._start(self._pipeline.pop())
        elif self._closing_after_responses:
            self._refuse_and_close()
        else:
            # Reading may have been paused while the next request was arriving, so it gets a new deadline.
            self._is_receiving = False
            self._update_deadline()

    def shutdown(self) -> None:
        """Finish all complete requests, and refuse an incomplete request, before the server stops."""
        if not self._reading_stopped and self._expected is not Expected.REQUEST:
            self._stop_reading(503)
        if self._closing_after_responses:
            return
        if self._exchange.response_complete:
            self.transport.close()
        else:
            self._exchange.keep_alive = False

    def close(self) -> None:
        """Close the connection. Wait while the client still sends, because a reset would discard the last response."""
        self._reading_stopped, self._closing_after_responses = True, False
        self._pipeline.clear()
        if self._expected is Expected.REQUEST or self._eof_received:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._set_deadline(LINGER_TIMEOUT)

    def _start(self, exchange: Exchange) -> None:
        exchange.running = self._loop.create_task(exchange.run(self._app))
        # uvicorn waits for these when it shuts down, and then cancels them.
        self.server_state.tasks.add(exchange.running)

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
                lines = [name + b": " + value + b"\r\n" for name, value in self._headers if name != b"upgrade"]
                head = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self._url, version, b"".join(lines))
                data = head + data[upgrade.args[0] :]
                self._start_parser()

    def _update_deadline(self) -> None:
        """Set the deadline for the rest of a request, or for the next one. While requests run, there is none."""
        if self._reading_stopped:
            return
        if self._expected is not Expected.REQUEST:
            if not self._is_receiving:
                self._is_receiving = True
                self._set_deadline(self.timeout)
            return
        self._is_receiving, self._deadline = False, None
        # Data that starts no request, such as empty lines, extends the time too.
        if self._exchange.response_complete:
            self._set_deadline(self.keep_alive_timeout)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._timer and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        self._timer = self._timer or self._loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)
        elif not self._is_receiving or self._reading_stopped:
            self.transport.close()
        # Reading is paused until the response to the previous request is sent.
        elif self.flow.read_paused:
            self._set_deadline(self.timeout)
        else:
            self._stop_reading(408)

    def _is_unambiguous(self, fields: dict[bytes, bytes], version: str) -> bool:
        """Return whether a head has one valid host and one valid length (RFC 9112, sections 3.2 and 6.3)."""
        if len(fields) < len(self._headers):
            names = [name for name, _ in self._headers]
            if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
                return False
        if fields.get(b"transfer-encoding", b"chunked").rstrip(b" ").lower() != b"chunked":
            return False
        versioned = version == "1.0" or (version == "1.1" and b"host" in fields)
        return versioned and match_host(fields.get(b"host", b"")) is not None

    def _apply_absolute_form(self) -> str:
        """Take scheme and host from the request target, if it has them, instead of Host (RFC 9112, section 3.2.2)."""
        if target := match_absolute_form(self._url):
            scheme, host, path = target.groups(b"")
            self._replace_header(b"host", host)
            self._url = path if path[:1] == b"/" else b"/" + path
            return scheme.lower().decode()
        if self._url[:1] != b"*":
            raise ValueError
        return "http"

    def _normalize_forwarded_scheme(self) -> None:
        """Replace X-Forwarded-Proto by its first scheme, because uvicorn does not read lists and capital letters."""
        name = b"x-forwarded-proto"
        scheme = match_forwarded_scheme(b",".join(value for header, value in self._headers if header == name))
        self._replace_header(name, scheme[1].lower() if scheme else b"")

    def _replace_header(self, name: bytes, value: bytes) -> None:
        self._headers = [header for header in self._headers if header[0] != name] + [(name, value)]

    def _size_violation(self) -> int | None:
        """Return the status for a head that is too large, or None if its size is allowed."""
        if len(self._url) > MAX_TARGET_BYTES:
            return 414
        if sum(len(name) + len(value) for name, value in self._headers) > MAX_HEADERS_BYTES:
            return 431
        return None

    def _request_id(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
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
        self._reading_stopped, self._final_status, self._deadline = True, status, None
        exchange, in_body = self._exchange, self._expected is Expected.BODY
        if in_body and self._pipeline:
            self._pipeline.popleft()
        elif in_body and exchange.response_started:
            # A response has started, so the client would read a refusal as a part of it.
            self._final_status = 0
        elif in_body:
            exchange.disconnected, exchange.expects_continue = True, False
            exchange.notify()
            exchange.status = status or None
        else:
            exchange.keep_alive &= bool(status)
        if exchange.response_complete or exchange.disconnected:
            self._refuse_and_close()
        else:
            self._closing_after_responses = True

    def _refuse_and_close(self) -> None:
        status = self._final_status
        if not status:
            self.transport.close()
            return
        in_body = self._expected is Expected.BODY
        if in_body:
            scope = self._exchange.scope
        else:
            headers = self._headers if self._expected is Expected.HEAD else []
            scope = {"state": {"request_id": self._request_id(headers)}, "scheme": "http"}
        # An exchange that is running calls the observers itself.
        if not in_body or not self._exchange.running:
            for observe in self._app_state.get("observers", ()):
                observe(scope, status, 0.0)
        headers, body = problem_response(status)
        self.transport.write(format_head(status, self.server_state.default_headers + headers, scope) + body)
        self.close()
