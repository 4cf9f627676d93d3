"""Generate mutants of an OpenAPI document, with mutation operators for the keywords of OpenAPI and JSON Schema."""

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import yaml

from tests.tools.mutants.mutant import Mutant, number_repeated

# The keys in these mappings are names that the author of the contract chooses, not keywords of OpenAPI.
NAME_MAPPINGS = {
    "paths",
    "properties",
    "schemas",
    "headers",
    "responses",
    "requestBodies",
    "securitySchemes",
    "content",
    "examples",
    "links",
    "x-headers",
    "x-headers-tls",
    "x-responses",
}
# Mutants drop entries of these mappings, but no components: dropping one only breaks the references to it.
DROPPABLE = {"properties", "headers", "responses", "links", "x-headers", "x-headers-tls", "x-responses"}
DROPPED: Any = object()
Path = tuple[Any, ...]


class Change(NamedTuple):
    """A mutation that replaces or drops a value in the document."""

    operator: str
    path: Path
    new: Any


class Renaming(NamedTuple):
    """A mutation that replaces a key in the document."""

    operator: str
    path: Path
    new: str


def mutants(file: str, source: str) -> list[Mutant]:
    """Return every mutant of an OpenAPI document."""
    document = yaml.safe_load(source)
    root: Any = yaml.compose(source, Loader=yaml.SafeLoader)
    return list(number_repeated(_mutants(file, source, document, root)))


def _mutants(file: str, source: str, document: Any, root: yaml.Node) -> Iterator[Mutant]:
    request_paths = _request_paths(document)
    for change in _walk(document, document, (), request_paths):
        key, value = _entry(root, change.path)
        before = _dump(_at(document, change.path))
        after = "" if change.new is DROPPED else _dump(change.new)
        if isinstance(change, Renaming):
            before, after = str(change.path[-1]), change.new
        line = (key or value).start_mark.line + 1
        render = partial(_render, source, document, root, change)
        yield Mutant(file, "/".join(map(str, change.path)), change.operator, before, after, line, render)


def _request_paths(document: Any) -> set[Path]:
    """Return the paths of all parts that describe requests: parameters, bodies, and the parts that these reference."""
    found: set[Path] = set()

    def visit(value: Any, path: Path, in_request: bool) -> None:
        in_request = in_request or path[-1:] in (("parameters",), ("requestBody",), ("requestBodies",))
        if in_request and path in found:
            return
        if in_request:
            found.add(path)
        if isinstance(value, dict) and isinstance(value.get("$ref"), str):
            target = tuple(value["$ref"].removeprefix("#/").split("/"))
            visit(_at(document, target), target, in_request)
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in entries:
            if "links" not in path:
                visit(inner, (*path, key), in_request)

    visit(document, (), False)
    return found


def _walk(document: Any, value: Any, path: Path, request_paths: set[Path]) -> Iterator[Change | Renaming]:
    has_names = bool(path) and path[-1] in NAME_MAPPINGS and (len(path) < 2 or path[-2] != "properties")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(document, item, (*path, index), request_paths)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        here = (*path, key)
        if has_names:
            yield from _declaration(key, here)
        elif key in ("example", "examples"):
            # Do not mutate examples: a contract with a changed example is still correct.
            continue
        elif path[-1:] == ("x-messages",):
            yield Change("other sentence", here, f"x{inner}")
        else:
            yield from _keyword(document, value, key, here, path in request_paths)
        yield from _walk(document, inner, here, request_paths)


def _declaration(key: Any, path: Path) -> Iterator[Change | Renaming]:
    kind = path[-2]
    if kind in DROPPABLE and (path[0] != "components" or len(path) > len(("components", kind, key))):
        yield Change("declaration dropped", path, DROPPED)
    if kind == "responses" and str(key).startswith("2"):
        yield Renaming("other status", path, "201" if key == "200" else "200")


