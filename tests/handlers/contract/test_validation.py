"""Validation of requests, and the error messages for invalid requests."""

from typing import Any

import httpx
import pytest

from handlers.contract.validation import Rules

JSON = {"Content-Type": "application/json"}

TITLE_REQUIRED = ("/title", "Title is required")
TITLE_BLANK = ("/title", "Title must not be blank, and must not contain the character U+0000")
DESCRIPTION_NUL = ("/description", "Description must not contain the character U+0000")


@pytest.mark.parametrize(
    ("body", "violations"),
    [
        ({}, [TITLE_REQUIRED]),
        ({"title": ""}, [TITLE_REQUIRED]),
        ({"title": " \t\u3000\ufeff"}, [TITLE_BLANK]),
        ({"title": "a\u0000"}, [TITLE_BLANK]),
        ({"title": None}, [("/title", "title must be of type string")]),
        ({"title": "a" * 256}, [("/title", "title must have at most 255 characters")]),
        (
            {"title": "a", "description": "b" * 4001},
            [("/description", "description must have at most 4000 characters")],
        ),
        ({"title": "a", "description": "\u0000"}, [DESCRIPTION_NUL]),
        ({"title": "a", "description": 1}, [("/description", "description must be of type null or string")]),
        ({"title": "a", "completed": None}, [("/completed", "completed must be of type boolean")]),
        ({"title": "a", "completed": 1}, [("/completed", "completed must be of type boolean")]),
        ({"title": "a", "a/b~c": 1}, [("/a~1b~0c", "a/b~c is not a property of this object")]),
        ({"title": "a", "id": 1, "createdAt": ""}, [("/createdAt", "createdAt is not a property of this object")]),
        ([], [("", "The body must be of type object")]),
        (
            {"description": 1, "completed": "no"},
            [
                TITLE_REQUIRED,
                ("/description", "description must be of type null or string"),
                ("/completed", "completed must be of type boolean"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_every_violation_of_the_body_is_reported(
    shared_client: httpx.Client, method: str, body: Any, violations: list[tuple[str, str]]
) -> None:
    response = shared_client.request(method, "/api/tasks" + "/1" * (method == "PUT"), json=body)

    problem = response.json()
    assert response.status_code == 400
    reported = [(error["pointer"], error["detail"]) for error in problem["errors"]]
    assert set(violations) <= set(reported)
    assert len(reported) == len(violations) + ("id" in body)
    assert problem["detail"] == "; ".join(error["detail"] for error in problem["errors"])


@pytest.mark.parametrize(
    "body",
    [
        {"title": "a" * 255, "description": "b" * 4000, "completed": True},
        {"title": "🚀" * 255, "description": "🚀" * 4000},
        {"title": " a\n", "description": ""},
        {"title": "a", "description": None},
    ],
)
def test_valid_body_is_accepted(shared_client: httpx.Client, body: dict[str, Any]) -> None:
    response = shared_client.post("/api/tasks", json=body)

    assert response.status_code == 201
    assert body.items() <= response.json().items()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"title": "a"',
        b"nonsense",
        b'{"title": "a"} x',
        b'{"title": "a", "title": "b"}',
        b"\xff",
        b'{"title": NaN}',
        b'{"title": "\\ud800"}',
        b'{"title": "\xed\xa0\x80"}',
        b'{"title": "\x00"}',
        b"[" * 5000,
        b"9" * 5000,
        b'\xef\xbb\xbf{"title": "a"}',
        '{"title": "a"}'.encode("utf-16"),
        b"{'title': 'a'}",
    ],
)
def test_invalid_json_is_refused(shared_client: httpx.Client, body: bytes) -> None:
    response = shared_client.post("/api/tasks", content=body, headers=JSON)

    problem = response.json()
    assert response.status_code == 400
    assert problem["errors"][0]["pointer"] == ""
    assert problem["detail"].startswith("The body must be a JSON document: ")


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_media_type_is_accepted(shared_client: httpx.Client, content_type: str) -> None:
    response = shared_client.post("/api/tasks", content=b'{"title": "a"}', headers={"Content-Type": content_type})

    assert response.status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"Content-Type": b"text/plain"},
        {b"Content-Type": b"application/problem+json"},
        {b"Content-Type": b"application/json; charset=latin-1"},
        {b"Content-Type": b"json"},
        {b"Content-Type": b"\xff"},
        [(b"Content-Type", b"application/json"), (b"Content-Type", b"application/json")],
        {b"Content-Type": b"application/json", b"Content-Encoding": b"gzip"},
    ],
)
def test_other_media_types_are_refused(shared_client: httpx.Client, headers: Any) -> None:
    response = shared_client.post("/api/tasks", content=b'{"title": "a"}', headers=headers)

    assert response.status_code == 415
    assert (
        response.json()["detail"] == "Send JSON in UTF-8, uncompressed, with the header Content-Type: application/json"
    )


def test_large_body_is_refused(shared_client: httpx.Client) -> None:
    body = b'{"title": "a"}'.ljust(65536)

    assert shared_client.post("/api/tasks", content=body, headers=JSON).status_code == 201
    refused = shared_client.post("/api/tasks", content=body + b" ", headers=JSON)
    assert refused.status_code == 413
    assert refused.json()["detail"] == "The body is too large; shorten it"


