"""Validation of requests, and the error messages for invalid requests."""

from typing import Any

import httpx
import pytest

from handlers.contract.faults import FaultError
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
    assert all(error["rule"] for error in problem["errors"])
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
        b"\xef\xbb\xbf",
        b'\xef\xbb\xbf\xef\xbb\xbf{"title": "a"}',
        b'{\xef\xbb\xbf"title": "a"}',
        '{"title": "a"}'.encode("utf-16"),
        '{"title": "a"}'.encode("utf-16-be"),
        b"{'title': 'a'}",
    ],
)
def test_invalid_json_is_refused(shared_client: httpx.Client, body: bytes) -> None:
    response = shared_client.post("/api/tasks", content=body, headers=JSON)

    problem = response.json()
    assert response.status_code == 400
    assert [(error["pointer"], error["rule"]) for error in problem["errors"]] == [("", "json")]
    assert problem["detail"].startswith("The body must be a JSON document: ")


def test_byte_order_mark_is_ignored(shared_client: httpx.Client) -> None:
    created = shared_client.post("/api/tasks", content=b'\xef\xbb\xbf{"title": "\xef\xbb\xbfa"}', headers=JSON)
    refused = shared_client.post("/api/tasks", content=b"\xef\xbb\xbf{,}", headers=JSON)

    assert (created.status_code, created.json()["title"]) == (201, "\ufeffa")
    assert refused.json()["detail"].endswith(" at line 1 column 2")


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", "application/json;odata=verbose"]
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
        ("limit=", [("limit", "limit must be an integer, such as 10")]),
        ("limit", [("limit", "limit must be an integer, such as 10")]),
        ("limit=1_0", [("limit", "limit must be an integer, such as 10")]),
        ("limit=%205", [("limit", "limit must be an integer, such as 10")]),
        ("limit=+5", [("limit", "limit must be an integer, such as 10")]),
        ("limit=05", [("limit", "limit must be an integer, such as 10")]),
        ("limit=5.0", [("limit", "limit must be an integer, such as 10")]),
        ("limit=٣", [("limit", "limit must be an integer, such as 10")]),
        ("limit=" + "9" * 5000, [("limit", "limit must be an integer, such as 10")]),
        ("limit=5&limit=5", [("limit", "limit must be given only once")]),
        ("after=-1", [("after", "after must be at least 0")]),
        ("after=9007199254740992", [("after", "after must be at most 9007199254740991")]),
        ("completed=", [("completed", "completed must be true or false")]),
        ("completed=True", [("completed", "completed must be true or false")]),
        ("completed=1", [("completed", "completed must be true or false")]),
        ("offset=1", [("offset", "offset is not a parameter of this operation")]),
        ("%FF=1", [("\ufffd", "\ufffd is not a parameter of this operation")]),
        (
            "a=1&limit=0&completed=maybe",
            [
                ("a", "a is not a parameter of this operation"),
                ("limit", "limit must be at least 1"),
                ("completed", "completed must be true or false"),
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


def test_each_violation_names_its_rule(shared_client: httpx.Client) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    body = {"title": "a" * 256, "description": 1, "other": 1}
    created = shared_client.post("/api/tasks?a=1", json=body, headers=headers)
    listed = shared_client.get("/api/tasks?limit=0&after=1&after=2&completed=yes")

    found = {
        (error.get("pointer", error.get("parameter")), error["rule"])
        for response in (created, listed)
        for error in response.json()["errors"]
    }
    assert found == {
        ("a", "unknown"),
        ("Idempotency-Key", "repeated"),
        ("/title", "maxLength"),
        ("/description", "type"),
        ("/other", "additionalProperties"),
        ("limit", "minimum"),
        ("after", "repeated"),
        ("completed", "type"),
    }


@pytest.mark.parametrize(
    ("schema", "value", "rule", "message"),
    [
        ({"enum": ["a", "b"]}, "c", "enum", "thing must be one of a or b"),
        ({"enum": ["red", "green", "blue"]}, "c", "enum", "thing must be one of red, green or blue"),
        ({"enum": [True, 1.5, {"a": []}]}, "c", "enum", 'thing must be one of true, 1.5 or {"a": []}'),
        ({"type": "string", "nullable": True, "enum": ["a", None]}, "b", "enum", "thing must be one of a or null"),
        ({"type": "string", "format": "date-time"}, "tomorrow", "format", "thing must be a valid date-time"),
        ({"type": "string", "format": "date"}, "2026-02-30", "format", "thing must be a valid date"),
        ({"type": "string", "format": "uuid"}, "1", "format", "thing must be a valid uuid"),
        ({"type": "string", "format": "byte"}, "YQ=", "format", "thing must be a valid byte"),
        ({"type": "integer", "format": "int32"}, 2**31, "maximum", "thing must be at most 2147483647"),
        (
            {"type": "integer", "format": "int64"},
            -(2**63) - 1,
            "minimum",
            "thing must be at least -9223372036854775808",
        ),
        (
            {"type": "integer", "format": "int32", "minimum": 0, "nullable": True},
            -1,
            "minimum",
            "thing must be at least 0",
        ),
        ({"type": "integer"}, 1.0, "type", "thing must be of type integer"),
        ({"type": "string", "pattern": "^a$"}, "b", "pattern", "thing must match ^a$"),
        # The library gives up.
        ({"pattern": r"^(a|a)*\1$"}, "a" * 40 + "b", "pattern", r"thing must match ^(a|a)*\1$"),
        ({"type": "string", "minLength": 2}, "b", "minLength", "thing must have at least 2 characters"),
        ({"type": "string", "minLength": 2, "x-messages": {"minLength": "Say more"}}, "b", "minLength", "Say more"),
        # A sentence is not repeated.
        ({"maxLength": 1, "pattern": "^.$", "x-messages": {"maxLength": "A", "pattern": "A"}}, "ab", "maxLength", "A"),
        ({"type": "number", "format": "float"}, 1e39, "maximum", "thing must be at most 3.4028234663852886e+38"),
        ({"type": "number"}, 10**309, "maximum", "thing must be at most 1.7976931348623157e+308"),
        (
            {"type": "integer", "format": "int32", "minimum": -(10**10)},
            -(2**31) - 1,
            "minimum",
            "thing must be at least -2147483648",
        ),
        ({"type": "number", "multipleOf": 2}, 3, "multipleOf", "thing must be a multiple of 2"),
        ({"minimum": 1, "exclusiveMinimum": True}, 1, "exclusiveMinimum", "thing must be greater than 1"),
        ({"maximum": 1, "exclusiveMaximum": True}, 1, "exclusiveMaximum", "thing must be less than 1"),
        ({"type": "array", "items": {"type": "string"}}, [1], "type", "thing[0] must be of type string"),
        ({"items": {"items": {"type": "string"}}}, [[], ["a", 1]], "type", "thing[1][1] must be of type string"),
        (
            {"properties": {"colours": {"items": {"enum": ["a"]}}}},
            {"colours": ["b"]},
            "enum",
            "colours[0] must be one of a",
        ),
        ({"properties": {"7": {"type": "string"}}}, {"7": 1}, "type", "7 must be of type string"),
        ({"additionalProperties": {"type": "integer"}}, {"a": ""}, "type", "a must be of type integer"),
        ({"additionalProperties": False}, {"7": ""}, "additionalProperties", "7 is not a property of this object"),
        (
            {"additionalProperties": False, "x-messages": {"additionalProperties": "No"}},
            {"a": 1},
            "additionalProperties",
            "No",
        ),
        (
            {"additionalProperties": {"type": "integer"}},
            {"a" * 101: ""},
            "type",
            "a" * 100 + " must be of type integer",
        ),
        ({"minItems": 2}, [1], "minItems", "thing must have at least 2 items"),
        ({"maxItems": 0}, [1], "maxItems", "thing must have at most 0 items"),
        ({"uniqueItems": True}, [1, 1], "uniqueItems", "thing must not have the same item twice"),
        ({"minProperties": 2}, {}, "minProperties", "thing must have at least 2 properties"),
        ({"maxProperties": 0}, {"a": 1}, "maxProperties", "thing must have at most 0 properties"),
        ({"not": {}}, 1, "not", "thing has a form that is not allowed"),
        ({"not": {}, "nullable": True}, 1, "not", "thing has a form that is not allowed"),
        ({"anyOf": [{"minimum": 1}, {"minimum": 2}]}, 0, "anyOf", "thing has none of the allowed forms"),
        ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3, "oneOf", "thing must have exactly one of the allowed forms"),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, [], "type", "thing must be of type integer or string"),
        (
            {"anyOf": [{"type": "string", "maxLength": 1}, {"type": "integer"}]},
            "ab",
            "maxLength",
            "thing must have at most 1 characters",
        ),
        ({"nullable": True, "allOf": [{"type": "string"}]}, 1, "type", "thing must be of type null or string"),
        (
            {"oneOf": [{"type": "boolean"}, {"type": "string", "nullable": True}]},
            1,
            "type",
            "thing must be of type boolean, null or string",
        ),
        (
            {"nullable": True, "allOf": [{"type": "string"}], "x-messages": {"type": "Send text"}},
            1,
            "type",
            "Send text",
        ),
    ],
)
def test_messages_for_other_schemas(schema: dict[str, Any], value: Any, rule: str, message: str) -> None:
    assert [(found.rule, found.detail) for found in Rules(schema, "thing").violations(value)] == [(rule, message)]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "nullable": True, "enum": ["a", None]}, None),
        ({"nullable": True, "allOf": [{"type": "string"}]}, None),
        ({"nullable": True, "oneOf": [{"type": "string"}]}, None),
        ({"nullable": True, "minLength": 2}, None),
        ({"type": "object", "required": []}, {}),
        ({"type": "integer", "format": "int64"}, 2**63 - 1),
        ({"type": "string", "format": "date"}, "0000-01-01"),
        ({"type": "string", "format": "byte"}, "YQ=="),
        ({"type": "string", "format": "colour"}, "blue"),
        # Examples and defaults are no schemas.
        ({"example": {"$ref": "a", "type": 1}, "default": {"allOf": 3}, "enum": [{"$ref": "b"}]}, {"$ref": "b"}),
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


