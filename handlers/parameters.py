"""Reads the parameters of a request as the contract describes them."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from inflection import underscore

from handlers.problems import Refusal
from handlers.validation import Rules, message
from models.schemas import Violation

# JSON's spelling, with no more digits than Python turns into a number.
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,4000})")


def _integer(text: str) -> int | str:
    return int(text) if INTEGER.fullmatch(text) else text


def _boolean(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text, text)


READERS: dict[str, Callable[[str], Any]] = {"integer": _integer, "boolean": _boolean, "string": str}


class Parameter:
    """A parameter of an operation, ready to be read.

    Args:
        description: What the contract says of it, with its references resolved.

    Raises:
        KeyError: Its type is none that can be read from text.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        schema = description["schema"]
        self.name: str = description["name"]
        self.argument: str = underscore(self.name)
        self.required: bool = description.get("required", False)
        self.default: Any = schema.get("default")
        self.from_text = READERS[schema["type"]]
        self.rules = Rules(schema, self.name)

    def read(self, texts: list[str] | None) -> tuple[Any, list[Violation]]:
        """Return the value of the parameter, and the rules that it breaks.

        Args:
            texts: What was given for it, once for each time; None if it was left out.
        """
        if texts is None:
            return self.default, [self._violation(message("required", self.name))] if self.required else []
        value = self.from_text(texts[0])
        if len(texts) > 1:
            return value, [self._violation(message("repeated", self.name))]
        if self.rules.allow(value):
            return value, []
        return value, [self._violation(sentence) for _, sentence in self.rules.violations(value)]

    def _violation(self, sentence: str) -> Violation:
        return Violation(detail=sentence, parameter=self.name)


def path_arguments(parameters: dict[str, Parameter], texts: dict[str, str]) -> dict[str, Any]:
    """Return what the path says, by the name of the handler's argument.

    Raises:
        Refusal: 404, because a path that breaks a rule names nothing.
    """
    arguments = {}
    for name, parameter in parameters.items():
        arguments[parameter.argument], violations = parameter.read([texts[name]])
        if violations:
            raise Refusal(404)
    return arguments


def query_arguments(parameters: dict[str, Parameter], query: bytes) -> dict[str, Any]:
    """Return what the query says, by the name of the handler's argument.

    Raises:
        Refusal: 400, with every parameter that breaks a rule, is unknown, missing or repeated.
    """
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True) if query else {}
    arguments = {}
    violations = [
        Violation(detail=message("unknown", name), parameter=name) for name in given if name not in parameters
    ]
    for name, parameter in parameters.items():
        arguments[parameter.argument], broken = parameter.read(given.get(name))
        violations += broken
    if violations:
        raise Refusal(400, violations)
    return arguments
