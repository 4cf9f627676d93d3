"""The standard parts complete any contract, and what the contract itself says takes precedence."""

from typing import Any

import yaml
from openapi_spec_validator import validate

from handlers.contract import standard

PROBLEM = "application/problem+json"
ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
BODY: dict[str, Any] = {"content": {"application/json": {}, "text/csv": {}}}
ALWAYS = {"400", "408", "414", "429", "431", "500", "503"}


def merged(operation: dict[str, Any], path: str = "/toys", parts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a valid contract with one operation, merged with the standard parts."""
    described = {"responses": {"200": {"description": "Toys."}}, **operation}
    contract = {
        "openapi": "3.0.3",
        "info": {"title": "Toys", "version": "1"},
        "paths": {path: {"get": described}},
        **(parts or {}),
    }
    found = standard.merge(contract, standard.PATH.read_bytes())
    validate(found)
    assert "get" in found["paths"][path]
    return found


def responses(contract: dict[str, Any]) -> dict[str, Any]:
    """Return the responses of the operation, with references to components resolved."""
    ((item,),) = [contract["paths"].values()]
    found = item["get"]["responses"]
    components = contract["components"]["responses"]
    return {
        key: components[value["$ref"].rpartition("/")[2]] if "$ref" in value else value for key, value in found.items()
    }


def problems(response: dict[str, Any]) -> dict[str, Any]:
    """Return the examples of problem documents by name."""
    return {name: example["value"] for name, example in response["content"][PROBLEM]["examples"].items()}


def test_operation_declares_what_the_engine_may_answer() -> None:
    assert responses(merged({})).keys() == {"200", *ALWAYS}
    assert responses(merged({"parameters": [ID]}, "/toys/{id}")).keys() == {"200", "404", *ALWAYS}
    assert responses(merged({"requestBody": BODY})).keys() == {"200", "413", "415", *ALWAYS}
    retried = {"name": "Key", "in": "header", "schema": {}, "x-retention-hours": 1}
    assert responses(merged({"parameters": [retried]})).keys() == {"200", "409", "422", *ALWAYS}


def test_operation_with_security_may_answer_401_and_403() -> None:
    flows = {"clientCredentials": {"tokenUrl": "/token", "scopes": {"read": "Read."}}}
    schemes = {"components": {"securitySchemes": {"login": {"type": "oauth2", "flows": flows}}}}
    assert responses(merged({"security": [{"login": []}]}, parts=schemes)).keys() == {"200", "401", *ALWAYS}
    assert responses(merged({"security": [{"login": ["read"]}]}, parts=schemes)).keys() == {
        "200",
        "401",
        "403",
        *ALWAYS,
    }
    assert responses(merged({"security": []}, parts={**schemes, "security": [{"login": []}]})).keys() == {
        "200",
        *ALWAYS,
    }


def test_every_response_has_the_standard_headers_unless_it_has_its_own() -> None:
    own = {"Cache-Control": {"schema": {"type": "string", "default": "public"}}}
    contract = merged({"responses": {"200": {"description": "Toys.", "headers": own}}})
    for response in responses(contract).values():
        assert {"X-Request-ID", "RateLimit", "RateLimit-Policy", "Cache-Control"} <= response["headers"].keys()
    assert responses(contract)["200"]["headers"]["Cache-Control"] == own["Cache-Control"]


def test_errors_of_the_contract_get_problem_documents() -> None:
    error = {"application/json": {"schema": {"type": "string"}}}
    found = responses(
        merged(
            {
                "responses": {
                    "404": {"description": "No such toy.\n"},
                    "409": {
                        "description": "Conflict.",
                        "x-problems": {"Taken": "It is taken", "Full": {"detail": "Full", "type": "/full"}},
                    },
                    "418": {"description": "Short.", "content": {PROBLEM: {"example": {"status": 418}}}},
                    "4XX": {"description": "Other.", "content": error},
                    "default": {"description": "Any.", "content": error},
                }
            }
        )
    )
    not_found = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "No such toy."}
    assert problems(found["404"]) == {"NotFound": not_found}
    assert {name: (value["type"], value["detail"]) for name, value in problems(found["409"]).items()} == {
        "Taken": ("about:blank", "It is taken"),
        "Full": ("/full", "Full"),
    }
    assert found["418"]["content"][PROBLEM]["example"] == {"status": 418}
    for key in ("4XX", "default"):
        assert found[key]["content"].keys() == {"application/json", PROBLEM}
        assert "examples" not in found[key]["content"][PROBLEM]


def test_problem_of_several_statuses_has_no_example() -> None:
    shared = {"$ref": "#/components/responses/Bad"}
    parts = {"components": {"responses": {"Bad": {"description": "Bad."}}}}
    found = responses(merged({"responses": {"400": shared, "404": shared}}, parts=parts))
    assert "examples" not in found["400"]["content"][PROBLEM]


def test_unsupported_media_type_names_the_supported_ones() -> None:
    found = problems(responses(merged({"requestBody": BODY}))["415"])
    assert [problem["detail"] for problem in found.values()] == [
        "Send the body, uncompressed, with the header Content-Type: application/json or text/csv"
    ]


def test_own_problems_of_an_idempotent_operation_come_first() -> None:
    retried = {"name": "Key", "in": "header", "schema": {}, "x-retention-hours": 1}
    own = {"409": {"description": "Taken.", "x-problems": {"Taken": "It is taken"}}}
    assert list(problems(responses(merged({"parameters": [retried], "responses": own}))["409"])) == [
        "Taken",
        "FirstRequestRunning",
    ]


def test_operation_with_if_match_may_answer_412() -> None:
    condition = {"name": "If-Match", "in": "header", "schema": {"type": "string"}}
    own = {"412": {"description": "It changed.", "x-problems": {"ToyChanged": "The toy has changed"}}}

    assert list(problems(responses(merged({"parameters": [condition]}))["412"])) == [
        "ResourceChanged",
        "EntityTagAltered",
    ]
    assert list(problems(responses(merged({"parameters": [condition], "responses": own}))["412"])) == [
        "ToyChanged",
        "EntityTagAltered",
    ]


def test_shared_response_stays_a_component() -> None:
    """Linters would report the component as unused if each operation had its own copy."""
    condition = {"name": "If-Match", "in": "header", "schema": {"type": "string"}}
    parts = {"components": {"responses": {"Changed": {"description": "It changed."}}}}
    reference = {"$ref": "#/components/responses/Changed"}
    contract = merged({"parameters": [condition], "responses": {"412": reference}}, parts=parts)

    assert contract["paths"]["/toys"]["get"]["responses"]["412"] == reference
    assert list(problems(responses(contract)["412"])) == ["EntityTagAltered"]


def test_parts_of_the_contract_take_precedence() -> None:
    failed = {"description": "It broke.", "x-problems": {"Failed": "It broke"}}
    contract = merged(
        {},
        parts={
            "components": {"responses": {"Failed": failed}},
            "x-messages": {"required": "Add {name}"},
            "x-max-bytes": 5,
        },
    )
    assert problems(responses(contract)["500"])["Failed"]["detail"] == "It broke"
    assert contract["x-messages"]["required"] == "Add {name}"
    assert contract["x-messages"]["type"]
    assert contract["x-max-bytes"] == 5


def test_merging_twice_changes_nothing() -> None:
    condition = {"name": "If-Match", "in": "header", "schema": {"type": "string"}}
    once = merged({"parameters": [ID, condition], "requestBody": BODY}, "/toys/{id}")
    assert standard.merge(once, standard.PATH.read_bytes()) == once


def test_every_standard_part_is_used() -> None:
    text = standard.PATH.read_text("utf-8")
    for kind, components in yaml.safe_load(text)["components"].items():
        for name in components:
            assert f"#/components/{kind}/{name}'" in text or name == "Problem"