CONTRACT = {
    "openapi": "3.0.3",
    "components": {
        "schemas": {
            "Cat": {"required": ["lives"], "properties": {"lives": {"type": "integer"}}},
            "Dog": {"properties": {"kind": {"type": "string"}, "name": {"$ref": "#/components/schemas/Name"}}},
            "Name": {
                "type": "string",
                "minLength": 1,
                "x-messages": {"minLength": "Name it", "required": "Needs a name"},
            },
            "Named": {"required": ["name"], "properties": {"name": {"$ref": "#/components/schemas/Name"}}},
            "Pet": {
                "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}],
                "discriminator": {"propertyName": "kind"},
            },
            "Mapped": {
                "anyOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}],
                "discriminator": {
                    "propertyName": "kind",
                    "mapping": {"c": "#/components/schemas/Cat", "dog": "Dog", "hound": "Dog"},
                },
            },
            "Contradiction": {
                "oneOf": [{"$ref": "#/components/schemas/Nameless"}],
                "discriminator": {"propertyName": "kind"},
            },
            "Quiet": {"not": {"required": ["noise"]}},
            "Guarded": {
                "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Quiet"}],
                "discriminator": {"propertyName": "kind"},
            },
            "Nameless": {"properties": {"kind": {"enum": ["none"]}}},
            "Vehicle": {
                "type": "object",
                "required": ["type"],
                "discriminator": {"propertyName": "type"},
            },
            "Car": {"allOf": [{"$ref": "#/components/schemas/Vehicle"}, {"required": ["doors"]}]},
            "Tree": {
                "required": ["value"],
                "properties": {"children": {"items": {"$ref": "#/components/schemas/Tree"}}, "a/b": {"enum": [1]}},
            },
            "Account": {
                "required": ["id", "password"],
                "properties": {
                    "id": {"type": "integer", "readOnly": True},
                    "password": {"allOf": [{"$ref": "#/components/schemas/Secret"}]},
                },
            },
            "Secret": {"type": "string", "writeOnly": True},
            "Renamed": {"allOf": [{"$ref": "#/components/schemas/Account"}, {"required": ["id", "new"]}]},
        }
    },
}


