"""Parameters of every location, style and type reach the handler as the contract types them."""

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("id=9007199254740993", {"id": 9007199254740993}),
        ("at=2026-01-31T12:00:00Z&from=2026-01-31", {"at": "2026-01-31T12:00:00Z", "from_": "2026-01-31"}),
        ("address=a&caller=b&request=c&body=d", {"address": "a", "caller": "b", "request": "c", "body": "d"}),
        ("filter%5Bstatus%5D=open&sortBy=-title", {"filter_status": "open", "sort_by": "-title"}),
        (
            "class=non-fiction&price.max=9.5&in-stock=true",
            {"class_": "non-fiction", "price_max": 9.5, "in_stock": True},
        ),
        ("price.max=1e2", {"price_max": 100}),
        ("genre=crime&genre=travel", {"genre": ["crime", "travel"]}),
        ("genre=crime", {"genre": ["crime"]}),
        ("genre-not=crime,travel", {"genre_not": ["crime", "travel"]}),
        ("numbers=1%202%203", {"numbers": [1, 2, 3]}),
        ("labels=a%7Cbc", {"labels": ["a", "bc"]}),
        (
            "size[min]=1&size%5Bunit%5D=pages&size[exact]=false",
            {"size": {"min": 1, "unit": "pages", "exact": False}},
        ),
    ],
)
def test_query_parameter_reaches_the_handler(client: httpx.Client, query: str, arguments: dict[str, Any]) -> None:
    response = client.get(f"/search?{query}")

    assert (response.status_code, response.json()) == (200, arguments)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("id=1.5", "id"),
        ("id=9223372036854775808", "id"),
        ("from=2026-02-30", "from"),
        ("at=2026-01-31", "at"),
        ("class=thriller", "class"),
        ("price.max=nan", "price.max"),
        ("price.max=1001", "price.max"),
        ("in-stock=1", "in-stock"),
        ("genre=crime&genre=horror", "genre"),
        ("genre-not=crime,horror", "genre-not"),
        ("numbers=1%20x", "numbers"),
        ("labels=a%7CB", "labels"),
        ("size[min]=x", "size"),
        ("size[max", "size[max"),
        ("size[other]=1", "size"),
        ("address=a&address=b", "address"),
        ("nothing=1", "nothing"),
    ],
)
def test_invalid_query_parameter_is_named(client: httpx.Client, query: str, parameter: str) -> None:
    response = client.get(f"/search?{query}")

    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert [error["parameter"] for error in response.json()["errors"]] == [parameter]


def test_all_invalid_parameters_are_reported_at_once(client: httpx.Client) -> None:
    errors = client.get("/search?id=x&class=thriller&nothing=1").json()["errors"]

    assert {error["parameter"] for error in errors} == {"id", "class", "nothing"}


def test_message_names_the_parameter_and_the_allowed_values(client: httpx.Client) -> None:
    (error,) = client.get("/search?class=thriller").json()["errors"]

    assert error["detail"] == "class must be one of fiction, non-fiction or reference"


def test_message_about_an_item_names_the_array(client: httpx.Client) -> None:
    (error,) = client.get("/search?genre-not=crime,horror").json()["errors"]

    assert "genre-not" in error["detail"]


def test_headers_and_cookies_reach_the_handler(client: httpx.Client) -> None:
    headers = {"x-floors": "1, 2", "X-Is-Staff": "true", "Cookie": "theme=dark; other=1; recent=3,4"}

    known = client.get("/members", headers=headers).json()

    assert (known["floors"], known["staff"], known["theme"], known["recent"]) == ([1, 2], True, "dark", [3, 4])


def test_missing_cookie_has_its_default(client: httpx.Client) -> None:
    assert client.get("/members").json()["theme"] == "light"


@pytest.mark.parametrize(
    ("header", "value", "parameter"),
    [("X-Floors", "1,x", "X-Floors"), ("X-Is-Staff", "yes", "X-Is-Staff"), ("Cookie", "theme=pink", "theme")],
)
def test_invalid_header_or_cookie_is_named(client: httpx.Client, header: str, value: str, parameter: str) -> None:
    response = client.get("/members", headers={header: value})

    assert response.status_code == 400
    assert [error["parameter"] for error in response.json()["errors"]] == [parameter]


def test_operation_overrides_a_parameter_of_its_path(client: httpx.Client) -> None:
    """`page` is at most 9 on the path, but at most 100 in the operation `listBooks`."""
    assert client.get("/books?page=50").status_code == 200
    assert client.get("/books?page=101").status_code == 400
    assert client.post("/books?page=50", json={}).json()["errors"][0]["parameter"] == "page"


def test_array_in_the_path(client: httpx.Client) -> None:
    response = client.get("/books/compare/9780000000001,9789999999999")

    assert response.json() == {"9780000000001": 9.5, "9789999999999": None}


@pytest.mark.parametrize(
    "path", ["/books/123", "/books/compare/9780000000001", "/members/x", "/shelves/0", "/shelves/1.0", "/nothing"]
)
def test_invalid_path_parameter_identifies_no_resource(client: httpx.Client, path: str) -> None:
    response = client.get(path)

    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
