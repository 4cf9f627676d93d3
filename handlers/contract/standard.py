"""Merge the standard parts of every contract, `standard.yaml`, into a contract.

The merged contract is what the service serves and publishes, so that it also declares what the engine itself answers.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from handlers.contract.structure import follow, references

PATH = Path(__file__).with_suffix(".yaml")
PROBLEM = "application/problem+json"
# The titles of statuses, with those of RFC 9110 that older releases of Python do not have.
TITLES: dict[int, str] = {status: status.phrase for status in HTTPStatus}
TITLES |= {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# The conditions whose standard responses add something to the contract's own.
MERGED = ("alteredTags", "idempotency")
Resolve = Callable[[Any], Any]


def merge(contract: dict[str, Any], parts: bytes) -> dict[str, Any]:
    """Return a contract with the standard parts (in YAML) that it lacks. What it says itself takes precedence."""
    standard = yaml.load(parts, Loader=yaml.CSafeLoader)
    merged = deepcopy(contract)
    for part in ("x-headers", "x-headers-tls", "x-messages", "x-responses"):
        merged[part] = {**standard[part], **merged.get(part, {})}
    merged.setdefault("x-max-bytes", standard["x-max-bytes"])
    merged["paths"] = {path: item for path, item in merged.get("paths", {}).items() if not path.startswith("x-")}
    # A response that replaces a standard one keeps its limits.
    for status, response in standard["x-responses"].items():
        limits = {key: value for key, value in response.items() if key.startswith("x-") and key != "x-problems"}
        merged["x-responses"][status] = limits | merged["x-responses"][status]

    def resolve(node: Any) -> Any:
        while "$ref" in node:
            try:
                node = follow(merged, node["$ref"])
            except KeyError:
                node = follow(standard, node["$ref"])
        return node

    # Every response with the statuses that it is used for, by its identity.
    uses: dict[int, tuple[dict[str, Any], set[str]]] = {}
    # Copies, because linters take a component that only an extension refers to for unused.
    merged["x-responses"] = {key: deepcopy(resolve(response)) for key, response in merged["x-responses"].items()}
    sets = [merged["x-responses"]]
    for item in map(resolve, merged["paths"].values()):
        for operation in (node for method, node in item.items() if method in METHODS):
            declared = operation.setdefault("responses", {})
            media_types = " or ".join(resolve(operation.get("requestBody", {})).get("content", ()))
            for condition in _conditions(merged, item, operation, resolve):
                for status, response in standard["x-operation-responses"][condition].items():
                    if status not in declared:
                        declared[status] = _with_media_types(response, media_types)
                    elif condition in MERGED:
                        _extend(resolve(declared[status]), response)
            # Extensions are left out, because they are no responses.
            operation["responses"] = {key: declared[key] for key in sorted(declared) if not key.startswith("x-")}
            sets.append(operation["responses"])
    for responses in sets:
        for status, response in responses.items():
            found = resolve(response)
            uses.setdefault(id(found), (found, set()))[1].add(status)
    for response, statuses in uses.values():
        _complete(response, statuses, standard["x-response-headers"])
    _add_components(merged, standard)
    return merged


def _conditions(
    contract: dict[str, Any], item: dict[str, Any], operation: dict[str, Any], resolve: Resolve
) -> Iterator[str]:
    """Yield the kinds of standard responses that an operation needs."""
    yield "all"
    if "requestBody" in operation:
        yield "body"
    parameters = list(map(resolve, [*item.get("parameters", ()), *operation.get("parameters", ())]))
    if any(parameter["in"] == "path" for parameter in parameters):
        yield "path"
    if any((parameter["in"], parameter["name"].lower()) == ("header", "if-match") for parameter in parameters):
        yield "precondition"
        yield "alteredTags"
    if any("x-retention-hours" in parameter for parameter in parameters):
        yield "idempotency"
    if security := operation.get("security", contract.get("security")):
        yield "security"
        if any(scopes for requirement in security for scopes in requirement.values()):
            yield "scopes"


def _extend(response: dict[str, Any], standard: dict[str, Any]) -> None:
    """Add the headers and problems of a standard response to a response to the same status, which may be shared."""
    for key in ("headers", "x-problems"):
        response[key] = {**response.get(key, {}), **standard.get(key, {})}
    if standard["description"] not in response["description"]:
        response["description"] += f" {standard['description']}"


def _with_media_types(response: dict[str, Any], media_types: str) -> dict[str, Any]:
    """Return a copy of a standard response whose sentences name the media types of the request body."""
    problems = {name: text.format(media_types=media_types) for name, text in response.get("x-problems", {}).items()}
    return {**deepcopy(response), **({"x-problems": problems} if problems else {})}


def _complete(response: dict[str, Any], statuses: set[str], headers: dict[str, Any]) -> None:
    """Add the standard headers to a response, and a problem document to the response to an error."""
    response["headers"] = {**headers, **response.get("headers", {})}
    problems = response.pop("x-problems", None)
    if all(status[0] in "123" for status in statuses):
        return
    content = response.setdefault("content", {}).setdefault(PROBLEM, {})
    content.setdefault("schema", {"$ref": "#/components/schemas/Problem"})
    if "example" in content or len(statuses) > 1 or not (status := min(statuses)).isdecimal():
        return
    common = {"type": "about:blank", "title": title_of(int(status)), "status": int(status)}
    summary = " ".join(response["description"].split())
    if not problems and "examples" not in content:
        problems = {title_of(int(status)).replace(" ", ""): summary}
    for name, problem in (problems or {}).items():
        value = {**common, **(problem if isinstance(problem, dict) else {"detail": problem})}
        content.setdefault("examples", {})[name] = {"summary": summary, "value": value}


def title_of(status: int) -> str:
    """Return the title of a status (RFC 9110, section 15)."""
    return TITLES.get(status, "Error")


def _add_components(merged: dict[str, Any], standard: dict[str, Any]) -> None:
    """Add the components that the merged parts refer to, until none is missing."""
    pending = [reference for part in (merged, merged["x-responses"]) for _, reference in references(part)]
    while pending:
        reference = pending.pop()
        try:
            follow(merged, reference)
        except KeyError:
            _, _, kind, name = reference.split("/")
            component = standard["components"][kind][name]
            merged.setdefault("components", {}).setdefault(kind, {})[name] = component
            pending += [reference for _, reference in references(component)]