def rules_of(name: str, **options: Any) -> Rules:
    return Rules({"$ref": f"#/components/schemas/{name}"}, "The pet", contract=CONTRACT, **options)


@pytest.mark.parametrize(
    ("name", "value", "violations"),
    [
        ("Pet", {"kind": "Dog", "lives": "many"}, []),
        ("Pet", {"kind": "Cat", "lives": 9}, []),
        ("Pet", {"kind": "Cat", "name": ""}, [("/lives", "required", "lives is required")]),
        ("Pet", {"kind": "Dog", "name": ""}, [("/name", "minLength", "Name it")]),
        ("Pet", {"kind": "Cow"}, [("/kind", "discriminator", "kind must be one of Cat or Dog")]),
        ("Pet", {}, [("/kind", "required", "kind is required")]),
        ("Pet", 1, [("", "type", "The pet must be of type object")]),
        ("Mapped", {"kind": "hound"}, []),
        ("Mapped", {"kind": "c"}, [("/lives", "required", "lives is required")]),
        ("Mapped", {"kind": "Cat", "lives": 9}, [("/kind", "discriminator", "kind must be one of c, dog or hound")]),
        ("Contradiction", {"kind": "Nameless"}, [("/kind", "enum", "kind must be one of none")]),
        ("Guarded", {"kind": "Quiet", "noise": 1}, [("", "not", "The pet has a form that is not allowed")]),
        ("Car", {"type": "any", "doors": 4}, []),
        ("Named", {}, [("/name", "required", "Needs a name")]),
        (
            "Tree",
            {"value": 1, "children": [{"children": []}]},
            [("/children/0/value", "required", "value is required")],
        ),
        ("Tree/properties/a~1b", 2, [("", "enum", "The pet must be one of 1")]),
    ],
)
def test_references_and_discriminators(name: str, value: Any, violations: list[tuple[str, str, str]]) -> None:
    rules = rules_of(name)

    assert [(found.pointer, found.rule, found.detail) for found in rules.violations(value)] == violations
    assert rules.is_valid(value) == (not violations)


