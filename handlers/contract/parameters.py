"""Read and validate the parameters of a request."""

import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from math import isfinite
from typing import Any

from handlers.contract import document
from handlers.contract.faults import FaultError
from handlers.contract.validation import Direction, Rules, Violation, message

# Numbers in JSON notation, with no more digits than Python can convert.
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,4000})")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# The separator of an array in one value, by the style of the parameter.
SEPARATORS = {"simple": ",", "form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
# The styles that are supported in each location; the first is the default.
STYLES = {
    "path": ("simple",),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}

# A value that cannot be converted stays a string, and then violates the schema's `type`.
CONVERTERS: dict[str, Callable[[str], Any]] = {
    "boolean": lambda text: {"true": True, "false": False}.get(text, text),
    "integer": lambda text: int(text) if INTEGER.fullmatch(text) else text,
    "number": lambda text: value if NUMBER.fullmatch(text) and isfinite(value := float(text)) else text,
}


class Parameter:
    """A parameter that the contract describes. The constructor raises FaultError if it is not supported."""

    def __init__(self, description: dict[str, Any], place: str = "", direction: Direction = "request") -> None:
        self.name: str = description["name"]
        self.argument = argument_name(self.name)
        # The lines of a list-based header field form one list (RFC 9110, section 5.3).
        self.is_list: bool = description.get("x-list", False)
        self.required: bool = description.get("required", False)
        self.is_deep = description.get("style") == "deepObject"
        schema = description.get("schema", {})
        self.default: Any = document.resolve(schema).get("default")
        self.is_repeatable, self.parse = _parser(description, schema, place)
        self.rules = Rules(schema, self.name, place=f"{place}.schema", direction=direction)

    def read(self, raw_values: Any) -> tuple[Any, list[Violation]]:
        """Return the parameter's value and its violations.

        `raw_values` are the values in the request, for a deepObject by property, or None if there are none.
        """
        if raw_values is None:
            return self.default, [violation("required", self.name)] if self.required else []
        if self.is_list:
            raw_values = [", ".join(raw_values).strip(" \t")]
        if len(raw_values) > 1 and not self.is_repeatable:
            return raw_values[0], [violation("repeated", self.name)]
        value = self.parse(raw_values)
        if self.rules.is_valid(value):
            return value, []
        return value, [Violation(detail=text, parameter=self.name) for _, text in self.rules.violations(value)]


# Parameters by name. The names of header parameters are bytes in lower case.
Parameters = dict[Any, Parameter]


def argument_name(name: str) -> str:
    """Return the name of the handler's argument for a parameter: in snake case, with an underscore after a keyword."""
    argument = document.snake_case(name)
    return f"{argument}_" if keyword.iskeyword(argument) else argument


def read(
    parameters: Parameters,
    raw_values: Mapping[Any, list[str]],
    arguments: dict[str, Any],
    others: set[str] | None = None,
) -> list[Violation]:
    """Add the values of a location's parameters to a handler's arguments, and return the violations.

    A request may not use further names, except `others`; None allows all.
    """
    violations = []
    given: dict[Any, Any] = {}
    for name, values in raw_values.items():
        if name in parameters and not parameters[name].is_deep:
            given[name] = values
            continue
        # A property of a deepObject is sent as name[property]=value.
        owner, bracket, rest = name.partition("[")
        if bracket and rest.endswith("]") and owner in parameters and parameters[owner].is_deep:
            given.setdefault(owner, {})[rest[:-1]] = values
        elif others is not None and name not in others:
            violations.append(violation("unknown", name))
    for name, values in given.items():
        arguments[parameters[name].argument], found = parameters[name].read(values)
        violations += found
    return violations


def violation(rule: str, name: str) -> Violation:
    """Return the violation of a rule that sets no limit, such as `required`."""
    return Violation(detail=message(rule, name), parameter=name)


def convert(text: str, types: list[str]) -> Any:
    """Return a text as a value of the first of these types that it fits, or else unchanged."""
    for name in types:
        if name in CONVERTERS and (value := CONVERTERS[name](text)) is not text:
            return value
    return text


def types_of(schema: Any) -> list[str]:
    """Return all types that a schema mentions for the value itself, in any of its alternatives."""
    found = [part.get("type", []) for part in _parts(schema)]
    return [name for types in found for name in ([types] if isinstance(types, str) else types)]


def properties_of(schema: Any) -> dict[str, Any]:
    """Return the properties that a schema describes, in any of its alternatives."""
    found = [part.get("properties", {}) for part in _parts(schema)]
    return {name: value for properties in reversed(found) for name, value in properties.items()}


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema, and its alternatives."""
    found = document.resolve(schema)
    yield found
    for part in chain.from_iterable(found.get(key, ()) for key in ("allOf", "anyOf", "oneOf")):
        yield from _parts(part)


def _parser(description: dict[str, Any], schema: Any, place: str) -> tuple[bool, Callable[[Any], Any]]:
    """Return whether a parameter may be repeated, and the function that makes its value from its raw values."""
    location = description["in"]
    if location not in STYLES:
        raise FaultError(f"{place}.in", f'"{location}" is not supported; use {", ".join(STYLES)}.')
    if "content" in description:
        raise FaultError(place, "content is not supported in a parameter; use a schema, for objects with deepObject.")
    style = description.get("style", STYLES[location][0])
    if style not in STYLES[location]:
        raise FaultError(place, f'style "{style}" is not supported; use "{STYLES[location][0]}".')
    if style == "deepObject":
        parsers = {name: _text_parser(part, None) for name, part in properties_of(schema).items()}
        other = _text_parser({}, None)
        return True, lambda raw_values: {
            name: parse(texts) if is_repeatable or len(texts) == 1 else texts
            for name, texts in raw_values.items()
            for is_repeatable, parse in [parsers.get(name, other)]
        }
    if {"array", "object"} & {*types_of(document.resolve(schema).get("items", {}))} or "object" in types_of(schema):
        raise FaultError(place, f'objects and nested arrays in style "{style}" are not supported; use "deepObject".')
    if style != "form" or not description.get("explode", True):
        return _text_parser(schema, SEPARATORS[style], is_header=location == "header")
    if location == "cookie" and "array" in types_of(schema):
        raise FaultError(place, "an exploded array in a cookie is not supported; add explode: false.")
    return _text_parser(schema, None)


def _text_parser(
    schema: Any, separator: str | None, *, is_header: bool = False
) -> tuple[bool, Callable[[list[str]], Any]]:
    """Return whether a parameter may be repeated, and the function that makes its value from texts.

    The items of an array are separated; without a separator, each is a text of its own.
    """
    types = types_of(schema)
    if "array" not in types:
        return False, lambda texts: convert(texts[0], types)
    items = types_of(document.resolve(schema).get("items", {}))
    if not separator:
        return True, lambda texts: [convert(text, items) for text in texts]
    return is_header, lambda texts: [
        convert(text.strip() if is_header else text, items) for text in separator.join(texts).split(separator) if text
    ]
