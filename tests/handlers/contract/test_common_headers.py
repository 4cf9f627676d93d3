"""The header fields that every response has, and the spelling of their names."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from handlers.contract import document
from tests.support import wire
from tests.support.calls import UNKNOWN_METHOD
from tests.support.service import Start

REQUESTS = [
    wire.request("GET", "/api/tasks"),
    wire.request("HEAD", "/api/tasks"),
    wire.request("POST", "/api/tasks", {"title": "a"}),
    wire.request("POST", "/api/tasks", {"title": ""}),
    wire.request("GET", "/api/tasks", headers={"If-None-Match": "*"}),
    wire.request("OPTIONS", "/api/tasks"),
    wire.request(UNKNOWN_METHOD, "/api/tasks"),
    wire.request("GET", "/nowhere"),
    wire.request("GET", "/docs"),
    wire.request("GET", "/docs/assets/theme.css"),
    wire.request("GET", "/"),
    wire.request("GET", "/openapi.json"),
    wire.request("GET", "/health/ready"),
    wire.request("GET", "/" + "a" * 9000),
    b"nonsense\r\n\r\n",
]

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


# Headers whose names do not follow the usual rule: RFC 9110, sections 8.8.3 and 11.6.1.
EXCEPTIONS = {"ETag", "WWW-Authenticate"}


def header_names(node: Any) -> Iterator[str]:
    """Yield the names in each map of headers in a part of the contract."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(value, dict) and key in ("headers", "x-headers", "x-headers-tls", "x-response-headers"):
            yield from value
        yield from header_names(value)


def test_header_names_are_spelled_as_in_the_contract(start: Start) -> None:
    """Other names have a capital letter at the start of each part."""
    contract = {key: value for key, value in document.raw().items() if key != "components"}
    responses = document.raw()["components"]["responses"]
    spellings = {name.lower(): name for name in [*EXCEPTIONS, *header_names([contract, responses])]}
    flags = ("--allowed-origins", "https://a.example", "--rate-limit", "1000/second", "--trusted-proxies", "127.0.0.1")
    url = start(*flags).url
    origin = b"Origin: https://a.example\r\nX-Forwarded-Proto: https\r\nAccess-Control-Request-Method: GET\r\n"
    names = set()
    for request in [*REQUESTS, *REQUESTS, wire.request("GET", "/api/tasks?limit=1")]:
        received = wire.exchange_bytes(url, request.replace(wire.HOST, wire.HOST + origin))
        lines = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        names |= {line.partition(":")[0] for line in lines}

    assert names >= {"ETag", "Link", "Location", "X-Request-ID", "RateLimit-Policy", "Allow", "Date", "Content-Type"}
    assert names >= {"Access-Control-Allow-Origin", "Strict-Transport-Security"}
    assert names == {spellings.get(name.lower(), name.title()) for name in names}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request[:30].decode())
def test_every_response_has_the_security_headers(shared_client: httpx.Client, request_: bytes) -> None:
    received = wire.exchange_bytes(str(shared_client.base_url), request_)
    lines = received.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")[1:]
    headers = dict(line.split(": ", 1) for line in lines)

    assert headers.items() >= SECURITY_HEADERS.items()
    assert headers["x-request-id"]
    # No header field is repeated, names the server software, or asks for TLS if the service does not use TLS.
    assert len(headers) == len(lines)
    assert not headers.keys() & {"server", "x-powered-by", "via", "strict-transport-security"}


@pytest.mark.parametrize(
    "path",
    [
        *("/api/tasks?limit=1", "/api/tasks/1", "/api/tasks?limit=0", "/api/tasks/9999", "/nowhere", "/"),
        *("/docs", "/docs/assets/theme.css", "/openapi.yaml", "/openapi.json", "/health/live", "/health/ready"),
    ],
)
def test_head_has_the_headers_of_get(client: httpx.Client, path: str) -> None:
    """This holds for responses with any status (RFC 9110, section 9.3.2)."""
    for _ in range(2):
        client.post("/api/tasks", json={"title": "a"})
    responses = [client.request(method, path) for method in ("GET", "HEAD")]
    got, head = (
        {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")}
        for response in responses
    )

    assert (responses[1].status_code, responses[1].content) == (responses[0].status_code, b"")
    assert head == got
    assert int(head["content-length"]) == len(responses[0].content)


def test_security_headers_match_the_contract() -> None:
    described = document.raw()["x-headers"]

    assert {name.lower(): header["example"] for name, header in described.items()} == SECURITY_HEADERS


def test_request_ids_are_unique(shared_client: httpx.Client) -> None:
    request_ids = [shared_client.get("/api/tasks").headers["x-request-id"] for _ in range(20)]
    request_ids += [httpx.get(f"{shared_client.base_url}/nowhere").headers["x-request-id"] for _ in range(20)]

    assert len(set(request_ids)) == 40


@pytest.mark.parametrize("trusted", [True, False])
def test_scheme_is_the_first_one_that_a_trusted_proxy_names(start: Start, trusted: bool) -> None:
    service = start("--trusted-proxies", "127.0.0.1" if trusted else "10.0.0.0/8")
    for _ in range(2):
        service.client.post("/api/tasks", json={"title": "a"})
    https = [
        "https",
        "HTTPS",
        "Https, http",
        " \thttps\t ",
        ",, https ,http",
        "https,",
        "https\r\nX-Forwarded-Proto: http",
    ]
    http = ["http", "http, https", "HTTP\r\nX-Forwarded-Proto: https"]
    ignored = ["", ",", "ws", "wss", "wss, https", "ftp", "https://", '"https"', "https http", "\xff", "javascript:"]
    for value in https + http + ignored:
        request = wire.request("GET", "/api/tasks?limit=1", headers={"X-Forwarded-Proto": value})

        (response,) = wire.exchange(service.url, request)

        scheme = "https" if trusted and value in https else "http"
        assert response.headers["link"].startswith(f"<{scheme}://localhost/api/tasks?"), value
        assert ("strict-transport-security" in response.headers) == (scheme == "https"), value
    (response,) = wire.exchange(
        service.url, b"GET https://b/api/tasks?limit=1 HTTP/1.1\r\nX-Forwarded-Proto: http\r\nHost: a\r\n\r\n"
    )
    assert response.headers["link"].startswith(f"<{'http' if trusted else 'https'}://b/")


@pytest.mark.parametrize(("proxy", "trusted"), [("127.0.0.1", True), ("10.0.0.0/8", False)])
def test_hsts_is_sent_behind_a_trusted_proxy_with_tls(start: Start, proxy: str, trusted: bool) -> None:
    client = start("--trusted-proxies", proxy).client

    over_tls = client.get("/api/tasks", headers={"X-Forwarded-Proto": "https"})
    plain = client.get("/api/tasks", headers={"X-Forwarded-Proto": "http"})

    assert over_tls.headers.get("strict-transport-security") == ("max-age=31536000" if trusted else None)
    assert "strict-transport-security" not in plain.headers
