"""Translate schemas of OpenAPI to JSON Schema, with the schemas that they refer to."""

from collections.abc import Iterator
from sys import float_info
from typing import Any, Literal

from handlers.contract.faults import FaultError
from handlers.contract.structure import follow

# Keywords whose value is a schema, a list of schemas, or a mapping from names to schemas.
ONE = {"additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
ONE |= {"unevaluatedItems", "unevaluatedProperties"}
MANY = {"allOf", "anyOf", "oneOf", "prefixItems"}
NAMED = {"dependentSchemas", "patternProperties", "properties"}
# All keywords that validate. The rest only describes, such as `example`, and may contain anything.
KEYWORDS = ONE | MANY | NAMED | {"const", "dependentRequired", "enum", "exclusiveMaximum", "exclusiveMinimum", "format"}
KEYWORDS |= {"maxContains", "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength"}
KEYWORDS |= {"minProperties", "minimum", "multipleOf", "pattern", "required", "type", "uniqueItems", "x-messages"}
UNSUPPORTED = {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id"}
# The bounds of formats; a number without format must fit into a float.
BOUNDS: dict[str, tuple[float, float]] = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "float": (-(2 - 2.0**-23) * 2.0**127, (2 - 2.0**-23) * 2.0**127),
    "number": (-float_info.max, float_info.max),
}
# Which properties a schema allows: those of requests are not read-only, those of responses not write-only.
Direction = Literal["request", "response"]


class Translation:
    """A translation of schemas of one contract, for requests or for responses.

    `definitions` collects the schemas that are referred to. `x-place` is the place of a schema in the contract, and
    `x-rule` the rule that a property violates because it does not exist in this direction. `x-chosen` marks a
    discriminator's choice: its second branch applies if its first, the condition, does not.
    """

    def __init__(self, contract: dict[str, Any], direction: Direction) -> None:
        self.contract = contract
        self.is_3_0 = str(contract["openapi"]).startswith("3.0")
        self.mark = "readOnly" if direction == "request" else "writeOnly"
        self.definitions: dict[str, Any] = {}
        self.names: dict[str, str] = {}

    def translate(self, schema: Any, place: str, extending: frozenset[str] | None = None) -> Any:
        """Return the translation of a schema. Whatever is not a schema is left for the compiler to refuse.

        In `allOf`, `extending` has the properties that do not exist in this direction, according to the whole schema.
        """
        if not isinstance(schema, dict):
            return schema
        for keyword in UNSUPPORTED & schema.keys():
            raise FaultError(f"{place}.{keyword}", f"{keyword} is not supported; use $ref with a JSON Pointer.")
        result: dict[str, Any] = {"x-place": place}
        if "$ref" in schema:
            target = follow(self.contract, schema["$ref"])
            keywords = target.keys() if isinstance(target, dict) else set()
            if extending is None and "discriminator" in keywords and not {"oneOf", "anyOf"} & keywords:
                sentence = "a discriminator without oneOf and anyOf is not supported; add oneOf with all alternatives."
                raise FaultError(f"{place}.$ref", sentence)
            result["$ref"] = self._define(schema["$ref"])
            if self.is_3_0:
                return result
        hidden = (extending or frozenset()) | self._hidden(schema)
        for keyword in filter(KEYWORDS.__contains__, schema):
            result[keyword] = self._value(keyword, schema[keyword], f"{place}.{keyword}", hidden)
        for name in hidden & result.get("properties", {}).keys():
            result["properties"][name] = {"not": {}, "x-rule": self.mark}
        required = [name for name in result.pop("required", ()) if name not in hidden]
        if required:  # Draft 4 forbids an empty list
            result["required"] = required
        _add_bounds(result)
        for keyword in {"oneOf", "anyOf"} & result.keys() if "discriminator" in schema else ():
            references = [part.get("$ref") for part in schema[keyword]]
            if all(references):
                branches = dict(zip(references, result.pop(keyword), strict=True))
                result["allOf"] = [*result.get("allOf", ()), *_choose(schema["discriminator"], branches)]
        # An `enum` must list null nevertheless (OpenAPI 3.0.4, section 4.7.24.2).
        if self.is_3_0 and schema.get("nullable") and None in schema.get("enum", [None]):
            return {"anyOf": [{"type": "null"}, result], "x-messages": schema.get("x-messages", {})}
        return result

    def _value(self, keyword: str, value: Any, place: str, hidden: frozenset[str]) -> Any:
        """Return the value of a keyword with the schemas in it translated."""
        if keyword in ONE:
            return self.translate(value, place)
        if keyword in NAMED and isinstance(value, dict):
            return {str(name): self.translate(part, f"{place}.{name}") for name, part in value.items()}
        if keyword in MANY and isinstance(value, list):
            # Only the parts of `allOf` describe the same properties as this schema.
            extending = hidden if keyword == "allOf" else None
            return [self.translate(part, f"{place}[{index}]", extending) for index, part in enumerate(value)]
        return value

    def _define(self, reference: str) -> str:
        """Return a reference to the definition of what a reference refers to."""
        if reference not in self.names:
            self.names[reference] = name = f"d{len(self.names)}"
            place = reference.removeprefix("#/").replace("/", ".").replace("~1", "/")
            self.definitions[name] = self.translate(follow(self.contract, reference), place)
        return f"#/definitions/{self.names[reference]}"

    def _parts(self, schema: Any, seen: tuple[Any, ...] = ()) -> Iterator[dict[str, Any]]:
        """Yield a schema and those that it consists of by `$ref` and `allOf`."""
        if isinstance(schema, dict) and not any(schema is each for each in seen):
            if not (self.is_3_0 and "$ref" in schema):
                yield schema
            referred = [follow(self.contract, schema["$ref"])] if "$ref" in schema else []
            for part in (*schema.get("allOf", ()), *referred):
                yield from self._parts(part, (*seen, schema))

    def _hidden(self, schema: dict[str, Any]) -> frozenset[str]:
        """Return the names of a schema's properties that do not exist in this direction."""
        properties = [item for part in self._parts(schema) for item in part.get("properties", {}).items()]
        return frozenset(name for name, each in properties if any(part.get(self.mark) for part in self._parts(each)))


def _add_bounds(schema: dict[str, Any]) -> None:
    """Add the bounds of numeric formats, except where the schema's own are tighter."""
    for name in (schema.get("format"), "number" if "number" in str(schema.get("type")) else None):
        if name in BOUNDS:
            low, high = BOUNDS[name]
            schema["minimum"] = max(low, schema.get("minimum", low))
            schema["maximum"] = min(high, schema.get("maximum", high))


def _choose(discriminator: dict[str, Any], branches: dict[str, Any]) -> list[dict[str, Any]]:
    """Return parts of `allOf` by which a discriminator chooses among branches, which are by reference."""
    tag, mapping = discriminator["propertyName"], discriminator.get("mapping", {})

    def is_named(names: list[str]) -> dict[str, Any]:
        return {"type": "object", "required": [tag], "properties": {tag: {"enum": names, "x-rule": "discriminator"}}}

    names, conditions = [], []
    for reference, branch in branches.items():
        last = reference.rpartition("/")[2]
        own = [name for name, target in mapping.items() if target in (reference, last)] or [last]
        names += own
        conditions.append({"anyOf": [{"not": is_named(own)}, branch], "x-chosen": True})  # Draft 4 has no `if`
    return [is_named(names), *conditions]
