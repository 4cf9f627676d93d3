"""A generated model accepts a body exactly if the model's schema in the contract accepts it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import yaml
from datamodel_code_generator.parser.jsonschema import json_schema_data_formats
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from handlers.contract.validation import Rules
from models import schemas
from tests.support.contract import resolved
from tests.support.project import ROOT

SCHEMAS = resolved()["components"]["schemas"]
# A nightly run sets a larger number of examples.
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "250"))
# Other models are not tested: the service never rejects a body because of them.
MODELS = [schemas.TaskInput, schemas.Task]

# Edge cases: whitespace, characters that some languages count as two, and line endings in regular expressions. Without
# U+FEFF, which `\s` matches in the contract (ECMAScript), but not in the models (Rust).
CHARACTERS = (
    " \t\n\r\v\f\0\x1c\x1f\x7f\x85\xa0\u1680\u180e\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u3000\U0010ffff🚀é́aZ09"
)
LENGTHS = [0, 1, 2, 254, 255, 256, 3999, 4000, 4001]
TEXTS = st.one_of(
    st.text(st.sampled_from(CHARACTERS), max_size=6),
    st.builds(lambda character, length: character * length, st.sampled_from(CHARACTERS), st.sampled_from(LENGTHS)),
    st.builds(lambda length, end: "a" * length + end, st.sampled_from([0, 253, 254, 255, 3999]), st.text(max_size=2)),
    st.sampled_from(["2026-05-12T10:32:14.000Z", "2026-05-12T10:32:14Z", "2026-05-12T10:32:14.000Z\n"]),
)
NUMBERS = st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, 0.0, 1.0, 1.5, 1e300])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["title", "a"]), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def bodies(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    """Draw a valid body in which up to three properties are removed, added or changed; rarely, draw any JSON value."""
    if draw(st.integers(0, 19)) == 0:
        return draw(VALUES)
    body = {name: part["example"] for name, part in schema["properties"].items()}
    for name in draw(st.lists(st.sampled_from([*schema["properties"], "id", "createdAt", "other"]), max_size=3)):
        if draw(st.booleans()):
            body.pop(name, None)
        else:
            body[name] = draw(TEXTS if draw(st.booleans()) else VALUES)
    return body


def accepts(model: type[BaseModel], body: Any) -> bool:
    try:
        model.model_validate(body)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_and_schema_agree(model: type[BaseModel]) -> None:
    schema = SCHEMAS[model.__name__]
    # In models, every format is text.
    parts = {name: {**part, "format": "text"} for name, part in schema["properties"].items()}
    rules = Rules({**schema, "properties": parts}, "The body")
    outcomes = set()

    @given(bodies(schema))
    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
    def agree(body: Any) -> None:
        body = json.loads(json.dumps(body))
        allowed = rules.is_valid(body)
        outcomes.add(allowed)
        assert allowed == accepts(model, body)
        assert allowed != bool(list(rules.violations(body)))

    agree()
    assert outcomes == {True, False}


# A document with schemas of every kind, and the models generated from it.
EVERY = yaml.safe_load(Path(__file__).with_name("every_schema.yaml").read_text("utf-8"))
EVERY_SCHEMA = EVERY["components"]["schemas"]
# Their models accept only the names by which a discriminator chooses them, even where they are used without it.
CHOSEN = {"Circle", "Square"}
# The service refuses to use it: its discriminator has no list of alternatives.
ABSTRACT = {"Vehicle"}
# By type, values that are valid for some of its schemas, or nearly.
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from(["", "x", "two", "abcd", "\0", "circle", "box", *EVERY_SCHEMA]),
    "number": st.sampled_from([0, 1, 2, -1.5, 2.5, 0.3, 2**53 + 1, 1e300, 10**400]),
    "integer": st.sampled_from([0, 1, 2, 3, 4, 7, 2**53 + 1, 10**400]),
    "boolean": st.booleans(),
}
ANYTHING = st.recursive(
    st.none() | st.one_of(*PARTS.values()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "name"]), inner, max_size=2),
    max_leaves=3,
)


def generate(document: Path, output: Path) -> None:
    """Generate models from a document, with the project's options."""
    generator = Path(sys.executable).with_name("datamodel-codegen")
    subprocess.run([generator, "--input", document, "--output", output], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Generate models from the document, and import them."""
    output = tmp_path_factory.mktemp("models") / "generated.py"
    generate(Path(__file__).with_name("every_schema.yaml"), output)
    spec = importlib.util.spec_from_file_location("generated_models", output)
    assert spec and spec.loader
    # Pydantic looks up the types of fields in the module.
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@st.composite
def values(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    """Draw a value that is valid for a schema, or nearly."""
    options = schema.get("oneOf") or schema.get("anyOf")
    if draw(st.integers(0, 20)) == 0:
        value = draw(ANYTHING)
    elif "$ref" in schema:
        value = draw(values(EVERY_SCHEMA[schema["$ref"].rpartition("/")[2]]))
    elif "allOf" in schema:
        drawn = [draw(values(part)) for part in schema["allOf"]]
        value = {name: value for part in drawn if isinstance(part, dict) for name, value in part.items()}
    elif options:
        value = draw(values(draw(st.sampled_from(options))))
    elif "example" in schema:
        value = schema["example"]
    elif "enum" in schema:
        value = draw(st.sampled_from(schema["enum"]))
    elif schema.get("type") == "array":
        value = draw(st.lists(values(schema["items"]), max_size=2))
    elif schema.get("type") == "object":
        value = draw(objects(schema))
    else:
        value = draw(PARTS.get(schema.get("type", ""), ANYTHING))
    return value


@st.composite
def objects(draw: st.DrawFn, schema: dict[str, Any]) -> dict[str, Any]:
    """Draw an object that is valid for a schema, or nearly."""
    properties = schema.get("properties", {})
    # In one direction or the other, a marked property is not required.
    needed = [name for name in schema.get("required", ()) if not {"readOnly", "writeOnly"} & properties[name].keys()]
    names = [name for name in properties if name in needed or draw(st.integers(0, 2)) == 0]
    value = {name: draw(values(properties[name])) for name in names}
    if draw(st.booleans()):
        value[draw(st.sampled_from("ab"))] = draw(values(schema.get("additionalProperties") or {}))
    return value


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["request", "response"])
@pytest.mark.parametrize("name", sorted(EVERY_SCHEMA.keys() - CHOSEN - ABSTRACT))
def test_generated_model_accepts_what_its_schema_accepts(
    generated: ModuleType, name: str, direction: Literal["request", "response"]
) -> None:
    rules = Rules({"$ref": f"#/components/schemas/{name}"}, "The body", direction=direction, contract=EVERY)
    model = getattr(generated, name, None) or getattr(generated, f"{name}{direction.title()}")
    outcomes = set()

    @given(values(EVERY_SCHEMA[name]))
    @settings(max_examples=EXAMPLES // 4, derandomize=True, deadline=None, database=None)
    def agree(value: Any) -> None:
        allowed = rules.is_valid(value)
        outcomes.add(allowed)
        # A model may accept more: it does not check formats, `not` and `uniqueItems`, for instance.
        assert accepts(model, value) or not allowed
        assert allowed != bool(list(rules.violations(value)))

    agree()
    assert outcomes == ({True} if name == "Anything" else {True, False})


@pytest.mark.slow
def test_generated_models_keep_values_as_sent(generated: ModuleType) -> None:
    properties = EVERY_SCHEMA["Formats"]["properties"]
    sent = {name: part["example"] for name, part in properties.items()} | {"other": {"a": [None]}}

    assert Rules({"$ref": "#/components/schemas/Formats"}, "", contract=EVERY).is_valid(sent)
    assert generated.Formats.model_validate(sent).model_dump(by_alias=True) == sent


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["string", "number", "integer"])
def test_every_format_is_generated_as_its_plain_type(tmp_path: Path, kind: str) -> None:
    properties = {name: {"type": kind, "format": name} for name in json_schema_data_formats[kind]}
    contract = {"openapi": "3.0.3", "info": {"title": "", "version": ""}, "paths": {}}
    contract["components"] = {"schemas": {"Formats": {"type": "object", "properties": properties}}}
    (tmp_path / "openapi.json").write_text(json.dumps(contract), "utf-8")

    generate(tmp_path / "openapi.json", tmp_path / "formats.py")

    strict = {"string": "StrictStr", "number": "StrictFloat", "integer": "StrictInt"}[kind]
    types = re.findall(r"(\w+) \| None", (tmp_path / "formats.py").read_text("utf-8"))
    assert set(types) == {strict}
    assert len(types) == len(properties)
