"""Translate schemas of OpenAPI to JSON Schema, with the schemas that they refer to."""

from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import unquote

from handlers.contract.faults import FaultError

# Keywords whose value is a schema, a list of schemas, or a mapping from names to schemas.
ONE = {"additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
ONE |= {"unevaluatedItems", "unevaluatedProperties"}
MANY = {"allOf", "anyOf", "oneOf", "prefixItems"}
NAMED = {"dependentSchemas", "patternProperties", "properties"}
# The other keywords that validate. The rest only describes, such as `example`, and may contain anything.
VALUES = {"const", "dependentRequired", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxContains"}
VALUES |= {"maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties"}
VALUES |= {"minimum", "multipleOf", "pattern", "required", "type", "uniqueItems", "x-messages"}
UNSUPPORTED = {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id"}
# The bounds of formats; a number without format must fit into a float.
BOUNDS: dict[Any, tuple[float, float]] = {
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

    def translate(self, schema: Any, place: str, hidden: Iterable[str] = (), *, named: bool = False) -> Any:
        """Return the translation of a schema.

        Args:
            schema: The schema. Whatever is not a schema is returned as it is, for the compiler to refuse.
            place: The path to the schema in the contract.
            hidden: Properties that do not exist in this direction, because a schema that this is a part of says so.
            named: Whether others refer to the schema, so that its `allOf` names the schemas that it extends.

        Raises:
            FaultError: The schema has a keyword or reference that is not supported.
        """
        if not isinstance(schema, dict):
            return schema
        for keyword in UNSUPPORTED & schema.keys():
            raise FaultError(f"{place}.{keyword}", f"{keyword} is not supported; use $ref with a JSON Pointer.")
        result: dict[str, Any] = {"x-place": place}
        if "$ref" in schema:
            result["$ref"] = self._define(schema["$ref"], place, extended="x-extended" in schema)
            if self.is_3_0:
                return result
        hidden = {*hidden, *self._hidden(schema, place)}
        for keyword, value in schema.items():
            inside = f"{place}.{keyword}"
            if keyword in ONE:
                result[keyword] = self.translate(value, inside)
            elif keyword in NAMED and isinstance(value, dict):
                result[keyword] = {str(name): self.translate(part, f"{inside}.{name}") for name, part in value.items()}
            elif keyword == "allOf" and isinstance(value, list):
                parts = [{**part, "x-extended": True} if named and isinstance(part, dict) else part for part in value]
                result[keyword] = [self.translate(part, f"{inside}[{i}]", hidden) for i, part in enumerate(parts)]
            elif keyword in MANY and isinstance(value, list):
                result[keyword] = [self.translate(part, f"{inside}[{i}]") for i, part in enumerate(value)]
            elif keyword in VALUES | NAMED | MANY:
                result[keyword] = value
        for name in hidden & result.get("properties", {}).keys():
            result["properties"][name] = {"not": {}, "x-rule": self.mark}
        if isinstance(result.get("required"), list):
            result["required"] = [name for name in result["required"] if name not in hidden]
        if result.get("required") == []:  # which Draft 4 forbids
            del result["required"]
        self._bound(result)
        if "discriminator" in schema:
            self._discriminate(schema, result)
        return self._or_null(schema, result) if self.is_3_0 else result

    def _define(self, reference: str, place: str, *, extended: bool) -> str:
        """Return a reference to the translation of what a reference refers to.

        A schema with a discriminator, but without `oneOf` and `anyOf`, stands for itself and those that extend it,
        except where it is extended.
        """
        if (reference, extended) not in self.names:
            target, target_place = self._resolve(reference, place)
            self.names[reference, extended] = name = f"d{len(self.names)}"
            extending = [] if extended else self._extending(reference, target)
            if extending:
                choices = [*extending, {"$ref": reference, "x-extended": True}]
                target = {"oneOf": choices, "discriminator": target["discriminator"]}
            self.definitions[name] = self.translate(target, target_place, named=not extending)
        return f"#/definitions/{self.names[reference, extended]}"

    def _resolve(self, reference: Any, place: str) -> tuple[Any, str]:
        """Return what a reference refers to, and its place."""
        if not f"{reference}/".startswith("#/"):
            sentence = f"{reference} is not in this document; only references within it are supported, so bundle it."
            raise FaultError(f"{place}.$ref".removeprefix("."), sentence)
        target: Any = self.contract
        target_place = ""
        for step in unquote(reference).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target_place += f"[{key}]" if isinstance(target, list) else f".{key}"
            try:
                target = target[int(key) if isinstance(target, list) else key]
            except (KeyError, IndexError, TypeError, ValueError):
                raise FaultError(f"{place}.$ref".removeprefix("."), f"{reference} does not exist in this document.") from None
        return target, target_place.removeprefix(".")

    def _extending(self, reference: str, target: Any) -> list[dict[str, Any]]:
        """Return references to the schemas that extend one by `allOf`, directly or not, if it has a discriminator."""
        if not isinstance(target, dict) or "discriminator" not in target or {"oneOf", "anyOf"} & target.keys():
            return []
        found = [reference]
        for parent in found:
            for name, schema in self.contract["components"]["schemas"].items():
                own = f"#/components/schemas/{name}"
                if own not in found and {"$ref": parent} in schema.get("allOf", ()):
                    found.append(own)
        return [{"$ref": own} for own in found[1:]]

    def _parts(self, schema: Any, place: str) -> list[dict[str, Any]]:
        """Return a schema and those that it consists of by `$ref` and `allOf`."""
        parts: list[dict[str, Any]] = []
        pending = [schema]
        while pending:
            part = pending.pop()
            if isinstance(part, dict) and not any(part is known for known in parts):
                parts.append(part)
                pending += part.get("allOf", ())
                if "$ref" in part:
                    pending.append(self._resolve(part["$ref"], place)[0])
        return [part for part in parts if not (self.is_3_0 and "$ref" in part)]

    def _hidden(self, schema: dict[str, Any], place: str) -> set[str]:
        """Return the names of a schema's properties that do not exist in this direction."""
        return {
            name
            for part in self._parts(schema, place)
            for name, value in dict(part.get("properties", {})).items()
            if any(marked.get(self.mark) for marked in self._parts(value, place))
        }

    def _bound(self, result: dict[str, Any]) -> None:
        """Add the bounds of numeric formats, except where the schema's own are tighter."""
        names = (str(result.get("format")), "number" if "number" in str(result.get("type")) else "")
        for low, high in (BOUNDS[name] for name in names if name in BOUNDS):
            for bound, suffix, tighter in ((low, "inimum", max), (high, "aximum", min)):
                own = result.get(f"m{suffix}")
                if own is None or (isinstance(own, int | float) and tighter(own, bound) != own):
                    result[f"m{suffix}"] = bound
                    if self.is_3_0:
                        result.pop(f"exclusiveM{suffix}", None)

    def _discriminate(self, schema: dict[str, Any], result: dict[str, Any]) -> None:
        """Let the discriminator choose the branch. Only references are chosen, by the last step or the mapping."""
        union = next((keyword for keyword in ("oneOf", "anyOf") if keyword in schema), "")
        references = [branch.get("$ref") for branch in schema.get(union, ())]
        tag = schema["discriminator"].get("propertyName")
        if not any(references):
            return
        mapping = schema["discriminator"].get("mapping", {})
        branches, names = [], []
        for reference, branch in zip(references, result.pop(union), strict=True):
            if reference:
                last = reference.rpartition("/")[2]
                own = [name for name, target in mapping.items() if target in (reference, last)] or [last]
                names += own
                branches.append({"allOf": [{"required": [tag], "properties": {tag: {"enum": own}}}, branch]})
            else:
                branches.append(branch)
        parts: list[Any] = [{"anyOf": branches}]
        if all(references):
            parts[0]["x-tag"] = tag
            parts.insert(0, {"type": "object", "required": [tag], "properties": {tag: {"enum": names}}})
        result["allOf"] = [*result.get("allOf", ()), *parts]

    def _or_null(self, schema: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        """Allow null if the schema is nullable. An `enum` must list null nevertheless (OpenAPI 3.0.4, section 4.7.24)."""
        if not schema.get("nullable") or None not in schema.get("enum", [None]):
            return result
        if MANY & result.keys() or "not" in result:
            return {"anyOf": [{"type": "null"}, result], "x-messages": schema.get("x-messages", {})}
        if isinstance(result.get("type"), str):
            result["type"] = [result["type"], "null"]
        return result
