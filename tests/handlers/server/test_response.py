"""Responses on the wire: framing, names and values of header fields, whatever the application sends."""

import asyncio
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from handlers.server.protocol import Protocol

pytestmark = pytest.mark.slow

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


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
        config, state = Config(app, log_config=None), ServerState()
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: Protocol(config, state, {}, timeout=10, max_connections=10), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(request)
            writer.write_eof()
            received = await asyncio.wait_for(reader.read(), 30)
            writer.close()
        return received

    return asyncio.run(exchange()).decode().split("\r\n")


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
