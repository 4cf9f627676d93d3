"""Translate schemas of OpenAPI to JSON Schema, with the schemas that they refer to."""

from typing import Any, Literal
from urllib.parse import unquote

from handlers.contract.faults import FaultError

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
    "number": (-(2 - 2.0**-52) * 2.0**1023, (2 - 2.0**-52) * 2.0**1023),
}


class Translation:
    """A translation of schemas of one contract, for requests or for responses.

    `definitions` collects the schemas that are referred to. A translated schema has its place in the contract as
    `x-place`. A property that does not exist in this direction has the rule that it violates as `x-rule`.
    """

    def __init__(self, contract: dict[str, Any], direction: Literal["request", "response"]) -> None:
        self.contract = contract
        self.is_3_0 = str(contract["openapi"]).startswith("3.0")
        self.mark = "readOnly" if direction == "request" else "writeOnly"
        self.definitions: dict[str, Any] = {}
        self.names: dict[tuple[str, bool], str] = {}

    def translate(
        self,
        schema: Any,
        place: str,
        *,
        named: bool = False,
        extended: bool = False,
        hidden: frozenset[str] = frozenset(),
    ) -> Any:
        """Return the translation of a schema. Whatever is not a schema is left for the compiler to refuse.

        Args:
            schema: The schema.
            place: The path to the schema in the contract.
            named: Whether references lead here, so that the `allOf` lists the schemas that this one extends.
            extended: Whether this is in the `allOf` of such a schema.
            hidden: Properties that do not exist in this direction, according to the schema that this is a part of.

        Raises:
            FaultError: The schema has a keyword or reference that is not supported.
        """
        if not isinstance(schema, dict):
            return schema
        for keyword in UNSUPPORTED & schema.keys():
            raise FaultError(f"{place}.{keyword}", f"{keyword} is not supported; use $ref with a JSON Pointer.")
        result: dict[str, Any] = {"x-place": place}
        if "$ref" in schema:
            result["$ref"] = self._define(schema["$ref"], place, extended=extended)
            if self.is_3_0:
                return result
        hidden |= self._hidden(schema, place)
        for keyword in filter(KEYWORDS.__contains__, schema):
            result[keyword] = self._value(keyword, schema[keyword], f"{place}.{keyword}", named, hidden)
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
            return _or_null(result)
        return result

    def _value(self, keyword: str, value: Any, place: str, named: bool, hidden: frozenset[str]) -> Any:
        """Return the value of a keyword with the schemas in it translated."""
        if keyword in ONE:
            return self.translate(value, place)
        if keyword in NAMED and isinstance(value, dict):
            return {str(name): self.translate(part, f"{place}.{name}") for name, part in value.items()}
        if keyword in MANY and isinstance(value, list):
            # Only the parts of `allOf` describe the same properties as this schema.
            options: dict[str, Any] = {"extended": named, "hidden": hidden} if keyword == "allOf" else {}
            return [self.translate(part, f"{place}[{index}]", **options) for index, part in enumerate(value)]
        return value

    def _define(self, reference: str, place: str, *, extended: bool = False) -> str:
        """Return a reference to the definition of what a reference refers to.

        A schema with a discriminator, but without `oneOf` and `anyOf`, means itself and the schemas that extend it,
        except where it is extended.
        """
        if (reference, extended) not in self.names:
            target, target_place = self._resolve(reference, place)
            self.names[reference, extended] = name = f"d{len(self.names)}"
            extending = () if extended else self._extending(reference, target)
            if extending:
                branches = {own: {"$ref": self._define(own, place)} for own in extending}
                branches[reference] = {"$ref": self._define(reference, place, extended=True)}
                self.definitions[name] = {"allOf": _choose(target["discriminator"], branches)}
            else:
                self.definitions[name] = self.translate(target, target_place, named=True)
        return f"#/definitions/{self.names[reference, extended]}"

    def _resolve(self, reference: Any, place: str) -> tuple[Any, str]:
        """Return what a reference refers to, and its place."""
        if not f"{reference}/".startswith("#/"):
            sentence = f"{reference} is not in this document; only references within it are supported, so bundle it."
            raise FaultError(f"{place}.$ref", sentence)
        target: Any = self.contract
        target_place = ""
        for step in unquote(reference).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target_place += f"[{key}]" if isinstance(target, list) else f".{key}"
            try:
                target = target[int(key) if isinstance(target, list) else key]
            except (KeyError, IndexError, TypeError, ValueError):
                raise FaultError(f"{place}.$ref", f"{reference} does not exist in this document.") from None
        return target, target_place.removeprefix(".")

    def _extending(self, reference: str, target: Any) -> list[str]:
        """Return references to the schemas that extend one by `allOf`, directly or not, if it has a discriminator."""
        found = [reference]
        if not isinstance(target, dict) or "discriminator" not in target or {"oneOf", "anyOf"} & target.keys():
            return []
        for parent in found:
            for name, schema in self.contract["components"]["schemas"].items():
                own = f"#/components/schemas/{name}"
                if own not in found and {"$ref": parent} in schema.get("allOf", ()):
                    found.append(own)
        return found[1:]

    def _parts(self, schema: Any, place: str) -> list[tuple[dict[str, Any], str]]:
        """Return a schema and those that it consists of by `$ref` and `allOf`, with their places."""
        parts: list[tuple[dict[str, Any], str]] = []
        pending = [(schema, place)]
        for part, at in pending:
            if isinstance(part, dict) and not any(part is known for known, _ in parts):
                parts.append((part, at))
                pending += [(each, f"{at}.allOf[{index}]") for index, each in enumerate(part.get("allOf", ()))]
                pending += [self._resolve(part["$ref"], at)] if "$ref" in part else []
        return [(part, at) for part, at in parts if not (self.is_3_0 and "$ref" in part)]

    def _hidden(self, schema: dict[str, Any], place: str) -> frozenset[str]:
        """Return the names of a schema's properties that do not exist in this direction."""
        return frozenset(
            name
            for part, at in self._parts(schema, place)
            for name, value in part.get("properties", {}).items()
            if any(each.get(self.mark) for each, _ in self._parts(value, f"{at}.properties.{name}"))
        )