def _keyword(document: Any, schema: Any, key: str, path: Path, in_request: bool) -> Iterator[Change]:
    """Yield the changes to the value of a keyword.

    No test can notice that a rule for responses is looser. Therefore, rules for responses are made so strict that every
    response violates them.
    """
    value = schema[key]
    match value:
        case bool():
            is_strict = value == (key == "required")
            if in_request or not _is_rule(key) or not is_strict:
                yield Change("flipped", path, not value)
        case int() if _is_rule(key) and not in_request:
            yield Change("unsatisfiable rule", path, 0 if key.startswith("max") else 2**31)
        case int():
            yield Change("one more", path, value + 1)
            yield Change("one less", path, value - 1)
        case str():
            yield from _text(document, key, value, path, in_request)
        case list():
            yield from _list(schema, key, value, path, in_request)


def _is_rule(key: str) -> bool:
    return key in ("nullable", "additionalProperties", "required") or key.startswith(("min", "max"))


def _text(document: Any, key: str, value: str, path: Path, in_request: bool) -> Iterator[Change]:
    if key == "$ref":
        target = value.removeprefix("#/").split("/")
        names = sorted(_at(document, tuple(target[:-1])))
        other = names[(names.index(target[-1]) + 1) % len(names)]
        if other != target[-1]:
            yield Change("other reference", path, f"#/{'/'.join([*target[:-1], other])}")
    elif key == "default":
        yield Change("other default", path, f"x{value}")
    elif key == "pattern" and not in_request:
        yield Change("unsatisfiable rule", path, "^$")
    elif key in ("pattern", "format") and in_request:
        yield Change("rule dropped", path, DROPPED)
        if value.startswith("^"):
            yield Change("not anchored", path, value.removeprefix("^"))
        if value.endswith("$"):
            yield Change("not anchored", path, value.removesuffix("$"))


def _list(schema: Any, key: str, value: list[Any], path: Path, in_request: bool) -> Iterator[Change]:
    alternatives = key in ("enum", "anyOf", "oneOf", "allOf")
    if (alternatives and len(value) > 1) or key in ("parameters", "security") or (key == "required" and in_request):
        for index in range(len(value)):
            yield Change("item dropped", path, [*value[:index], *value[index + 1 :]])
    if key == "enum" and in_request and all(isinstance(item, str) for item in value):
        yield Change("item added", path, [*value, "x"])
    if key == "required":
        for name in schema.get("properties", {}):
            if name not in value:
                yield Change("item added", path, [*value, name])


def _at(document: Any, path: Path) -> Any:
    for key in path:
        document = document[key]
    return document


def _dump(value: Any) -> str:
    """Return a value as YAML in flow style, on one line."""
    dumped: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _render(source: str, document: Any, root: yaml.Node, change: Change | Renaming) -> str | None:
    """Return the source with the change but otherwise in its original layout, or None if that is impossible."""
    expected = deepcopy(document)
    parent, key = _at(expected, change.path[:-1]), change.path[-1]
    old_key, old_value = _entry(root, change.path)
    if isinstance(change, Renaming):
        parent[change.new] = parent.pop(key)
        start, end, text = _characters(source, old_key, f"'{change.new}'")
    elif change.new is DROPPED:
        del parent[key]
        start, end, text = *_lines(source, old_key, old_value), ""
    else:
        parent[key] = change.new
        start, end, text = _characters(source, old_value, _dump(change.new))
    changed = source[:start] + text + source[end:]
    try:
        return changed if yaml.safe_load(changed) == expected else None
    except yaml.YAMLError:
        return None


def _entry(root: Any, path: Path) -> tuple[Any, Any]:
    """Return the YAML nodes of the key and the value at a path; an item of a list has None instead of a key."""
    key, value = None, root
    for part in path:
        if isinstance(value, yaml.SequenceNode):
            key, value = None, value.value[part]
        else:
            key, value = next((key, inner) for key, inner in value.value if key.value == str(part))
    return key, value


def _characters(source: str, node: Any, text: str) -> tuple[int, int, str]:
    start, end = node.start_mark.index, node.end_mark.index
    # PyYAML's end mark of a block is the start of the next token, so exclude the whitespace between them.
    trailing = source[start:end]
    return start, start + len(trailing.rstrip()), text


def _lines(source: str, key: Any, value: Any) -> tuple[int, int]:
    start = source.rindex("\n", 0, key.start_mark.index) + 1
    end = value.start_mark.index + len(source[value.start_mark.index : value.end_mark.index].rstrip())
    return start, source.index("\n", end) + 1
