"""Validate values against the schemas of the contract, and return a message for each violation.

This replaces Connexion's validators, which report the first violation only and check few formats. The messages come
from the contract: from the `x-messages` of the schema, or else from the `x-messages` at the top level.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

from jsonschema_rs import Draft4Validator, Draft202012Validator, ValidationError

from handlers.contract import document

# The bounds of OpenAPI 3.0's integer formats, which JSON Schema does not have.
INTEGERS = {"int32": 2**31, "int64": 2**63}

# Formats that are missing in JSON Schema Draft 4, on which OpenAPI 3.0 is based.
LATER_FORMATS: dict[str, Callable[[str], bool]] = {
    name: Draft202012Validator({"format": name}, validate_formats=True).is_valid
    for name in ("duration", "json-pointer", "uri-reference", "uuid")
}


class Violation(NamedTuple):
    """A violation of the contract by a request: a sentence, and the JSON Pointer or the parameter's name."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class Rules:
    """A compiled OpenAPI 3.0 schema with references resolved. `name` is what messages call the validated value."""

    def __init__(self, schema: dict[str, Any], name: str) -> None:
        self.name = name
        self.schema = _json_schema(_inlined(schema))
        self.validator = Draft4Validator(self.schema, validate_formats=True, formats=LATER_FORMATS, mask=name)
        self.is_valid: Callable[[Any], bool] = self.validator.is_valid

    def violations(self, value: Any) -> Iterator[tuple[list[str], str]]:
        """Yield the path and the message of each violation."""
        for error in self.validator.iter_errors(value):
            path = [str(step) for step in error.instance_path]
            schema = self.schema
            for step in error.schema_path[:-1]:
                schema = schema[step]
            match error.kind.name:
                case "required":
                    path.append(error.kind.value)
                    yield path, self._message(error, path, schema.get("properties", {}).get(path[-1], {}))
                case "additionalProperties":
                    for name in error.kind.value:
                        yield [*path, name], self._message(error, [name], {})
                case _:
                    yield path, self._message(error, path, schema)

    def _message(self, error: ValidationError, path: list[str], schema: dict[str, Any]) -> str:
        keyword, limit = error.kind.name, error.kind.value
        own = schema.get("x-messages", {})
        if keyword in own:
            return str(own[keyword])
        if keyword not in messages():
            return error.message
        limit = " or ".join(map(str, limit)) if isinstance(limit, list) else limit
        return message(keyword, path[-1] if path else self.name, limit)


def messages() -> dict[str, str]:
    """Return the contract's top-level messages by rule."""
    return cast(dict[str, str], document.raw()["x-messages"])


def message(rule: str, name: str, limit: object = None) -> str:
    """Return the contract's message about a property or parameter that violates a rule, such as `maxLength`."""
    return messages()[rule].format(name=name, limit=limit)


def _json_schema(schema: Any) -> Any:
    """Translate an OpenAPI 3.0 schema to JSON Schema: `nullable` to a type, integer formats to bounds."""
    if isinstance(schema, list):
        return [_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    converted = {key: _json_schema(value) for key, value in schema.items()}
    # Without a string `type`, this may be a `properties` mapping, in which `nullable` and `format` are just names.
    if not isinstance(converted.get("type"), str):
        return converted
    if bound := INTEGERS.get(converted.get("format", "")):
        converted.setdefault("minimum", -bound)
        converted.setdefault("maximum", bound - 1)
    if converted.pop("nullable", False):
        converted["type"] = [converted["type"], "null"]
        if "enum" in converted:
            converted["enum"] = [*converted["enum"], None]
    return converted


def _inlined(node: Any) -> Any:
    node = document.resolve(node)
    if isinstance(node, list):
        return [_inlined(item) for item in node]
    return {key: _inlined(value) for key, value in node.items()} if isinstance(node, dict) else node
