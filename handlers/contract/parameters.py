"""Read and validate the parameters of a request."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from inflection import underscore

from handlers.contract.validation import Rules, Violation, message

# An integer in JSON notation, with no more digits than Python can convert.
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,4000})")
# A value that cannot be converted stays a string, and then violates the schema's `type`.
CONVERTERS: dict[str, Callable[[str], Any]] = {
    "integer": lambda text: int(text) if INTEGER.fullmatch(text) else text,
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
