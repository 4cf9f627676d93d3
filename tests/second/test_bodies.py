"""Request bodies of every media type are validated, and reach the handler as the contract types them."""

from itertools import count
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

FIRST_BOOK = "/books/9780000000001"
FIRST_MEMBER = "/members/00000000-0000-4000-8000-000000000001"
ISBNS = map("9781{:09}".format, count())


def book(**properties: Any) -> dict[str, Any]:
    """Return a valid book with an ISBN of its own."""
    return {"isbn": next(ISBNS), "title": "Emma", "supplier": "x", **properties}


def pointers(response: httpx.Response) -> set[str]:
    """Return the places of the violations in a 400 response."""
    assert response.status_code == 400, response.text
    return {error["pointer"] for error in response.json()["errors"]}


def test_book_is_returned_as_sent(client: httpx.Client) -> None:
    sent = book(
        **{"class": "fiction", "stock-per-branch": {"north": 1}},
        genres=["crime"],
        price=9,
        published=None,
        extra={"any": ["thing", None, 1.5]},
        author={"name": "Jane", "born": 1775},
    )

    created = client.post("/books", json=sent)

    assert created.status_code == 201, created.text
    assert created.headers["location"] == f"/central/v2/books/{sent['isbn']}"
    del sent["supplier"]
    number = created.json()["number"]
    assert created.json() == {"number": number, **sent}
    assert client.get(f"/books/{sent['isbn']}").json() == created.json()


def test_read_only_property_is_neither_required_nor_accepted_in_a_request(client: httpx.Client) -> None:
    assert pointers(client.post("/books", json=book(number=1))) == {"/number"}


def test_nullable_reference_accepts_null(client: httpx.Client) -> None:
    created = client.post("/books", json=book(author=None))

    assert (created.status_code, created.json()["author"]) == (201, None)


@pytest.mark.parametrize(
    ("properties", "places"),
    [
        ({"isbn": "1"}, {"/isbn"}),
        ({"supplier": 1, "title": ""}, {"/supplier", "/title"}),
        ({"class": "thriller"}, {"/class"}),
        ({"genres": ["crime", "horror"]}, {"/genres/1"}),
        ({"genres": ["crime", "crime"]}, {"/genres"}),
        ({"published": "2026-02-30"}, {"/published"}),
        ({"stock-per-branch": {"north": -1}}, {"/stock-per-branch/north"}),
        ({"extra": [1]}, {"/extra"}),
        ({"author": {"born": 1}}, {"/author/name"}),
        ({"other": 1}, {"/other"}),
    ],
)
def test_violations_name_their_place(client: httpx.Client, properties: dict[str, Any], places: set[str]) -> None:
    assert pointers(client.post("/books", json=book(**properties))) == places


def test_message_of_the_schema_is_used(client: httpx.Client) -> None:
    (error,) = client.post("/books", json=book(isbn="1")).json()["errors"]

    assert error["detail"] == "An ISBN is 978 and ten more digits"


@pytest.mark.parametrize(
    ("member", "places"),
    [
        ({"kind": "school", "name": "A"}, {"/pupils"}),
        ({"kind": "adult", "name": "A", "pupils": 1}, {"/pupils"}),
        ({"kind": "child", "name": "A"}, {"/kind"}),
        ({"name": "A"}, {"/kind"}),
        ({"kind": "adult", "name": "A", "birthday": "x", "device": "y"}, {"/birthday", "/device"}),
        ({"kind": "adult", "name": "A", "visits": 2**31}, {"/visits"}),
    ],
)
def test_discriminator_chooses_the_schema(client: httpx.Client, member: dict[str, Any], places: set[str]) -> None:
    assert pointers(client.post("/members", json=member)) == places


@pytest.mark.parametrize(
    "given",
    [
        {"birthday": "2000-02-29"},
        {"contact": {"email": "ada@library.example"}},
        {"contact": {"number": "+4412345"}},
        {"contact": None},
        {"photo": "aGVsbG8="},
        {"device": "0B7E6F4E-3F0C-4D5A-9A53-5A5A0F6F2F5E"},
        {"homepage": "https://ada.example"},
        {"lastVisit": "2026-01-31T12:00:00.5+01:00"},
        {"debt": 1.25},
        {"visits": -(2**31)},
    ],
)
def test_value_of_each_format_is_returned_as_sent(client: httpx.Client, given: dict[str, Any]) -> None:
    sent = {"kind": "adult", "name": "Ada", **given}

    created = client.post("/members", json={**sent, "password": "secret"})

    assert (created.status_code, created.json().get("member")) == (201, sent)


@pytest.mark.parametrize("contact", [{"email": "x"}, {"number": "1"}, {}, "ada@library.example"])
def test_any_of_refuses_what_fits_no_alternative(client: httpx.Client, contact: Any) -> None:
    response = client.post("/members", json={"kind": "adult", "name": "A", "contact": contact})

    assert {place.partition("/contact")[1] for place in pointers(response)} == {"/contact"}


def test_recursive_schema(client: httpx.Client) -> None:
    shelf = {"name": "A", "shelves": [{"name": "B", "shelves": [{"name": "C"}]}, {"name": "D"}], "above": None}

    created = client.post("/shelves", json=shelf)

    assert (created.status_code, created.json()["count"]) == (201, 4)
    assert client.get(f"/shelves/{created.json()['shelfId']}").json() == created.json()
    shelf["shelves"][0]["shelves"][0]["name"] = ""  # type: ignore[index]
    assert pointers(client.post("/shelves", json=shelf)) == {"/shelves/0/shelves/0/name"}


