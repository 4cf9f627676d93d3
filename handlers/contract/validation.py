"""Validate values against the schemas of the contract, and return a message for each violation.

This replaces Connexion's validators, which report the first violation only and check few formats.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import inf
from typing import Any, NamedTuple, cast

from jsonschema_rs import Draft4Validator, Draft202012Validator, ValidationError

from handlers.contract import document
from handlers.contract.faults import FaultError
from handlers.contract.json_schema import Direction, Translation
from handlers.contract.structure import place as place_of

BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
# Formats that are missing in JSON Schema Draft 4, on which OpenAPI 3.0 is based; and `byte`, OpenAPI's name for Base64.
LATER = ["duration", "idn-hostname", "iri", "iri-reference", "json-pointer", "relative-json-pointer", "uri-reference"]
LATER += ["uri-template", "uuid"]
FORMATS: dict[str, Callable[[str], bool]] = {
    name: Draft202012Validator({"format": name}, validate_formats=True).is_valid for name in LATER
} | {"byte": lambda text: BASE64.fullmatch(text) is not None}
MAX_NAME = 100  # the longest name in a message
SCALARS = {"boolean", "integer", "null", "number", "string"}

Path = list[str | int]


class Violation(NamedTuple):
    """A violation of the contract by a request: a sentence, the JSON Pointer or the parameter's name, and the rule."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    rule: str = "other"


class Rules:
    """A compiled schema. `name` is what messages call the validated value; `is_text` if it was converted from text."""

    def __init__(
        self,
        schema: Any,
        name: str,
        *,
        place: str = "",
        direction: Direction = "request",
        contract: Any = None,
        is_text: bool = False,
    ) -> None:
        """Compile a schema at a place in the contract. Raise FaultError if it is invalid or not supported."""
        self.name, self.is_text = name, is_text
        self.schema: Any = None
        translation = Translation(contract or document.raw(), direction)
        dialect = Draft4Validator if translation.is_3_0 else Draft202012Validator
        try:
            self.schema = translation.translate(schema, place)
            if isinstance(self.schema, dict):
                self.schema["definitions"] = translation.definitions
            self.validator = dialect(self.schema, validate_formats=True, formats=FORMATS, mask="the value")
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise _fault(self.schema, place, error) from error
        self.is_valid: Callable[[Any], bool] = self.validator.is_valid

    def violations(self, value: Any) -> Iterator[Violation]:
        """Yield each violation, without repetition."""
        seen = set()
        errors = _without_consequences(self.validator.iter_errors(value))
        for found in chain.from_iterable(self._explain(each, value) for each in errors):
            if found[:2] not in seen:
                seen.add(found[:2])
                yield found

    def violation(self, rule: str, limit: Any = None) -> Violation:
        """Return the violation of a rule by the whole value."""
        return self._violation(rule, limit, [], self.schema)

    def _explain(self, error: ValidationError, value: Any) -> Iterator[Violation]:
        """Yield each violation behind one of the library's errors."""
        path, instance = _walk(value, error.instance_path)
        _, schema = _walk(self.schema, error.schema_path[:-1])
        keyword, limit = error.kind.name, error.kind.value
        match keyword, error.schema_path[-1:]:
            case "required", [str(rule)]:  # or dependentRequired
                yield self._violation(rule, None, [*path, limit], schema.get("properties", {}).get(limit, {}))
            # A property may have this name, too.
            case _, ["additionalProperties" | "unevaluatedProperties" as rule] if "x-place" in schema:
                for name in limit or instance:
                    yield self._violation(rule, None, [*path, name], schema)
            case "pattern", _:  # If the library gives up on a pattern, its limit is another sentence.
                yield self._violation(keyword, schema[keyword], path, schema)
            case "anyOf" | "oneOf", _ if all(limit):  # no branch is valid
                yield from self._explain_union(error, value, path, schema, instance)
            case _:
                rule = schema.get("x-rule", keyword) if isinstance(schema, dict) else keyword
                yield self._violation(rule, limit, path, schema, instance)

    def _explain_union(
        self, error: ValidationError, value: Any, path: Path, schema: dict[str, Any], instance: Any
    ) -> Iterator[Violation]:
        """Explain the only branch for the type of the value, if there is one."""
        branches: list[list[ValidationError]] = error.kind.value
        # A discriminator chooses the branch behind its condition.
        meant = branches[1:] if "x-chosen" in schema else [each for each in branches if not _types(each, error)]
        if len(meant) == 1:
            reasons = _without_consequences(meant[0])
            yield from chain.from_iterable(self._explain(reason, value) for reason in reasons)
        elif meant:
            yield self._violation(error.kind.name, None, path, schema)
        else:
            yield self._violation("type", sorted(_types([error], error)), path, schema, instance)

    def _violation(self, rule: str, limit: Any, path: Path, schema: Any, instance: Any = None) -> Violation:
        """Return the violation of a rule by what is at a path, whose schema may have its own message."""
        while isinstance(schema, dict) and "$ref" in schema:
            schema = self.schema["definitions"][schema["$ref"].rpartition("/")[2]]
        own = schema.get("x-messages", {}) if isinstance(schema, dict) else {}
        if self.is_text and rule == "type" and isinstance(instance, list) and SCALARS.issuperset(limit):
            rule = "repeated"
        if rule not in own and rule not in messages():
            rule = "other"
        name, key = self.name, rule
        for step in path:
            name = f"{name}[{step}]" if isinstance(step, int) else step[:MAX_NAME]
        # Text is never null. A path with two names leads into a JSON document in a form, whose values are not text.
        if self.is_text and rule == "type" and sum(isinstance(step, str) for step in path) <= 1:
            limit = [each for each in limit if each != "null"]
            key = limit[0] if len(limit) == 1 and limit[0] in messages() else key
        sentence = own[rule] if rule in own else message(key, name, _words(limit))
        return Violation(sentence, pointer(map(str, path)), rule=rule)


