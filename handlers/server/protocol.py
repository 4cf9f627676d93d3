"""HTTP/1.1 as uvicorn reads it, and what uvicorn leaves open.

What is no request gets a problem like every other refusal, after the answers to the requests before it. Heads have an
end, requests and answers a time to arrive in, every method gets to the routing, and no connection stays open on which a
further request would go unanswered. Each answer gets the header fields that all of them have.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import count
from secrets import token_hex
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from handlers.contract import document as contract
from handlers.contract import problems

# The parser refuses a request with a method that it does not know, though it may be well-formed. For it, all methods
# but those that a contract can have (OpenAPI 3.0.3, Path Item Object) are one that no contract has.
METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"}
OTHER_METHOD = b"PROPFIND"
CONTINUE = b"HTTP/1.1 100 "
# As RFC 9110, section 7.2, has it; looser than the RFC on what stands between brackets.
HOST_FIELD = re.compile(rb"([!$&'()*+,;=%\w.~-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# How many seconds a caller may go on sending to a connection that has given its last answer.
LINGER = 5

MAX_TARGET_BYTES: int = contract.responses(None)["414"]["x-max-bytes"]
MAX_HEADERS_BYTES: int = contract.responses(None)["431"]["x-max-bytes"]

# Linux ends a connection whose other side has taken nothing of an answer for so many milliseconds (man 7 tcp).
USER_TIMEOUT = [socket.TCP_USER_TIMEOUT] if hasattr(socket, "TCP_USER_TIMEOUT") else []

# What every answer has, and what it has behind TLS.
FIELDS, FIELDS_OF_TLS = (
    b"".join(f"{name.lower()}: {header['schema']['default']}\r\n".encode() for name, header in headers.items())
    for headers in (contract.document()["x-headers"], contract.document()["x-headers-tls"])
)

REQUEST_ID = re.compile(contract.document()["components"]["headers"]["RequestId"]["schema"]["pattern"].encode())
# No other process has the first part, and no other request of this one the second.
PROCESS = token_hex(8)
_numbers = count(1)


@lru_cache
def _names_host(field: bytes) -> bool:
    return HOST_FIELD.fullmatch(field) is not None


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the name of a request: the one that its own header fields give it, or else one that no other has."""
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and REQUEST_ID.fullmatch(given[0]):
        return given[0].decode()
    return f"{PROCESS}-{next(_numbers):x}"


