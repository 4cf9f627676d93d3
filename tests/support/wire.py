"""Send raw bytes over a socket, for requests that no HTTP client library sends."""

import json
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"


class Response(NamedTuple):
    """An HTTP response as received from the socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, parsed as JSON."""
        return json.loads(self.body)


def connect(url: str) -> socket.socket:
    """Open a connection to a service, with a timeout of 30 seconds."""
    address = httpx.URL(url)
    return socket.create_connection((address.host, address.port or 80), timeout=30)


def exchange(url: str, *pieces: bytes) -> list[Response]:
    """Send bytes on a new connection, close its sending side, and return every final response."""
    return parse_responses(exchange_bytes(url, *pieces))


def exchange_bytes(url: str, *pieces: bytes) -> bytes:
    """Send bytes on a new connection, close its sending side, and return all bytes that the service sends."""
    with connect(url) as connection:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    """Return all bytes that the service sends until it closes the connection."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def read_response(connection: socket.socket) -> Response:
    """Read the next response from a connection that stays open."""
    received = b""
    while True:
        data = connection.recv(65536)
        assert data, received
        received += data
        if b"\r\n\r\n" in received and (found := parse_responses(received)):
            return found[0]


def parse_responses(received: bytes) -> list[Response]:
    """Return the final responses in the received bytes, and ignore an incomplete response."""
    found = []
    while b"\r\n\r\n" in received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            break
        status = int(status_line.removeprefix("HTTP/1.1 ")[:3])
        if status >= 200:
            found.append(Response(status, headers, rest[:length]))
        received = rest[length:]
    return found


def request(
    method: str, path: str, body: dict[str, Any] | None = None, headers: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """Return the bytes of a request with an optional JSON body."""
    content = json.dumps(body).encode() if body else b""
    fields = JSON + b"Content-Length: %d\r\n" % len(content) if body else b""
    fields += b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
    return b"%s %s HTTP/1.1\r\n%s%s\r\n%s" % (method.encode(), path.encode(), HOST, fields, content)


def call(
    connection: socket.socket,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Send a request on a connection that stays open, and return the response."""
    connection.sendall(request(method, path, body, headers))
    return read_response(connection)
