"""Read and validate the parameters of a request."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from inflection import underscore

from handlers.contract.validation import Rules, message
from models.schemas import Violation

# An integer in JSON's notation, with no more digits than Python converts.
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,4000})")

Headers = list[tuple[bytes, bytes]]
RawValues = Mapping[Any, list[str]]


def _integer(text: str) -> int | str:
    return int(text) if INTEGER.fullmatch(text) else text


def _boolean(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text, text)


# Text that does not convert stays text, which then violates the schema's `type`.
CONVERTERS: dict[str, Callable[[str], Any]] = {"integer": _integer, "boolean": _boolean, "string": str}


class Parameter:
    """A parameter of an operation.

    Args:
        description: The parameter in the contract, with its references resolved.

    Raises:
        KeyError: Its type is not supported.
    """

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
        """Return the parameter's value and its violations.

        Args:
            raw_values: Every occurrence in the request; None if there is none.
        """
        if raw_values is None:
            return self.default, [self._violation(message("required", self.name))] if self.required else []
        if self.is_list:
            raw_values = [", ".join(raw_values).strip(" \t")]
        value = self.convert(raw_values[0])
        if len(raw_values) > 1:
            return value, [self._violation(message("repeated", self.name))]
        if self.rules.is_valid(value):
            return value, []
        return value, [self._violation(sentence) for _, sentence in self.rules.violations(value)]

    def _violation(self, sentence: str) -> Violation:
        return Violation(detail=sentence, parameter=self.name)


# By name; header parameters by their name in lower case, as bytes.
Parameters = dict[Any, Parameter]


def read(parameters: Parameters, raw_values: RawValues, arguments: dict[str, Any]) -> list[Violation]:
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
            violations.append(Violation(detail=message("unknown", name), parameter=name))
    return violations


def path_values(path_params: Mapping[str, str]) -> RawValues:
    """Return the raw values of path parameters by name."""
    return {name: [value] for name, value in path_params.items()}


def query_values(query_string: bytes) -> RawValues:
    """Return the raw values in a query string by name."""
    return parse_qs(query_string.decode("latin-1"), keep_blank_values=True)


def header_values(parameters: Parameters, headers: Headers) -> RawValues:
    """Return the raw values of the header fields that are parameters, by name in lower case."""
    values: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in parameters:
            values.setdefault(name, []).append(value.decode("latin-1"))
    return values