def _types(errors: Iterable[ValidationError], union: ValidationError) -> set[str]:
    """Return the types that errors demand of the value of a union, also in unions within it."""
    found: set[str] = set()
    for error in errors:
        if error.instance_path == union.instance_path and error.kind.name == "type":
            found.update(error.kind.value)
        elif error.instance_path == union.instance_path and error.kind.name in {"anyOf", "oneOf"}:
            branches = [_types(each, union) for each in error.kind.value]
            found.update(*branches if all(branches) else ())
    return found


def _without_consequences(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """Yield errors, except unevaluated properties and items of what has other errors.

    JSON Schema takes what violates its schema for unevaluated too.
    """

    def depth(error: ValidationError) -> float:
        return len(error.instance_path) if error.kind.name.startswith("unevaluated") else inf

    places: set[Any] = set()
    for error in sorted(errors, key=depth, reverse=True):
        path = tuple(error.instance_path)
        if depth(error) == inf or path not in places:
            places.update(path[:length] for length in range(len(path) + 1))
            yield error


def pointer(path: Iterable[str]) -> str:
    """Return the JSON Pointer for a path (RFC 6901, section 3)."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)


def messages() -> dict[str, str]:
    """Return the contract's top-level messages by rule."""
    return cast(dict[str, str], document.raw()["x-messages"])


def message(rule: str, name: str, limit: object = None) -> str:
    """Return the contract's message about a property or parameter that violates a rule, such as `maxLength`."""
    return messages()[rule].format(name=name, limit=limit)


def _words(limit: Any) -> str:
    """Return the value of a keyword as words, such as `red, green or blue`."""
    options = limit if isinstance(limit, list) else [limit]
    words = [option if isinstance(option, str) else json.dumps(option, default=str) for option in options]
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _walk(value: Any, steps: Path) -> tuple[Path, Any]:
    """Return the value at a path, and the path: the library writes names in digits as integers."""
    path: Path = []
    for step in steps:
        path.append(str(step) if isinstance(value, dict) else step)
        value = value[path[-1]]
    return path, value


def _fault(schema: Any, place: str, error: Exception) -> FaultError:
    """Return the fault of a schema that cannot be translated or compiled."""
    while isinstance(error, ValidationError) and error.kind.name == "anyOf":
        error = max((each for branch in error.kind.value for each in branch), key=lambda each: len(each.instance_path))
    steps: Path = [place]
    for step in getattr(error, "instance_path", ()):
        _, schema = _walk(schema, [step])
        is_schema = isinstance(schema, dict) and "x-place" in schema
        steps = [schema["x-place"]] if is_schema else [*steps, step]
    return FaultError(place_of(steps), f"this is not a valid schema ({getattr(error, 'message', error)}); correct it.")
