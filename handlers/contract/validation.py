"""Holds values against the schemas of the contract, and words what is wrong with them.

The sentences are the contract's: a schema's own `x-messages` by keyword, or else those at the contract's top level,
with the name of the property or parameter and what the keyword allows put in.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jsonschema_rs import Draft4Validator, Draft202012Validator, ValidationError

from handlers.contract import document as contract

Path = list[str]

# How far the formats of OpenAPI 3.0 let an integer go; JSON Schema does not know them.
INTEGERS = {"int32": 2**31, "int64": 2**63}

# OpenAPI 3.0 builds on Draft 4, which did not have these formats yet.
LATER_FORMATS: dict[str, Callable[[str], bool]] = {
    name: Draft202012Validator({"format": name}, validate_formats=True).is_valid
    for name in ("duration", "json-pointer", "uri-reference", "uuid")
}


class Rules:
    """A schema of the contract, compiled.

    Args:
        schema: An OpenAPI 3.0 schema with its references resolved.
        name: What its value is called, in a sentence.
    """

    def __init__(self, schema: dict[str, Any], name: str) -> None:
        self.name = name
        self.schema = _json_schema(schema)
        self.validator = Draft4Validator(self.schema, validate_formats=True, formats=LATER_FORMATS, mask=name)
        self.allow: Callable[[Any], bool] = self.validator.is_valid

    def violations(self, value: Any) -> Iterator[tuple[Path, str]]:
        """Yield the path to each place that breaks a rule, and a sentence that says what the rule asks for."""
        for error in self.validator.iter_errors(value):
            path = [str(step) for step in error.instance_path]
            schema = self.schema
            for step in error.schema_path[:-1]:
                schema = schema[step]
            match error.kind.name:
                case "required":
                    path.append(error.kind.value)
                    yield path, self._sentence(error, path, schema.get("properties", {}).get(path[-1], {}))
                case "additionalProperties":
                    for name in error.kind.value:
                        yield [*path, name], self._sentence(error, [name], {})
                case _:
                    yield path, self._sentence(error, path, schema)

    def _sentence(self, error: ValidationError, path: Path, schema: dict[str, Any]) -> str:
        keyword, limit = error.kind.name, error.kind.value
        own = schema.get("x-messages", {})
        if keyword in own:
            return str(own[keyword])
        if keyword in messages():
            limit = " or ".join(map(str, limit)) if isinstance(limit, list) else limit
            return message(keyword, path[-1] if path else self.name, limit)
        return error.message


def messages() -> dict[str, str]:
    """Return the sentences at the top level of the contract, by the rule that was broken."""
    sentences: dict[str, str] = contract.document()["x-messages"]
    return sentences


def message(rule: str, name: str, limit: object = None) -> str:
    """Return the contract's sentence on a rule.

    Args:
        rule: A key of the contract's `x-messages`.
        name: The property or parameter that breaks the rule.
        limit: What the rule allows.
    """
    return messages()[rule].format(name=name, limit=limit)


def _json_schema(schema: Any) -> Any:
    """Write an OpenAPI 3.0 schema as JSON Schema, which has a type "null" and bounds in the place of formats."""
    if isinstance(schema, list):
        return [_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    converted = {key: _json_schema(value) for key, value in schema.items()}
    # Only a schema has such a type; in an object of schemas, `nullable` and `format` are names like others.
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