def test_chunked_body_is_accepted(shared_client: httpx.Client) -> None:
    response = shared_client.post("/api/tasks", content=iter([b'{"ti', b'tle": "a"}']), headers=JSON)

    assert response.status_code == 201
    assert response.json()["title"] == "a"


@pytest.mark.parametrize(
    ("query", "violations"),
    [
        ("limit=0", [("limit", "limit must be at least 1")]),
        ("limit=1001", [("limit", "limit must be at most 1000")]),
        ("limit=", [("limit", "limit must be of type integer")]),
        ("limit", [("limit", "limit must be of type integer")]),
        ("limit=1_0", [("limit", "limit must be of type integer")]),
        ("limit=%205", [("limit", "limit must be of type integer")]),
        ("limit=+5", [("limit", "limit must be of type integer")]),
        ("limit=05", [("limit", "limit must be of type integer")]),
        ("limit=5.0", [("limit", "limit must be of type integer")]),
        ("limit=٣", [("limit", "limit must be of type integer")]),
        ("limit=" + "9" * 5000, [("limit", "limit must be of type integer")]),
        ("limit=5&limit=5", [("limit", "limit must be given only once")]),
        ("after=-1", [("after", "after must be at least 0")]),
        ("after=9223372036854775808", [("after", "after must be at most 9223372036854775807")]),
        ("completed=", [("completed", "completed must be of type boolean")]),
        ("completed=True", [("completed", "completed must be of type boolean")]),
        ("completed=1", [("completed", "completed must be of type boolean")]),
        ("offset=1", [("offset", "offset is not a parameter of this operation")]),
        ("%FF=1", [("\ufffd", "\ufffd is not a parameter of this operation")]),
        (
            "a=1&limit=0&completed=maybe",
            [
                ("a", "a is not a parameter of this operation"),
                ("limit", "limit must be at least 1"),
                ("completed", "completed must be of type boolean"),
            ],
        ),
    ],
)
def test_every_violation_of_the_query_is_reported(
    shared_client: httpx.Client, query: str, violations: list[tuple[str, str]]
) -> None:
    response = shared_client.get(f"/api/tasks?{query}")

    assert response.status_code == 400
    assert [(error["parameter"], error["detail"]) for error in response.json()["errors"]] == violations


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/tasks"), ("GET", "/api/tasks/1"), ("DELETE", "/api/tasks/1")]
)
def test_operations_without_query_parameters_refuse_them(shared_client: httpx.Client, method: str, path: str) -> None:
    response = shared_client.request(method, f"{path}?limit=1", json={"title": "a"} if method == "POST" else None)

    assert response.status_code == 400
    assert response.json()["detail"] == "limit is not a parameter of this operation"


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"enum": ["a", "b"]}, "c", "thing must be one of a or b"),
        ({"type": "string", "nullable": True, "enum": ["a"]}, "b", "thing must be one of a or None"),
        ({"type": "string", "format": "date-time"}, "tomorrow", "thing must be a date-time"),
        ({"type": "string", "format": "date"}, "2026-02-30", "thing must be a date"),
        ({"type": "string", "format": "uuid"}, "1", "thing must be a uuid"),
        ({"type": "integer", "format": "int32"}, 2**31, "thing must be at most 2147483647"),
        ({"type": "integer", "format": "int64"}, -(2**63) - 1, "thing must be at least -9223372036854775808"),
        ({"type": "integer", "format": "int32", "minimum": 0, "nullable": True}, -1, "thing must be at least 0"),
        ({"type": "integer"}, 1.0, "thing must be of type integer"),
        ({"type": "string", "pattern": "^a$"}, "b", "thing must match ^a$"),
        ({"type": "string", "minLength": 2}, "b", "thing must have at least 2 characters"),
        ({"type": "string", "minLength": 2, "x-messages": {"minLength": "Say more"}}, "b", "Say more"),
        ({"type": "number", "multipleOf": 2}, 3, "thing is not a multiple of 2"),
        ({"type": "array", "items": {"type": "string"}}, [1], "0 must be of type string"),
    ],
)
def test_messages_for_other_schemas(schema: dict[str, Any], value: Any, message: str) -> None:
    assert [reported for _, reported in Rules(schema, "thing").violations(value)] == [message]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "nullable": True, "enum": ["a"]}, None),
        ({"type": "integer", "format": "int64"}, 2**63 - 1),
        ({"type": "string", "format": "uri-reference"}, "/a"),
        # A property may have the same name as a keyword of OpenAPI or JSON Schema.
        (
            {"type": "object", "properties": {"nullable": {"type": "boolean"}, "format": {"type": "string"}}},
            {"nullable": True},
        ),
    ],
)
def test_values_that_other_schemas_allow(schema: dict[str, Any], value: Any) -> None:
    rules = Rules(schema, "thing")

    assert rules.is_valid(value)
    assert list(rules.violations(value)) == []


def test_properties_may_be_named_like_keywords() -> None:
    schema = {"type": "object", "properties": {"nullable": {"type": "boolean"}}, "additionalProperties": False}

    assert Rules(schema, "thing").is_valid({"nullable": False})
