"""The contract is valid and complete, its examples are valid, and the code does not repeat its content."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from handlers.contract import document
from handlers.contract.validation import Rules
from tests.support.calls import METHODS
from tests.support.contract import resolved
from tests.support.project import ROOT

METHOD_OF = {
    operation["operationId"]: method
    for item in document.raw()["paths"].values()
    for method, operation in item.items()
    if method in METHODS
}


def nodes(node: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every JSON object in a document, with its path."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from nodes(value, f"{path}/{key}")
    if isinstance(node, list):
        for index, value in enumerate(node):
            yield from nodes(value, f"{path}/{index}")


def examples() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield every example in the contract, with its path and its schema."""
    for path, node in nodes(resolved()):
        schema = node if "type" in node and "/schemas/" in path else node.get("schema")
        if isinstance(schema, dict):
            if "example" in node:
                yield path, schema, node["example"]
            for name, example in node.get("examples", {}).items():
                yield f"{path}/examples/{name}", schema, example["value"]


def test_contract_is_valid_openapi() -> None:
    validate(document.raw())
    assert document.raw()["openapi"] == "3.0.3"


@pytest.mark.parametrize(("path", "schema", "example"), [pytest.param(*case, id=case[0]) for case in examples()])
def test_example_fits_its_schema(path: str, schema: dict[str, Any], example: Any) -> None:
    faults = [f"{found.pointer}: {found.detail}" for found in Rules(schema, "example").violations(example)]
    assert faults == [], f"correct the example {path} in openapi.yaml, or add the required properties"


def test_every_component_has_an_example() -> None:
    components = resolved()["components"]
    missing = [
        f"{kind}/{name}"
        for kind in ("parameters", "headers", "requestBodies", "responses")
        for name, component in components[kind].items()
        for media_type in component.get("content", {"": component}).values()
        if not {"example", "examples"} & media_type.keys()
        # A response without a body needs no example: it has only header fields, which have examples of their own.
        and "headers" not in media_type
    ]
    missing += [
        path
        for path, node in nodes(components["schemas"])
        if node.get("type") in ("string", "integer", "boolean") and "example" not in node
    ]
    assert missing == [], "give each of these an example in openapi.yaml"


def test_operations_are_described() -> None:
    operations = document.operations()
    tags = [[tag["name"]] for tag in document.raw()["tags"]]
    assert operations.keys() == METHOD_OF.keys()
    for operation in (operation.description for operation in operations.values()):
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"] in tags
        assert {"401", "414", "429", "431", "500", "503"} <= operation["responses"].keys()


def test_every_handler_is_an_operation() -> None:
    for tag in document.raw()["tags"]:
        module = import_module(f"handlers.{document.snake_case(tag['name'])}")
        found = vars(getattr(module, "Handlers", module)).items()
        handlers = {name for name, value in found if iscoroutinefunction(value) and name[0] != "_"}

        assert handlers == {
            document.snake_case(operation_id)
            for operation_id, operation in document.operations().items()
            if operation.description["tags"] == [tag["name"]]
        }


@pytest.mark.parametrize("operation_id", [*METHOD_OF, None])
def test_problem_examples_have_the_status_of_their_response(operation_id: str | None) -> None:
    for status, response in document.responses(operation_id).items():
        content = response.get("content", {})
        for example in content.get("application/problem+json", {}).get("examples", {}).values():
            assert str(example["value"]["status"]) == status


def test_contract_does_not_mention_python_code() -> None:
    assert not re.search(r"x-openapi-router-controller|handlers|models\.", document.PATH.read_text("utf-8"))


def test_descriptions_state_the_limits() -> None:
    limits = [
        node
        for _, node in nodes(document.raw())
        if {"x-max-bytes", "x-seconds"} & node.keys() and "description" in node
    ]
    # At least the body, the request target, the header fields and the time to send them have a limit.
    assert len(limits) >= 4
    for node in limits:
        for name, unit in (("x-max-bytes", "bytes"), ("x-seconds", "seconds")):
            assert name not in node or f"{node[name]:,} {unit}" in node["description"]


def test_integer_formats_match_the_limits() -> None:
    """SDK generators choose the integer type of a property by its format."""
    for path, node in nodes(document.raw()):
        if node.get("type") == "integer":
            largest = max(abs(node.get(limit, 0)) for limit in ("minimum", "maximum"))
            assert node.get("format") == ("int64" if largest >= 2**31 else "int32"), path


def test_description_states_the_retention_period() -> None:
    with_retention = [node for _, node in nodes(document.raw()) if "x-retention-hours" in node]
    assert with_retention
    for node in with_retention:
        assert f"{node['x-retention-hours']} hours" in node["description"]


def test_every_response_documents_cache_control() -> None:
    """A client may cache what it can revalidate: a response to GET with an entity tag."""
    for operation_id in (*METHOD_OF, None):
        for status, response in document.responses(operation_id).items():
            cacheable = "ETag" in response["headers"] and METHOD_OF.get(operation_id or "") == "get"
            directive = document.constant_headers(operation_id, int(status))["Cache-Control"]
            assert directive == ("private, no-cache" if cacheable else "no-store")


def test_every_response_documents_the_request_id() -> None:
    for operation_id in (*document.operations(), None):
        for status, response in document.responses(operation_id).items():
            assert "X-Request-ID" in response["headers"], f"{operation_id} {status}"


def test_custom_messages_belong_to_keywords() -> None:
    """A custom message for a keyword that the schema does not contain would never be used."""
    for path, node in nodes(document.raw()["components"]["schemas"]):
        assert node.get("x-messages", {}).keys() <= {*node, "required"}, path


def test_python_repeats_no_sentence_of_the_contract() -> None:
    sources = "".join(
        path.read_text("utf-8")
        for folder in ("handlers", "models")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "schemas.py"
    )
    sentences = {
        value
        for path, node in nodes(document.raw())
        for key, value in node.items()
        if isinstance(value, str) and (key == "detail" or "x-messages" in path) and value.count(" ") > 1
    }
    assert len(sentences) > 20
    assert [sentence for sentence in sentences if sentence in sources] == []


@pytest.mark.slow
def test_models_are_generated_from_the_contract() -> None:
    generator = Path(sys.executable).with_name("datamodel-codegen")
    check = subprocess.run([generator, "--check"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)

    assert check.returncode == 0, check.stdout + check.stderr


def test_schemas_are_compiled_as_json_schema() -> None:
    """The compiled schemas check formats, and allow null where OpenAPI's `nullable` does."""
    schema = resolved()["components"]["schemas"]["Task"]
    task = {name: part["example"] for name, part in schema["properties"].items()}
    task |= {"description": None, "createdAt": "2026-13-12T10:32:14.000Z"}

    assert [found.pointer for found in Rules(schema, "task").violations(task)] == ["/createdAt"]
