"""Reads the parameters of a request as the contract describes them."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from inflection import underscore

from handlers.contract.validation import Rules, message
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
        # The lines of a field that is a list are one list (RFC 9110, section 5.3).
        self.is_list: bool = description.get("x-list", False)
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
        if self.is_list:
            texts = [", ".join(texts).strip(" \t")]
        value = self.from_text(texts[0])
        if len(texts) > 1:
            return value, [self._violation(message("repeated", self.name))]
        if self.rules.allow(value):
            return value, []
        return value, [self._violation(sentence) for _, sentence in self.rules.violations(value)]

    def _violation(self, sentence: str) -> Violation:
        return Violation(detail=sentence, parameter=self.name)


# By name; header fields by their name in lower case, as bytes.
Parameters = dict[Any, Parameter]
Headers = list[tuple[bytes, bytes]]


def read(parameters: Parameters, texts: Mapping[Any, list[str]], arguments: dict[str, Any]) -> list[Violation]:
    """Put what is given into the arguments of the handler, and return the rules that are broken.

    Args:
        parameters: Those of one place, by the name that they have there.
        texts: What was given in that place, by name.
        arguments: What is added to.
    """
    violations = []
    for name, given in texts.items():
        if name in parameters:
            arguments[parameters[name].argument], broken = parameters[name].read(given)
            violations += broken
        else:
            violations.append(Violation(detail=message("unknown", name), parameter=name))
    return violations


def path_texts(path: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what a path says, by the name of the parameter."""
    return {name: [text] for name, text in path.items()}


def query_texts(query: bytes) -> dict[str, list[str]]:
    """Return what a query says, by the name of the parameter."""
    return parse_qs(query.decode("latin-1"), keep_blank_values=True)


def header_texts(parameters: Parameters, headers: Headers) -> dict[bytes, list[str]]:
    """Return what the header fields say that are parameters, by the name of the field in lower case."""
    texts: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in parameters:
            texts.setdefault(name, []).append(value.decode("latin-1"))
    return texts
