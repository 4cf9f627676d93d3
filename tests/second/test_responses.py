"""Responses of every kind: JSON, text, streams, files, redirects, no body, and errors of two kinds."""

import httpx
import pytest

pytestmark = pytest.mark.slow

FIRST_BOOK = "/books/9780000000001"


def test_stream_has_the_media_type_of_the_contract(client: httpx.Client) -> None:
    answer = client.get("/books/export.csv")

    assert answer.headers["content-type"].partition(";")[0] == "text/csv"
    assert answer.text.splitlines()[:2] == ["isbn,price", "9780000000001,9.5"]


def test_redirect(client: httpx.Client) -> None:
    answer = client.get("/books/latest")

    assert (answer.status_code, answer.content) == (303, b"")
    assert answer.headers["location"].startswith("/central/v2/books/978")


def test_headers_with_and_without_default(client: httpx.Client) -> None:
    headers = client.get("/books").headers

    assert headers["x-collection"] == "books"
    assert int(headers["x-total-count"]) >= 1


def test_response_without_body(client: httpx.Client) -> None:
    client.post("/books", json={"isbn": "9782000000000", "title": "A", "supplier": "x"})

    answer = client.delete("/books/9782000000000")

    assert (answer.status_code, answer.content, "content-type" in answer.headers) == (204, b"", False)
    assert client.get("/books/9782000000000").status_code == 404


def test_error_with_a_schema_of_the_author(client: httpx.Client) -> None:
    client.post("/books", json={"isbn": "9782000000001", "title": "reserved", "supplier": "x"})

    answer = client.delete("/books/9782000000001")

    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/json")
    assert answer.json() == {"code": 7, "message": "The book is reserved"}


def test_one_status_has_several_problems(client: httpx.Client) -> None:
    book = {"isbn": "9780000000001", "title": "A", "supplier": "x"}
    taken = client.post("/books", json=book)
    banned = client.post("/books", json={**book, "isbn": "9782000000002", "title": "Necronomicon"})

    assert (taken.status_code, taken.json()["detail"]) == (409, "Another book has this ISBN; use another")
    assert (banned.status_code, banned.json()["type"]) == (409, "https://library.example/banned")


@pytest.mark.parametrize("path", ["/books", "/books/export.csv", FIRST_BOOK, "/search?id=1"])
def test_head_equals_get(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_options_and_other_methods_name_the_supported_ones(client: httpx.Client) -> None:
    options, put = client.options(FIRST_BOOK), client.put(FIRST_BOOK)

    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, DELETE, OPTIONS")
    assert (put.status_code, put.headers["allow"]) == (405, "GET, HEAD, DELETE, OPTIONS")


def test_preflight_allows_the_headers_of_paths_and_security_schemes(client: httpx.Client) -> None:
    headers = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "x-client, x-floors, x-badge, authorization",
    }

    answer = client.options("/books", headers=headers)

    assert answer.status_code == 204, answer.text
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("x-client", "x-floors", "x-badge", "authorization"))


def test_paths_need_the_base_path(client: httpx.Client) -> None:
    root = str(client.base_url).removesuffix("/central/v2/")

    assert httpx.get(f"{root}/books").status_code == 404
    assert httpx.get(f"{root}/central/v2/books").status_code == 200
    assert httpx.get(f"{root}/health/live").status_code == 200
