"""Parameters of every supported type, location and style reach the handler; others get a 400 that names them."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.application import Answer, Application, other_contract

INTEGER, NUMBER, BOOLEAN, STRING = ({"type": name} for name in ("integer", "number", "boolean", "string"))
INTEGERS, STRINGS = ({"type": "array", "items": item} for item in (INTEGER, STRING))
JSON_INTEGERS = {"content": {"application/json": {"schema": INTEGERS}}}
FILTER = {
    "type": "object",
    "allOf": [{"properties": {"size": INTEGER}}],
    "properties": {"colours": STRINGS, "name": STRING},
    "maxProperties": 3,
}
WHOLE = "must be an integer, such as 10"
DECIMAL = "must be a number, such as 2.5"
HANDLER = """
async def show(**values):
    return {name: value for name, value in values.items() if value is not None}
"""


def served(
    folder: Path, parameter: dict[str, Any], url: str, headers: dict[str, str] | None = None, **parts: Any
) -> Answer:
    """Send one request to an API whose only operation has one parameter and answers with the value that it got."""
    path = "/show/{x}" if parameter.get("in") == "path" else "/show"
    operation = {
        "operationId": "show",
        "parameters": [{"name": "x", "in": "query", **parameter}],
        "responses": {"200": {"description": "The values.", "content": {"application/json": {}}}},
    }

    async def send() -> Answer:
        return await Application(f"sqlite:///{folder}/unused.db").call("GET", url, headers=headers)

    contract = {"openapi": "3.0.3", "paths": {path: {"get": operation}}, **parts}
    with other_contract(folder, contract, operations=HANDLER):
        return asyncio.run(send())


def query(schema: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"schema": schema, **fields}


@pytest.mark.parametrize(
    ("parameter", "url", "value"),
    [
        (query(INTEGER), "?x=12", 12),
        (query(NUMBER), "?x=-1.5e2", -150.0),
        (query(NUMBER), "?x=3", 3.0),
        (query(BOOLEAN), "?x=true", True),
        (query(STRING), "?x=a%2Cb+c", "a,b c"),
        (query({"enum": ["red", "green"]}), "?x=red", "red"),
        (query({"oneOf": [INTEGER, STRING]}), "?x=12", 12),
        (query({"oneOf": [INTEGER, STRING]}), "?x=1a", "1a"),
        (query({"type": "integer", "default": 7}), "", 7),
        (query({"enum": [1, "a", True]}), "?x=1", 1),
        (query({"allOf": [{"type": "integer", "default": 7}]}), "", 7),
        (query({"anyOf": [INTEGER, {"$ref": "#/paths/~1show/get/parameters/0/schema"}]}), "?x=1", 1),
        (query({"type": "object", "additionalProperties": INTEGER}, style="deepObject"), "?x[a]=1", {"a": 1}),
        (query(STRINGS, style="pipeDelimited", explode=True), "?x=a&x=b", ["a", "b"]),
        (query(INTEGERS), "?x=1&x=2", [1, 2]),
        (query({"anyOf": [INTEGERS, {"type": "string", "nullable": True}]}), "?x=1&x=2", [1, 2]),
        (query(INTEGERS, explode=False), "?x=1,2", [1, 2]),
        (query(STRINGS, explode=False), "?x=", []),
        (query(INTEGERS, style="spaceDelimited", explode=False), "?x=1%202", [1, 2]),
        (query(STRINGS, style="pipeDelimited", explode=False), "?x=a|b", ["a", "b"]),
        (
            query(FILTER, style="deepObject"),
            "?x[size]=3&x[colours]=red&x[colours]=blue&x[name]=n",
            {"size": 3, "colours": ["red", "blue"], "name": "n"},
        ),
        (JSON_INTEGERS, "?x=" + quote("[1, 2]"), [1, 2]),
        (JSON_INTEGERS, "?x=" + quote("\ufeff[1, 2]"), [1, 2]),
        ({"in": "path", "required": True, "schema": INTEGER}, "/5", 5),
        ({"in": "path", "required": True, "schema": STRINGS}, "/a,b", ["a", "b"]),
    ],
)
def test_value_reaches_the_handler(parameter: dict[str, Any], url: str, value: Any, tmp_path: Path) -> None:
    answer = served(tmp_path, parameter, f"/show{url}")

    assert (answer.status, answer.json()) == (200, {"x": value})
    assert isinstance(answer.json()["x"], type(value))


@pytest.mark.parametrize(
    ("parameter", "headers", "value"),
    [
        ({"in": "header", "name": "X-Limit", "schema": INTEGER}, {"x-limit": "3"}, {"x_limit": 3}),
        ({"in": "header", "schema": INTEGERS}, {"X": "1, 2"}, {"x": [1, 2]}),
        ({"in": "header", "name": "Accept", "schema": INTEGER, "required": True}, {"accept": "*/*"}, {}),
        ({"in": "cookie", "schema": INTEGER}, {"cookie": "y=1; x=2"}, {"x": 2}),
        ({"in": "cookie", "schema": STRING}, {"cookie": "x=a%20b"}, {"x": "a b"}),
        ({"in": "cookie", "schema": INTEGERS, "explode": False}, {"cookie": "x=1,2"}, {"x": [1, 2]}),
        ({"name": "from", "schema": STRING}, {}, {}),
    ],
)
def test_value_of_a_header_field_or_cookie_reaches_the_handler(
    parameter: dict[str, Any], headers: dict[str, str], value: Any, tmp_path: Path
) -> None:
    answer = served(tmp_path, parameter, "/show", headers)

    assert (answer.status, answer.json()) == (200, value)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("class", "class_"), ("page-size", "page_size"), ("filter[a]", "filter_a"), ("address", "address")],
)
def test_any_name_becomes_an_argument(name: str, argument: str, tmp_path: Path) -> None:
    answer = served(tmp_path, {"name": name, "schema": STRING}, f"/show?{quote(name)}=1")

    assert answer.json() == {argument: "1"}


@pytest.mark.parametrize(
    ("parameter", "url", "rule", "sentence"),
    [
        (query(INTEGER), "?x=1.0", "type", f"x {WHOLE}"),
        (query(INTEGER), "?x=", "type", f"x {WHOLE}"),
        (query(NUMBER), "?x=1e999", "type", f"x {DECIMAL}"),
        (query(NUMBER), "?x=NaN", "type", f"x {DECIMAL}"),
        (query(BOOLEAN), "?x=True", "type", "x must be true or false"),
        (query({**BOOLEAN, "nullable": True}), "?x=null", "type", "x must be true or false"),
        (query({**BOOLEAN, "x-messages": {"type": "Yes or no?"}}), "?x=yes", "type", "Yes or no?"),
        (query({"oneOf": [BOOLEAN, INTEGER]}), "?x=yes", "type", "x must be of type boolean or integer"),
        (query({"type": "array", "items": BOOLEAN}), "?x=true&x=no", "type", "x[1] must be true or false"),
        (query(STRING), "?x=1&x=2", "repeated", "x must be given only once"),
        (query(STRING), "?y=1", "unknown", "y is not a parameter of this operation"),
        (query(STRING, required=True), "", "required", "x is required"),
        (query({**STRING, "x-messages": {"required": "Say x"}}, required=True), "", "required", "Say x"),
        (query({**FILTER, "required": ["name"]}, style="deepObject"), "?x[size]=3", "required", "name is required"),
        (query(FILTER, style="deepObject"), "?x[size]=big", "type", f"size {WHOLE}"),
        (query(FILTER, style="deepObject"), "?x[size]=3&x[size]=4", "repeated", "size must be given only once"),
        (query(FILTER, style="deepObject"), "?x=3", "unknown", "x is not a parameter of this operation"),
        (query(FILTER, style="deepObject"), "?y[size]=3", "unknown", "y[size] is not a parameter of this operation"),
        (JSON_INTEGERS, "?x=[", "json", "x must be a JSON document: "),
        (JSON_INTEGERS, '?x=["1"]', "type", "x[0] must be of type integer"),
    ],
)
def test_invalid_value_is_named(parameter: dict[str, Any], url: str, rule: str, sentence: str, tmp_path: Path) -> None:
    answer = served(tmp_path, parameter, f"/show{url}")

    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert [(error["rule"], error["detail"][: len(sentence)]) for error in answer.json()["errors"]] == [
        (rule, sentence)
    ]
    assert "parameter" in answer.json()["errors"][0]


@pytest.mark.parametrize("location", ["header", "cookie"])
def test_invalid_header_field_or_cookie_is_named(location: str, tmp_path: Path) -> None:
    field = {"x": "yes"} if location == "header" else {"cookie": "x=yes"}

    answer = served(tmp_path, {"in": location, "schema": BOOLEAN}, "/show", field)

    assert answer.json()["errors"] == [{"detail": "x must be true or false", "parameter": "x", "rule": "type"}]


@pytest.mark.parametrize("has_rule", [False, True])
def test_rule_is_omitted_if_the_contract_lacks_it(tmp_path: Path, has_rule: bool) -> None:
    """An API may have a schema `Violation` of its own, such as that of an earlier release."""
    own = {"type": "object", "properties": {"detail": STRING, "parameter": STRING, "pointer": STRING}}
    violation = (
        {"allOf": [own, {"properties": {"rule": STRING}}]} if has_rule else {**own, "additionalProperties": False}
    )

    answer = served(tmp_path, query(BOOLEAN), "/show?x=yes", components={"schemas": {"Violation": violation}})

    expected = {"detail": "x must be true or false", "parameter": "x"}
    assert answer.json()["errors"] == [{**expected, "rule": "type"} if has_rule else expected]


def test_invalid_path_parameter_identifies_nothing(tmp_path: Path) -> None:
    answer = served(tmp_path, {"in": "path", "required": True, "schema": INTEGER}, "/show/a")

    assert (answer.status, answer.json()["title"]) == (404, "Not Found")