class Answer:
    """What an answer is written to: its head goes out together with the first piece of its body.

    uvicorn writes one after the other, and each write to a socket takes as long as a tenth of a request.

    Args:
        transport: The connection.
        close: How to end it after the answer.
        scope: The request.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None], scope: Mapping[str, Any]) -> None:
        self.is_closing = transport.is_closing
        self.close = close
        self._transport = transport
        self._scope = scope
        self._head = b""
        self._head_is_next = True

    def write(self, data: bytes) -> None:
        """Write a piece of the answer, or keep it until the next piece is there."""
        if self._head_is_next and not data.startswith(CONTINUE):
            self._head_is_next = False
            fields = FIELDS + FIELDS_OF_TLS if self._scope["scheme"] == "https" else FIELDS
            name = self._scope["state"]["request_id"].encode()
            # Here and not as headers of the message, each of which uvicorn looks at in every answer.
            self._head = b"".join((data[:-2], fields, b"x-request-id: ", name, b"\r\n\r\n"))
            if self._scope["method"] != "HEAD":
                return
            data = b""
        self._transport.writelines((self._head, data))
        self._head = b""


class Protocol(HttpToolsProtocol):
    """A connection; uvicorn makes one of each.

    Args:
        patience: For how many seconds a request may arrive, and an answer be stuck.
        max_connections: How many connections there may be at the same time.
        arguments, options: Those of uvicorn.
    """

    def __init__(self, *arguments: Any, patience: float, max_connections: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.patience = patience
        self.max_connections = max_connections
        self.parser.set_dangerous_leniencies(lenient_chunked_length=True)
        self.url = b""
        self._complete: object = None  # the scope of the last request that was read to its end
        self._received = 0  # bytes in the piece that is being read
        self._pending = 0  # bytes since a head or a piece of a body was complete
        self._deaf = False  # whether what arrives is no longer read
        self._ended = False  # whether the caller has said that nothing more will come
        self._waits = False  # whether requests are to be answered before the connection ends
        self._status = 0  # of the refusal that it then ends with
        self._arrival: asyncio.TimerHandle | None = None  # ends the patience with a request that is arriving

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        for option in USER_TIMEOUT:
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, int(self.patience * 1000))
        self._await_request()
        if len(self.connections) > self.max_connections:
            self._finish(503)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._received = len(data)
        self._pending += len(data)
        if self.scope is self._complete:
            method, space, rest = data.partition(b" ")
            if space and method not in METHODS and TOKEN.fullmatch(method):
                data = OTHER_METHOD + b" " + rest
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._finish()
        except httptools.HttpParserError:
            self._finish(self._excess() or 400)
        else:
            if self._pending > MAX_TARGET_BYTES + MAX_HEADERS_BYTES:
                self._finish(self._excess() or 431)
        self._mind_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn leaves the timer of a connection that was reset running, and with it keeps all that it knows of it.
        self._unset_keepalive_if_required()
        self._stop_arrival()
        if self.cycle and not self.cycle.response_started:
            self.cycle.scope["state"].setdefault("answered", None)
        super().connection_lost(exc)

    # uvicorn narrows what asyncio lets it return to None.
    def eof_received(self) -> bool:  # type: ignore[override]
        """Say whether a caller that has nothing more to say still waits for an answer."""
        self._ended = True
        if not self._deaf:
            self._finish()
        return self._waits

    def on_headers_complete(self) -> None:
        # Most heads are so short that nothing in them can be too long.
        if max(self._received, self._pending) > MAX_TARGET_BYTES and self._excess():
            raise ValueError
        self._pending = 0
        fields = dict(self.headers)
        if not self._is_unambiguous(fields):
            raise ValueError
        self.scope["state"]["request_id"] = request_id(self.headers if b"x-request-id" in fields else ())
        super().on_headers_complete()
        # A body with both may be read, but it is the last of its connection (RFC 9112, section 6.3). And a caller who
        # waits to be told to continue, and is refused, does not send its body.
        if self.expect_100_continue or (b"transfer-encoding" in fields and b"content-length" in fields):
            self.cycle.keep_alive = False
        close = self.transport.close if self.cycle.keep_alive else self._close
        answer = Answer(self.transport, close, self.scope)
        self.cycle.transport = cast(asyncio.Transport, answer)

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._complete = self.scope
        super().on_message_complete()

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        # Until now uvicorn may have read nothing of the next request.
        if self._arrival:
            self._stop_arrival()
            self._mind_arrival()
        if last and self._waits:
            self._end()

    def _await_request(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _mind_arrival(self) -> None:
        """Let the time run for a request that has begun to arrive, until it is there."""
        if self.scope is not self._complete and not self._deaf:
            if not self._arrival:
                self._arrival = self.loop.call_later(self.patience, self._give_up)
            return
        self._stop_arrival()
        # What begins no request, such as empty lines, is no reason to wait longer than for nothing.
        if not self._deaf and (not self.cycle or self.cycle.response_complete):
            self._await_request()

    def _stop_arrival(self) -> None:
        if self._arrival:
            self._arrival.cancel()
            self._arrival = None

    def _give_up(self) -> None:
        self._arrival = None
        # As long as a request before it is answered, uvicorn may read nothing more.
        if self.flow.read_paused or self._deaf:
            self._mind_arrival()
        else:
            self._finish(408)

    def shutdown(self) -> None:
        """Answer what has arrived, and refuse what has not, before the service ends."""
        if not self._deaf and self.scope is not self._complete:
            self._finish(503)
        if not self._waits:
            super().shutdown()

    def _is_unambiguous(self, fields: dict[bytes, bytes]) -> bool:
        """Return whether a head says for whom and how long the request is (RFC 9112, sections 3.2 and 6.3)."""
        if len(fields) < len(self.headers):
            names = [name for name, _ in self.headers]
            if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
                return False
        if fields.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            return False
        if not _names_host(fields.get(b"host", b"")):
            return False
        version = self.parser.get_http_version()
        return version == "1.0" or (version == "1.1" and b"host" in fields)

    def _excess(self) -> int | None:
        """Return the status for a head that is too large."""
        if len(self.url) > MAX_TARGET_BYTES:
            return 414
        if sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADERS_BYTES:
            return 431
        return None

    def _finish(self, status: int = 0) -> None:
        """Read nothing more, and end the connection as soon as every request that was read to its end is answered.

        Args:
            status: Of the refusal to end with; 0 for none.
        """
        self._deaf, self._status = True, status
        in_body = self.scope is not self._complete and "path" in self.scope
        if in_body and self.pipeline:
            self.pipeline.popleft()
            self._waits = True
        elif in_body and self.cycle.response_complete:
            self.transport.close()
        elif in_body and self.cycle.response_started:
            # A refusal in the midst of an answer would be taken for a part of it.
            self._status, self._waits = 0, True
        elif in_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            # Who observes the application, which has begun with it, is to know.
            self.scope["state"]["answered"] = status or None
            self._end()
        elif not self.cycle or self.cycle.response_complete:
            self._end()
        else:
            self.cycle.keep_alive &= bool(status)
            self._waits = True

    def _end(self) -> None:
        if not self._status:
            self.transport.close()
            return
        scope = self._refused()
        if "answered" not in scope["state"]:
            for observe in self.app_state.get("observers", ()):
                observe(scope, self._status, 0.0)
        body = problems.problem(None, self._status).model_dump_json(exclude_none=True).encode()
        fields = contract.constant_headers(None, self._status) | {
            "Content-Type": problems.MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "X-Request-ID": scope["state"]["request_id"],
        }
        headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        lines = [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers + headers]
        self.transport.write(b"".join([STATUS_LINE[self._status], *lines, FIELDS, b"\r\n", body]))
        self._close()

    def _refused(self) -> Scope:
        """Return the request that is arriving, or what stands for one, and give it a name if it has none."""
        if self.scope is self._complete:
            return {"state": {"request_id": request_id(())}, "headers": []}
        if "request_id" not in self.scope["state"]:
            self.scope["state"]["request_id"] = request_id(self.headers)
        return cast(Scope, self.scope)

    def _close(self) -> None:
        """Close the connection, but not at once while the caller still sends: that would undo what was answered."""
        self._deaf, self._waits = True, False
        self.pipeline.clear()
        if self.scope is self._complete or self._ended:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(LINGER, self.timeout_keep_alive_handler)