def test_merge_patch(client: httpx.Client) -> None:
    path = client.post("/members", json={"kind": "adult", "name": "A", "nickname": "B"}).json()["memberId"]
    patch = {"Content-Type": "application/merge-patch+json"}

    changed = client.patch(
        f"/members/{path}", headers=patch, content='{"nickname": null, "contact": {"number": "+44123"}}'
    )

    assert changed.json()["member"] == {"kind": "adult", "name": "A", "contact": {"number": "+44123"}}
    assert pointers(client.patch(f"/members/{path}", headers=patch, content="{}")) == {""}
    assert client.patch(f"/members/{path}", json={"nickname": "C"}).status_code == 415


def test_form(client: httpx.Client) -> None:
    sent = {"text": "a & b", "copies": "2", "urgent": "true", "topics": ["#x", "#y"]}

    answer = client.post(f"{FIRST_MEMBER}/messages", data=sent)

    assert answer.status_code == 202, answer.text
    assert answer.json() == {"text": "a & b", "copies": 2, "urgent": True, "topics": ["#x", "#y"]}


@pytest.mark.parametrize(
    ("form", "places"),
    [
        ({"copies": "2"}, {"/text"}),
        ({"text": "a", "copies": "x", "urgent": "1"}, {"/copies", "/urgent"}),
        ({"text": "a", "topics": ["#x", "y"]}, {"/topics/1"}),
        ({"text": "a", "other": "1"}, {"/other"}),
    ],
)
def test_violations_of_a_form_name_the_field(client: httpx.Client, form: dict[str, Any], places: set[str]) -> None:
    assert pointers(client.post(f"{FIRST_MEMBER}/messages", data=form)) == places


def test_multipart_with_files(client: httpx.Client) -> None:
    files = [
        ("image", ("a.png", b"\x89PNG", "image/png")),
        ("details", ("b.png", b"12", "image/png")),
        ("details", ("c.png", b"345", "image/png")),
        ("painter", (None, b'{"name": "Ada"}', "application/json")),
    ]

    answer = client.post(f"{FIRST_BOOK}/cover", files=files, data={"caption": "Dune", "year": "1965"})

    assert answer.status_code == 201, answer.text
    assert answer.json() == {
        "caption": "Dune",
        "year": 1965,
        "bytes": 4,
        "name": "a.png",
        "details": [2, 3],
        "painter": {"name": "Ada"},
    }
    cover = client.get(f"{FIRST_BOOK}/cover")
    assert (cover.content, cover.headers["content-type"]) == (b"\x89PNG", "image/png")


def test_violations_of_a_multipart_form_name_the_field(client: httpx.Client) -> None:
    image = {"image": ("a.png", b"", "image/png")}
    assert pointers(client.post(f"{FIRST_BOOK}/cover", files=image, data={"year": "1"})) == {"/caption", "/year"}
    assert pointers(client.post(f"{FIRST_BOOK}/cover", files={"caption": (None, b"A")})) == {"/image"}


def test_text(client: httpx.Client) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8"}

    answer = client.put(f"{FIRST_BOOK}/review", headers=headers, content="süß")

    assert (answer.text, answer.headers["content-type"].partition(";")[0]) == ("SÜSS", "text/plain")
    assert pointers(client.put(f"{FIRST_BOOK}/review", headers=headers, content="")) == {""}
    assert pointers(client.put(f"{FIRST_BOOK}/review", headers=headers, content=b"\xff")) == {""}


def test_octets(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/octet-stream"}

    answer = client.put(f"{FIRST_BOOK}/scan", headers=headers, content=b"\x00\xff")

    assert (answer.content, answer.headers["content-type"]) == (b"\xff\x00", "application/octet-stream")
    assert client.put(f"{FIRST_BOOK}/scan", headers=headers, content=bytes(4097)).status_code == 413


def test_operation_with_several_media_types(client: httpx.Client) -> None:
    path, note = f"{FIRST_BOOK}/note", {"text": "Read me", "stars": 5}

    assert client.put(path, json=note).json() == note
    assert client.put(path, data=note).json() == note
    assert client.put(path, content="Read me", headers={"Content-Type": "text/plain"}).json() == {"text": "Read me"}
    assert pointers(client.put(path, data={"text": "a", "stars": "6"})) == {"/stars"}


def test_unsupported_media_type_names_the_supported_ones(client: httpx.Client) -> None:
    answer = client.put(f"{FIRST_BOOK}/note", content="<a/>", headers={"Content-Type": "application/xml"})

    assert answer.status_code == 415
    for media_type in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        assert media_type in answer.json()["detail"]


def test_optional_body(client: httpx.Client) -> None:
    path = f"{FIRST_BOOK}/loan"

    assert client.post(path).json() == 14
    assert client.post(path, json={"days": 2}).json() == 2
    assert client.post(path, json={}).json() == 14
    assert pointers(client.post(path, json={"days": 0})) == {"/days"}
    assert client.post(path, content="a", headers={"Content-Type": "text/plain"}).status_code == 415
