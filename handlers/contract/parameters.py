"""Read and validate the parameters of a request."""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from math import isfinite
from typing import Any

from inflection import underscore

from handlers.contract import document
from handlers.contract.validation import Rules, Violation, message

# Numbers in JSON notation, with no more digits than Python can convert.
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,4000})")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# The separator of an array in one value, by the style of the parameter.
SEPARATORS = {"simple": ",", "form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}


def _number(text: str) -> float | str:
    return value if NUMBER.fullmatch(text) and isfinite(value := float(text)) else text


# A value that cannot be converted stays a string, and then violates the schema's `type`.
CONVERTERS: dict[str, Callable[[str], Any]] = {
    "integer": lambda text: int(text) if INTEGER.fullmatch(text) else text,
    "number": _number,
    "boolean": lambda text: {"true": True, "false": False}.get(text, text),
    "string": str,
}


class Parameter:
    """A parameter that the contract describes. The constructor raises KeyError for an unsupported type."""

    def __init__(self, description: dict[str, Any]) -> None:
        schema = description["schema"]
        self.name: str = description["name"]
        self.argument: str = underscore(self.name)
        # The lines of a list-based header field form one list (RFC 9110, section 5.3).
        self.is_list: bool = description.get("x-list", False)
        self.required: bool = description.get("required", False)
        self.default: Any = schema.get("default")
        self.convert = CONVERTERS[schema["type"]]
        self.rules = Rules(schema, self.name)

    def read(self, raw_values: list[str] | None) -> tuple[Any, list[Violation]]:
        """Return the parameter's value and its violations. `raw_values` is None if the request lacks the parameter."""
        if raw_values is None:
            return self.default, [violation("required", self.name)] if self.required else []
        if self.is_list:
            raw_values = [", ".join(raw_values).strip(" \t")]
        value = self.convert(raw_values[0])
        if len(raw_values) > 1:
            return value, [violation("repeated", self.name)]
        if self.rules.is_valid(value):
            return value, []
        return value, [Violation(detail=text, parameter=self.name) for _, text in self.rules.violations(value)]


# Parameters by name. The names of header parameters are bytes in lower case.
Parameters = dict[Any, Parameter]


def read(parameters: Parameters, raw_values: Mapping[Any, list[str]], arguments: dict[str, Any]) -> list[Violation]:
    """Add the values of parameters to a handler's arguments, and return the violations.

    Args:
        parameters: The parameters of one location: path, query or header.
        raw_values: The values in the request at this location, by name.
        arguments: The arguments by name; changed in place.
    """
    violations = []
    for name, values in raw_values.items():
        if name in parameters:
            arguments[parameters[name].argument], found = parameters[name].read(values)
            violations += found
        else:
            violations.append(violation("unknown", name))
    return violations


def violation(rule: str, name: str) -> Violation:
    """Return the violation of a rule that sets no limit, such as `required`."""
    return Violation(detail=message(rule, name), parameter=name)


def convert(text: str, types: list[str]) -> Any:
    """Return a text as a value of the first of these types that it fits, or else unchanged."""
    for name in ("boolean", "integer", "number"):
        if name in types and (value := CONVERTERS[name](text)) is not text:
            return value
    return text


def types_of(schema: Any) -> list[str]:
    """Return all types that a schema mentions for the value itself, in any of its alternatives."""
    found = document.resolve(schema)
    types = found.get("type", [])
    parts: Iterator[Any] = chain.from_iterable(found.get(key, ()) for key in ("allOf", "anyOf", "oneOf"))
    return [*([types] if isinstance(types, str) else types), *(name for part in parts for name in types_of(part))]


def properties_of(schema: Any) -> dict[str, Any]:
    """Return the properties that a schema describes, in any of its alternatives."""
    found = document.resolve(schema)
    parts = chain.from_iterable(found.get(key, ()) for key in ("allOf", "anyOf", "oneOf"))
    return {
        **{name: value for part in parts for name, value in properties_of(part).items()},
        **found.get("properties", {}),
    }