def _add_bounds(schema: dict[str, Any]) -> None:
    """Add the bounds of numeric formats, except where the schema's own are tighter."""
    for name in (str(schema.get("format")), "number" if "number" in str(schema.get("type")) else ""):
        for bound, end, tighter in zip(BOUNDS.get(name, ()), ("inimum", "aximum"), (max, min), strict=False):
            own = schema.get(f"m{end}", bound)
            if isinstance(own, int | float) and tighter(own, bound) == bound:
                schema[f"m{end}"] = bound


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that also allows null."""
    if "not" in schema or MANY & schema.keys():
        return {"anyOf": [{"type": "null"}, schema], "x-messages": schema.get("x-messages", {})}
    return {**schema, "type": [schema["type"], "null"]} if isinstance(schema.get("type"), str) else schema


def _choose(discriminator: dict[str, Any], branches: dict[str, Any]) -> list[dict[str, Any]]:
    """Return parts of `allOf` by which a discriminator chooses among branches, by reference.

    A branch is chosen by its names in the mapping, or else by the last step of the reference.
    """
    tag, mapping = discriminator["propertyName"], discriminator.get("mapping", {})
    names = {}
    for reference in branches:
        last = reference.rpartition("/")[2]
        names[reference] = [name for name, target in mapping.items() if target in (reference, last)] or [last]

    def is_named(allowed: list[str]) -> dict[str, Any]:
        return {"type": "object", "required": [tag], "properties": {tag: {"enum": allowed}}}

    chosen = [{"allOf": [is_named(names[reference]), branch]} for reference, branch in branches.items()]
    return [is_named([name for own in names.values() for name in own]), {"x-tag": tag, "anyOf": chosen}]
