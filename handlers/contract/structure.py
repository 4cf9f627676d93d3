"""Check the structure of a contract: it is an OpenAPI document, and every reference leads somewhere."""

import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jsonschema_rs import Draft7Validator

VERSIONS = ("3.0.", "3.1.")
REFERENCE = {"$ref": "#/definitions/Reference"}
VALUES = ("example", "default", "enum", "const", "value")
# The JSON Schemas of this service's extensions, by the object of OpenAPI to which they belong.
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
# A message of the top level may contain no other placeholders.
TEMPLATES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^([^{}]|\{(name|limit)\})*$"}}
SIZE = {"type": "integer", "minimum": 1}
EXTENSIONS = {
    "Schema": {"x-messages": TEXTS},
    "Parameter": {"x-list": {"type": "boolean"}, "x-retention-hours": {"type": "number", "minimum": 0}},
    "RequestBody": {"x-max-bytes": SIZE},
    "Response": {
        "x-max-bytes": SIZE,
        "x-seconds": SIZE,
        "x-problems": {"type": "object", "minProperties": 1, "additionalProperties": {"type": ["string", "object"]}},
    },
}
# The kinds of components to which references in these places must lead; all others lead to schemas or path items.
KINDS = {"requestBody": "requestBodies", "parameters": "parameters", "responses": "responses", "headers": "headers"}
# Objects that OpenAPI 3.1 extends.
EXTENDED = ("Info", "License", "Components", "Reference")


def faults(document: Any) -> list[str]:
    """Return a sentence for each fault, which starts with its place in the document."""
    version = document.get("openapi") if isinstance(document, dict) else None
    if not str(version).startswith(VERSIONS):
        return [f"openapi: {version} is not supported; write an OpenAPI document of version 3.0 or 3.1."]
    errors = Draft7Validator(_meta_schema(str(version))).iter_errors(document)
    found = [f"{place(error.instance_path)}: {error.message}; correct it." for error in errors]
    if not found:
        checked = {place(path): _reference_fault(document, reference, path) for path, reference in references(document)}
        found = [f"{name}: {fault}" for name, fault in checked.items() if fault]
    return found


def place(path: Sequence[str | int]) -> str:
    """Return the name of a place, such as `paths./toys.get.parameters[3]`."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return steps.removeprefix(".") or "the document"


def _meta_schema(version: str) -> dict[str, Any]:
    """Return Connexion's JSON Schema for OpenAPI 3.0, changed so that its errors name the faulty part itself."""
    connexion: Any = find_spec("connexion")
    # `OpenAPISpecification.openapi_schema`, without importing Connexion, which would take longer than all of `--help`.
    path = Path(connexion.origin).with_name("resources") / "schemas/v3.0/schema.json"
    schema: dict[str, Any] = _distinguish(json.loads(path.read_bytes()))
    definitions = schema["definitions"]
    definitions["Schema"]["properties"]["multipleOf"] = {"type": "number", "exclusiveMinimum": 0}
    # Checked where parameters and security schemes are prepared, with better sentences.
    definitions["ParameterLocation"] = definitions["SchemaXORContent"] = {}
    definitions["SecurityScheme"] = {"type": "object", "required": ["type"]}
    if version.startswith("3.1."):
        schema |= {"additionalProperties": True, "required": ["openapi", "info"]}
        schema["properties"]["openapi"] = {}
        definitions["Schema"] = {"type": ["object", "boolean"], "properties": {}}
        definitions["Operation"]["required"] = []
        for name in EXTENDED:
            definitions[name]["additionalProperties"] = True
    for name, properties in EXTENSIONS.items():
        definitions[name]["properties"] |= properties
    schema["properties"] |= {"x-messages": TEMPLATES, "x-max-bytes": SIZE, "x-name": {"type": "string"}}
    schema["properties"]["x-responses"] = {"$ref": "#/definitions/Responses"}
    headers = {"type": "object", "additionalProperties": {"$ref": "#/definitions/Header"}}
    schema["properties"] |= {"x-headers": headers, "x-headers-tls": headers}
    return schema


def _distinguish(node: Any) -> Any:
    """Replace "an object or a reference" by a condition, because a failed `oneOf` would not say which part is wrong."""
    if isinstance(node, list):
        return [_distinguish(item) for item in node]
    if not isinstance(node, dict):
        return node
    converted = {key: _distinguish(value) for key, value in node.items()}
    match converted.get("oneOf"):
        case [described, reference] | [reference, described] if reference == REFERENCE:
            del converted["oneOf"]
            converted |= {"if": {"type": "object", "required": ["$ref"]}, "then": REFERENCE, "else": described}
    return converted


def references(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the place and the text of each reference in a part of a document."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from references(item, (*path, index))
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield path, node["$ref"]
        for key, value in node.items():
            # These hold any values, which may look like references, unless they are the names of properties.
            if (key not in VALUES and not str(key).startswith("x-")) or path[-1:] == ("properties",):
                yield from references(value, (*path, key))


def _reference_fault(document: dict[str, Any], reference: str, path: Sequence[str | int]) -> str | None:
    kind = KINDS.get(str(path[-1])) or KINDS.get(str(path[-2]), "schemas") if len(path) > 1 else "schemas"
    if reference.startswith("#/components/") and kind != "schemas" and f"/{kind}/" not in reference:
        return f'the reference "{reference}" leads to another kind of object; name one of components.{kind}.'
    if not reference.startswith("#/"):
        return f'the reference "{reference}" leads out of the document; bundle all parts into one document.'
    seen = [reference]
    try:
        while isinstance(node := follow(document, seen[-1]), dict) and isinstance(node.get("$ref"), str):
            if node["$ref"] in seen:
                return f'the reference "{reference}" leads back to itself; correct it.'
            seen.append(node["$ref"])
    except (LookupError, ValueError, TypeError):
        return f'the reference "{seen[-1]}" leads nowhere; correct it, or add what it names.'
    return None


def follow(document: dict[str, Any], reference: str) -> Any:
    """Return the node that a reference names (RFC 6901). Raise an error if there is none."""
    node: Any = document
    for step in reference.removeprefix("#/").split("/"):
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        node = node[int(name)] if isinstance(node, list) else node[name]
    return node
