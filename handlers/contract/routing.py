"""Find the operation for a path and a method."""

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from handlers.contract import document
from handlers.contract.problems import Refusal

# A path parameter, whose name may contain any characters.
PARAMETER = re.compile(r"{(.*?)}")


class Match(NamedTuple):
    """The result of a lookup: a path of the contract, its operation ids by method, and the path parameters."""

    template: str
    operations: dict[str, str]
    parameters: dict[str, str]


def match(scope: Scope) -> Match | None:
    """Return the path of the contract that a request's path matches, or None."""
    # An encoded slash is part of a segment (RFC 3986, section 2.2), but no path segment here may contain a slash.
    if b"%" in scope["raw_path"] and b"%2f" in scope["raw_path"].lower():
        return None
    exact, patterns = _paths()
    if found := exact.get(scope["path"]):
        return found
    for pattern, names, template, operations in patterns:
        if values := pattern.fullmatch(scope["path"]):
            return Match(template, operations, dict(zip(names, values.groups(), strict=True)))
    return None


@cache
def _paths() -> tuple[dict[str, Match], list[tuple[re.Pattern[str], list[str], str, dict[str, str]]]]:
    """Return a dictionary of the paths without parameters, and the patterns of the paths with parameters."""
    methods: dict[str, dict[str, str]] = {}
    for operation_id, operation in document.operations().items():
        methods.setdefault(operation.path, {})[operation.method] = operation_id
        if operation.method == "GET":
            methods[operation.path].setdefault("HEAD", operation_id)
    exact, patterns = {}, []
    # Paths with more fixed characters take precedence: /pets/{id}/photo over /pets/{id}/{part}.
    for path, operations in sorted(methods.items(), key=lambda item: -len(PARAMETER.sub("", item[0]))):
        pattern = re.compile("/".join(map(_segment, path.split("/"))))
        if pattern.groups:
            patterns.append((pattern, PARAMETER.findall(path), path, operations))
        else:
            exact[path] = Match(path, operations, {})
    return exact, patterns


def _segment(segment: str) -> str:
    """Return the regular expression of a path segment.

    A parameter that another one follows ends at the next fixed character. With several parameters that may contain any
    character, the time of a match would grow with a power of the length.
    """
    first, *literals = map(re.escape, PARAMETER.split(segment)[::2])
    ends = [literal[: 1 + literal.startswith("\\")] for literal in literals[:-1]]
    return first + "".join(f"([^/{end}]+){literal}" for end, literal in zip([*ends, ""], literals, strict=False))


def find_operation(scope: Scope) -> str | None:
    """Return the operation id of a request, or None. Add it and the path parameters to the scope."""
    operation_id = None
    if found := match(scope):
        scope["path_params"] = found.parameters
        operation_id = scope["state"]["operation_id"] = found.operations.get(scope["method"])
    # `OPTIONS *` asks about the service as a whole (RFC 9110, section 9.3.7).
    elif scope["path"] == "*" and scope["method"] == "OPTIONS":
        scope["path"] = "/"
    return operation_id


async def without_operation(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer OPTIONS on a path of the contract. Raise Refusal for another path (404) or another method (405)."""
    found = match(scope)
    if not found:
        raise Refusal(404)
    if scope["method"] != "OPTIONS":
        raise Refusal(405, headers=_allow(found.operations))
    await _options_response(found.operations)(scope, receive, send)


def route(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """Return a route outside the contract for GET, HEAD and OPTIONS. OPTIONS gets 204, or the error that GET gets."""

    async def respond(request: Request) -> Response:
        response = await endpoint(request)
        return _options_response(("GET", "HEAD")) if request.method == "OPTIONS" else response

    return Route(path, respond, methods=["GET", "OPTIONS"])


def _options_response(methods: Iterable[str]) -> Response:
    return Response(status_code=204, headers=document.constant_headers(None, 204) | _allow(methods))


def _allow(methods: Iterable[str]) -> dict[str, str]:
    return {"Allow": ", ".join(dict.fromkeys([*methods, "OPTIONS"]))}
