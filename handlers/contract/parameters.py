"""Read and validate the parameters of a request."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from math import isfinite
from typing import Any

import jiter

from handlers.contract import document
from handlers.contract.faults import FaultError
from handlers.contract.json_schema import Direction
from handlers.contract.validation import Rules, Violation, message

# Numbers in JSON notation, with no more digits than Python can convert.
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,4000})")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
TYPES = {bool: "boolean", int: "integer", float: "number"}
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
        self.argument = document.snake_case(self.name)
        # The lines of a list-based header field form one list (RFC 9110, section 5.3).
        self.is_list: bool = description.get("x-list", False)
        self.required: bool = description.get("required", False)
        self.is_deep = description.get("style") == "deepObject"
        schema = _schema_of(description, place)
        self.default = first(schema, "default")
        self.is_repeatable, self.parse = _parser(description, schema, place)
        is_text = "content" not in description
        self.rules = Rules(schema, self.name, place=f"{place}.schema", direction=direction, is_text=is_text)
        if self.default is not None and not self.rules.is_valid(self.default):
            raise FaultError(f"{place}.schema.default", "the default violates the schema; correct it.")

    def read(self, raw_values: Any) -> tuple[Any, list[Violation]]:
        """Return the parameter's value and its violations.

        `raw_values` are the values in the request, for a deepObject by property, or None if there are none.
        """
        if raw_values is None:
            return self.default, self._named(self.rules.violation("required")) if self.required else []
        if self.is_list:
            raw_values = [", ".join(raw_values).strip(" \t")]
        if len(raw_values) > 1 and not self.is_repeatable:
            return raw_values[0], self._named(self.rules.violation("repeated"))
        try:
            value = self.parse(raw_values)
        except ValueError as error:
            return None, self._named(self.rules.violation("json", str(error)))
        if self.rules.is_valid(value):
            return value, []
        return value, self._named(*self.rules.violations(value))

    def _named(self, *violations: Violation) -> list[Violation]:
        return [each._replace(pointer=None, parameter=self.name) for each in violations]


# Parameters by name. The names of header parameters are bytes in lower case.
Parameters = dict[Any, Parameter]


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
    deep: dict[str, dict[str, list[str]]] = {}
    for name, values in raw_values.items():
        parameter = parameters.get(name)
        if parameter and not parameter.is_deep:
            arguments[parameter.argument], found = parameter.read(values)
            violations += found
            continue
        # A property of a deepObject is sent as name[property]=value.
        owner, bracket, rest = name.partition("[")
        if bracket and rest.endswith("]") and owner in parameters and parameters[owner].is_deep:
            deep.setdefault(owner, {})[rest[:-1]] = values
        elif others is not None and name not in others:
            violations.append(Violation(message("unknown", name), parameter=name, rule="unknown"))
    for name, properties in deep.items():
        arguments[parameters[name].argument], found = parameters[name].read(properties)
        violations += found
    return violations


def from_json(content: bytes) -> Any:
    """Return the value of a JSON document, ignoring a byte order mark (RFC 8259, section 8.1). May raise ValueError."""
    return jiter.from_json(content.removeprefix(BOM_UTF8), allow_inf_nan=False, catch_duplicate_keys=True)


def convert(text: str, types: list[str]) -> Any:
    """Return a text as a value of the first of these types that it fits, or else unchanged."""
    for name in types:
        if name in CONVERTERS and (value := CONVERTERS[name](text)) is not text:
            return value
    return text


def types_of(schema: Any) -> list[str]:
    """Return all types that a schema mentions for the value itself, in any of its alternatives."""
    found: list[str] = []
    for part in parts_of(schema):
        listed = [*part.get("enum", ()), *([part["const"]] if "const" in part else ())]
        types = part.get("type") or [TYPES.get(type(value), "string") for value in listed]
        found += [types] if isinstance(types, str) else types
    return found


def properties_of(schema: Any) -> dict[str, Any]:
    """Return the properties that a schema describes, in any of its alternatives."""
    found = [part.get("properties", {}) for part in parts_of(schema)]
    return {name: value for properties in reversed(found) for name, value in properties.items()}


def first(schema: Any, keyword: str) -> Any:
    """Return the value of a keyword in a schema, or else in the first of its alternatives that has it, or None."""
    return next((part[keyword] for part in parts_of(schema) if keyword in part), None)


def parts_of(schema: Any, *seen: int) -> Iterator[dict[str, Any]]:
    """Yield a schema, and its alternatives. A schema may contain itself."""
    found = document.resolve(schema)
    if id(found) not in seen and isinstance(found, dict):
        yield found
        for part in chain.from_iterable(found.get(key, ()) for key in ("allOf", "anyOf", "oneOf")):
            yield from parts_of(part, *seen, id(found))


def _schema_of(description: dict[str, Any], place: str) -> Any:
    content = description.get("content")
    if ("schema" in description) == (content is not None) or (content and [*content] != ["application/json"]):
        raise FaultError(place, "it needs either a schema, or content: application/json.")
    return content["application/json"].get("schema", {}) if content else description["schema"]


def _parser(description: dict[str, Any], schema: Any, place: str) -> tuple[bool, Callable[[Any], Any]]:
    """Return whether a parameter may be repeated, and the function that makes its value from its raw values."""
    location = description["in"]
    if location not in STYLES:
        raise FaultError(f"{place}.in", f'"{location}" is not supported; use {", ".join(STYLES)}.')
    if location == "path" and not description.get("required"):
        raise FaultError(place, "a path parameter is always required; add required: true.")
    if "content" in description:
        return False, lambda texts: from_json(texts[0].encode())
    style, types = description.get("style", STYLES[location][0]), types_of(schema)
    if style not in STYLES[location]:
        raise FaultError(place, f'style "{style}" is not supported; use "{STYLES[location][0]}".')
    if style == "deepObject":
        if types and "object" not in types:
            raise FaultError(place, 'style "deepObject" is for objects; use "form".')
        parsers = {name: _text_parser(part, None) for name, part in properties_of(schema).items()}
        other = _text_parser(first(schema, "additionalProperties"), None)
        return True, lambda raw_values: {
            name: parse(texts) if is_repeatable or len(texts) == 1 else texts
            for name, texts in raw_values.items()
            for is_repeatable, parse in [parsers.get(name, other)]
        }
    if {"array", "object"} & {*types_of(first(schema, "items"))} or "object" in types:
        supported = 'style "deepObject" or content' if location == "query" else "content: application/json"
        raise FaultError(place, f'objects and nested arrays in style "{style}" are not supported; use {supported}.')
    if style == "simple" or not description.get("explode", style == "form"):
        return _text_parser(schema, SEPARATORS[style], is_header=location == "header")
    if location == "cookie" and "array" in types:
        raise FaultError(place, "an exploded array in a cookie is not supported; add explode: false.")
    return _text_parser(schema, None)


def _text_parser(
    schema: Any, separator: str | None, *, is_header: bool = False
) -> tuple[bool, Callable[[list[str]], Any]]:
    """Return whether a parameter may be repeated, and the function that makes its value from texts.

    The items of an array are separated; without a separator, each is a text of its own.
    """
    types = types_of(schema)
    if len(types) == 1 and types[0] != "array":
        only = CONVERTERS.get(types[0], str)
        return False, lambda texts: only(texts[0])
    if "array" not in types:
        return False, lambda texts: convert(texts[0], types)
    items = types_of(first(schema, "items"))
    if not separator:
        return True, lambda texts: [convert(text, items) for text in texts]
    return is_header, lambda texts: [
        convert(text.strip() if is_header else text, items) for text in separator.join(texts).split(separator) if text
    ]