@pytest.mark.parametrize(
    ("name", "direction", "value", "reported"),
    [
        ("Account", "request", {"password": "a"}, []),
        (
            "Account",
            "request",
            {"id": 1, "password": 1},
            [("readOnly", "id is read-only; leave it out"), ("type", "password must be of type string")],
        ),
        ("Account", "request", {}, [("required", "password is required")]),
        ("Account", "response", {"id": 1}, []),
        (
            "Account",
            "response",
            {"password": "a"},
            [("required", "id is required"), ("writeOnly", "password is write-only; leave it out")],
        ),
        ("Renamed", "request", {"password": "a"}, [("required", "new is required")]),
    ],
)
def test_properties_of_one_direction(name: str, direction: str, value: Any, reported: list[tuple[str, str]]) -> None:
    violations = rules_of(name, direction=direction).violations(value)

    assert sorted((violation.rule, violation.detail) for violation in violations) == reported


@pytest.mark.parametrize(
    ("schema", "value", "rule", "message"),
    [
        ({"type": ["string", "null"]}, 1, "type", "thing must be of type null or string"),
        (
            {"anyOf": [{"minLength": 2, "type": "string"}, {"type": "null"}]},
            "a",
            "minLength",
            "thing must have at least 2 characters",
        ),
        (
            {
                "oneOf": [
                    {"properties": {"a": {"const": 1}, "b": {"type": "null"}}, "required": ["a"]},
                    {"type": "array"},
                ]
            },
            {"a": 1, "b": 2},
            "type",
            "b must be of type null",
        ),
        ({"const": "a"}, "b", "const", "thing must be a"),
        ({"exclusiveMinimum": 1}, 1, "exclusiveMinimum", "thing must be greater than 1"),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "dependentRequired", "b is required"),
        (
            {"propertyNames": {"maxLength": 1}},
            {"ab": 1},
            "propertyNames",
            "thing has a property whose name is not allowed",
        ),
        (
            {"contains": {"type": "string"}},
            [1],
            "contains",
            "thing has too few or too many of the items that it must contain",
        ),
        ({"unevaluatedProperties": False}, {"a": 1}, "unevaluatedProperties", "a is not a property of this object"),
        # Where a property violates its schema, no property counts as evaluated.
        (
            {"allOf": [{"properties": {"a": {"type": "null"}, "b": {}}}], "unevaluatedProperties": False},
            {"a": 1, "b": 1},
            "type",
            "a must be of type null",
        ),
        (
            {"properties": {"a": {"unevaluatedItems": False}}, "not": {}, "unevaluatedProperties": False},
            {"a": []},
            "not",
            "thing has a form that is not allowed",
        ),
        (
            {
                "allOf": [{"properties": {"a": {"properties": {}, "unevaluatedProperties": False}}}],
                "unevaluatedProperties": False,
            },
            {"a": {"b": 1}},
            "unevaluatedProperties",
            "b is not a property of this object",
        ),
        (
            {
                "oneOf": [
                    {"type": "array"},
                    {"allOf": [{"properties": {"a": {"type": "null"}}}], "unevaluatedProperties": False},
                ]
            },
            {"a": 1},
            "type",
            "a must be of type null",
        ),
        ({"unevaluatedItems": False}, [1], "unevaluatedItems", "thing has items that are not allowed"),
        ({"required": ["b"], "properties": {"b": True}}, {}, "required", "b is required"),
        ({"prefixItems": [False]}, [1], "other", "thing[0] is not allowed here"),
        (
            {"properties": {"additionalProperties": False}},
            {"additionalProperties": 1},
            "other",
            "additionalProperties is not allowed here",
        ),
        (
            {"$ref": "#/components/schemas/Text", "maxLength": 2},
            "abc",
            "maxLength",
            "thing must have at most 2 characters",
        ),
        (
            {
                "oneOf": [{"$ref": "#/components/schemas/Text"}, {"type": "null"}],
                "discriminator": {"propertyName": "a"},
            },
            1,
            "type",
            "thing must be of type null or string",
        ),
    ],
)
def test_messages_of_openapi_3_1(schema: dict[str, Any], value: Any, rule: str, message: str) -> None:
    contract = {"openapi": "3.1.1", "components": {"schemas": {"Text": {"type": "string"}}}}

    found = Rules(schema, "thing", contract=contract).violations(value)
    assert [(violation.rule, violation.detail) for violation in found] == [(rule, message)]


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"properties": {"a": {"pattern": "("}}}, "x.properties.a.pattern: this is not a valid schema ("),
        ({"allOf": [{"type": "text"}]}, "x.allOf[0].type: this is not a valid schema (the value is not one of"),
        ({"items": {"minLength": -1}}, "x.items.minLength: this is not a valid schema (the value is less than"),
        ({"$ref": "#/components/schemas/Cow"}, "x: this is not a valid schema ('Cow')"),
        (
            {"items": {"$ref": "#/components/schemas/Vehicle"}},
            "x.items.$ref: a discriminator without oneOf and anyOf is not supported; add oneOf with all alternatives.",
        ),
        ({"not": {"$anchor": "a"}}, "x.not.$anchor: $anchor is not supported; use $ref with a JSON Pointer."),
        ({"properties": 1}, "x: this is not a valid schema ("),
        ({"allOf": {}}, "x.allOf: this is not a valid schema (the value is not of type"),
        (1, "x: this is not a valid schema (the value is not of type"),
    ],
)
def test_fault_names_its_place(schema: Any, fault: str) -> None:
    with pytest.raises(FaultError) as raised:
        Rules(schema, "thing", place="x", contract=CONTRACT)

    assert str(raised.value).startswith(fault)


def test_fault_of_a_component_is_placed_in_the_component() -> None:
    contract = {"openapi": "3.0.3", "components": {"responses": [{"items": {"pattern": "("}}]}}

    with pytest.raises(FaultError, match=r"^components\.responses\.0\.items\.pattern: "):
        Rules({"$ref": "#/components/responses/0"}, "thing", contract=contract)
