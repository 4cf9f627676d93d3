"""Responses on the wire: framing, names and values of header fields, whatever the application sends."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from handlers.server import protocol
from handlers.server.protocol import Protocol

pytestmark = pytest.mark.slow

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def connected(app: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event]]:
    """Connect to a server of an application. The server sets the event after it has closed the connection."""
    config, closed = Config(app, log_config=None, timeout_keep_alive=75), asyncio.Event()
    config.load()

    class Connection(Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            closed.set()

    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(config, ServerState(), {}, timeout=10, max_connections=10), "127.0.0.1", 0
    )
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield reader, writer, closed
        writer.close()


def respond(request: bytes, *messages: tuple[int, list[tuple[bytes, bytes]]], body: bytes = b"body") -> list[str]:
    """Return the lines that a client gets from an application that sends these statuses, header fields and body."""

    async def app(_: Any, __: Any, send: Any) -> None:
        for status, headers in messages:
            try:
                await send({"type": "http.response.start", "status": status, "headers": headers})
                break
            except RuntimeError:
                continue
        await send({"type": "http.response.body", "body": body})

    async def exchange() -> bytes:
        async with connected(app) as (reader, writer, _):
            writer.write(request)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 30)

    return asyncio.run(exchange()).decode().split("\r\n")


async def greet(_: Any, __: Any, send: Any) -> None:
    """Respond without reading the body of the request."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"body"})


def test_connection_closes_soon_after_the_last_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_TIMEOUT", 0.1)

    async def exchange() -> None:
        async with connected(greet) as (reader, writer, closed), asyncio.timeout(30):
            writer.write(GET[:-2] + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
            assert b"Connection: close" in await reader.read()
            await closed.wait()

    asyncio.run(exchange())


def test_response_is_dropped_if_the_client_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    async def exchange() -> None:
        called, responded = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            called.set()
            await receive()
            await closed.wait()
            await greet(scope, receive, send)
            responded.set()

        async with connected(app) as (_, writer, closed), asyncio.timeout(30):
            writer.write(GET * 2)
            await called.wait()
            reset = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            writer.transport.abort()
            await responded.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange())
    assert caplog.text == ""


@pytest.mark.parametrize("headers", [[], [(b"transfer-encoding", b"chunked")]], ids=["", "chunked"])
def test_body_without_a_length_is_chunked(headers: list[tuple[bytes, bytes]]) -> None:
    lines = respond(GET, (200, headers))

    assert lines.count("Transfer-Encoding: chunked") == 1
    assert lines[-6:] == ["", "4", "body", "0", "", ""]


def test_body_with_a_length_is_not_chunked() -> None:
    lines = respond(GET, (200, [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")]))

    assert "Transfer-Encoding: chunked" not in lines
    assert lines[-2:] == ["", "body"]


@pytest.mark.parametrize(
    ("request_", "status"), [(GET, 204), (GET, 304), (GET.replace(b"GET", b"HEAD"), 200)], ids=["204", "304", "head"]
)
def test_response_without_a_body_has_no_framing(request_: bytes, status: int) -> None:
    lines = respond(request_, (status, []), body=b"")

    assert lines[-2:] == ["", ""]
    assert not [line for line in lines if line.startswith(("Transfer-Encoding", "Content-Length"))]


@pytest.mark.parametrize(
    ("request_", "headers"), [(GET, [(b"connection", b"Close")]), (GET.replace(b"1.1", b"1.0"), [])], ids=["app", "1.0"]
)
def test_application_and_client_can_close_the_connection(request_: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    lines = respond(request_ + GET, (200, [(b"content-length", b"4"), *headers]))

    assert [line.lower() for line in lines].count("connection: close") == 1
    assert lines[-1] == "body"
    assert sum(line.startswith("HTTP/1.1") for line in lines) == 1


def test_undeclared_header_names_have_a_capital_letter_in_each_part() -> None:
    lines = respond(GET, (200, [(b"x-forwarded-for", b"A\tb"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]))

    assert lines[1:4] == ["X-Forwarded-For: A\tb", "Set-Cookie: a=b", "Set-Cookie: c=d"]


@pytest.mark.parametrize(
    "header",
    [
        (b"a", b"b\r\nc: d"),
        (b"a", b"b\nc"),
        (b"a", b"\0"),
        (b"a", b"\x7f"),
        (b"a b", b""),
        (b"a\r\nb", b""),
        (b"", b""),
        (b"Content-Length", b"4"),
    ],
    ids=repr,
)
def test_invalid_header_is_an_error_that_can_be_answered(header: tuple[bytes, bytes]) -> None:
    lines = respond(GET, (200, [(b"content-length", b"9"), header]), (500, [(b"content-length", b"4")]))

    assert lines[0] == "HTTP/1.1 500 Internal Server Error"
    assert lines[-1] == "body"


def test_error_of_the_application_gets_500(caplog: pytest.LogCaptureFixture) -> None:
    lines = respond(GET, (200, [(b"a", b"\n")]))

    assert lines[0] == "HTTP/1.1 500 Internal Server Error"
    assert "Connection: close" in lines
    assert "Exception in ASGI application" in caplog.text


async def complete_twice(scope: Any, receive: Any, send: Any) -> None:
    await greet(scope, receive, send)
    with pytest.raises(RuntimeError, match="complete already"):
        await send({"type": "http.response.body", "body": b"more"})


async def respond_never(_: Any, __: Any, ___: Any) -> None:
    """Return without a response."""


async def announce_more(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"body"})


@pytest.mark.parametrize(
    ("app", "start", "message"),
    [
        (complete_twice, b"HTTP/1.1 200 OK", ""),
        (respond_never, b"HTTP/1.1 500 Internal Server Error", "has not completed the response"),
        (announce_more, b"", "does not have the length in Content-Length"),
    ],
)
def test_incomplete_response_never_looks_complete(
    app: Any, start: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def exchange() -> bytes:
        async with connected(app) as (reader, writer, _):
            writer.write(GET)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 30)

    assert asyncio.run(exchange()).partition(b"\r\n")[0] == start
    assert message in caplog.text
