"""Schemathesis hooks and checks for the guarantees that an OpenAPI document states only in prose.

The checks need only a running service and Schemathesis. They learn from the document which operations create, list,
read and change which resources, and compare several responses about the same resource. They assume that no other client
changes the resources that the run creates. A run changes and deletes only these. It deletes them when it ends, even if
it is interrupted.
"""

import atexit
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import randbelow
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urljoin, urlsplit
from uuid import uuid4

import requests
import schemathesis
from hypothesis import reject
from schemathesis import AuthContext, Case, CheckContext, HookContext, Response
from schemathesis.auths import set_on_case
from schemathesis.config import OperationConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.filters import FilterSet

Json = dict[str, Any]
# The decoded segments of a URL path: the identity of a resource.
Segments = tuple[str, ...]
AnyResponse = Response | requests.Response

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
WRITES = {"put", "post", "patch", "delete"}
PROBLEM = "application/problem+json"
# Header fields whose values differ in every response, or that only a response with a body needs.
VOLATILE_HEADERS = {"date", "x-request-id", "transfer-encoding"}
ENTITY_TAGS = re.compile(r'[ \t,]*(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*')
PARAMETER = r"\{([^}]*)\}"
IDEMPOTENCY_KEY = re.compile("[!-~]([ -~]*[!-~])?")
# The statuses of a response to a URL that identifies no resource; the latter only if a path parameter is invalid.
ABSENT = (404, 410)
INVALID = (400, 414, 422)
# A check that looks for a resource in a list follows at most this many `next` links.
MAX_PAGES = 10


@dataclass
class Run:
    """The tested document, and what the run has created and changed."""

    schema: Any = None
    # The path of the POST that creates the resources at an item path, such as `/tasks` for `/tasks/{id}`.
    creators: dict[str, str] = field(default_factory=dict)
    # The properties of the response to that POST that hold path parameters: `{"/tasks/{id}": {"id": "id"}}`.
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    # The resources that the run created, in order of creation, and those that it must still delete.
    created: dict[Segments, str] = field(default_factory=dict)
    remaining: list[Segments] = field(default_factory=list)
    # The paths that identified no resource just before the run sent a PUT there.
    absent: set[Segments] = field(default_factory=set)
    # The operations whose first valid request got a resource that exists.
    tried: set[tuple[str, str]] = field(default_factory=set)
    # The representations of shared resources such as `/settings` before the run changed them.
    originals: dict[str, Json] = field(default_factory=dict)


RUN = Run()
original_send = requests.Session.send


@schemathesis.hook
def after_load_schema(context: HookContext, schema: Any) -> None:
    """Find the resources of the document, and disable the writes that could harm what others created."""
    RUN.schema = schema
    paths: Json = schema.raw_schema.get("paths", {})
    by_id = {definition(path, method).get("operationId"): path for path in paths for method in METHODS}
    for item in filter(None, map(item_of, paths)):
        collection = item.rpartition("/")[0]
        for path in (collection, f"{collection}/"):
            if definition(path, "post"):
                RUN.creators.setdefault(item, path)
    for path in paths:
        for status, response in definition(path, "post").get("responses", {}).items():
            for link in map(resolve, resolve(response).get("links", {}).values()):
                target = by_id.get(link.get("operationId"), "")
                item = item_of(target)
                if str(status).startswith("2") and item and not item_of(path).startswith(item):
                    RUN.creators.setdefault(item, path)
                    for name, expression in link.get("parameters", {}).items():
                        if found := re.fullmatch(r"\$response\.body#/([^/]+)", str(expression)):
                            RUN.keys.setdefault(item, {})[name.removeprefix("path.")] = found[1]
    harmful = FilterSet()
    harmful.include(lambda selected: is_harmful(selected.operation.path, selected.operation.method.lower()))
    schema.config.operations.operations.append(OperationConfig(filter_set=harmful, enabled=False))


def is_harmful(path: str, method: str) -> bool:
    """Return whether a write may change what others created, and the run can neither avoid nor undo this.

    That is a write to a path without parameters, unless a GET and a PUT can restore the earlier state, and a write to a
    path whose resources the run can neither read nor create.
    """
    if item := item_of(path):
        return method in WRITES and item not in RUN.creators and not is_readable(item)
    can_restore = definition(path, "put") and is_readable(path)
    return method in WRITES - {"post"} and not (can_restore and method != "delete" and definition(path, method))


# What the document says.


def resolve(node: Any) -> Json:
    """Return a part of the document; if it is a reference, return the part that it refers to."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = RUN.schema.raw_schema
        for part in unquote(node["$ref"].partition("#/")[2]).split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            target = target[int(name)] if isinstance(target, list) else target.get(name, {})
        node = target
    return node if isinstance(node, dict) else {}


def definition(path: str, method: str) -> Json:
    """Return an operation of the document, or an empty dictionary if there is none."""
    return resolve(resolve(RUN.schema.raw_schema["paths"].get(path)).get(method))


def parameters(path: str, method: str) -> dict[tuple[str, str], Json]:
    """Return the parameters of an operation by location and name; the names of header fields are in lower case."""
    declared = [
        *resolve(RUN.schema.raw_schema["paths"].get(path)).get("parameters", []),
        *definition(path, method).get("parameters", []),
    ]
    found = {(each["in"], each["name"]): each for each in map(resolve, declared)}
    return {(place, name.lower() if place == "header" else name): each for (place, name), each in found.items()}


def has_header(path: str, method: str, name: str) -> bool:
    """Return whether an operation has a header parameter."""
    return ("header", name) in parameters(path, method)


def is_readable(path: str) -> bool:
    """Return whether the document has a GET for a path that needs no other parameters."""
    return bool(definition(path, "get")) and not any(
        parameter.get("required") and place != "path" for (place, _), parameter in parameters(path, "get").items()
    )


def content(node: Any) -> tuple[str, Json]:
    """Return the first media type of a body, JSON if possible, and its description in the document."""
    found = resolve(node).get("content", {}).items()
    return next((each for each in found if "json" in each[0]), next(iter(found), ("", {})))


def body_schema(path: str, method: str) -> Any:
    """Return the schema of the body of an operation, perhaps a reference."""
    return content(definition(path, method).get("requestBody"))[1].get("schema", {})


def result_of(path: str, method: str) -> Json:
    """Return the first successful response of an operation."""
    responses = definition(path, method).get("responses", {}).items()
    return next((resolve(response) for status, response in responses if str(status).startswith("2")), {})


def result_schema(path: str, method: str) -> Any:
    """Return the schema of the body of the first successful response of an operation, perhaps a reference."""
    return content(result_of(path, method))[1].get("schema", {})


def properties(schema: Any) -> dict[str, Json]:
    """Return the properties of an object schema, also of those that it combines with `allOf`."""
    found: dict[str, Json] = {}
    for part in resolve(schema).get("allOf", []):
        found |= properties(part)
    return found | {name: resolve(each) for name, each in resolve(schema).get("properties", {}).items()}


def settable(path: str, method: str) -> dict[str, Json]:
    """Return the properties that a client can set with an operation."""
    found = properties(body_schema(path, method))
    return {name: each for name, each in found.items() if not each.get("readOnly")}


def item_of(path: str) -> str:
    """Return a path up to its last parameter, such as `/pets/{id}` for `/pets/{id}/photo`, or an empty string.

    The parameters have the names that they have where the document describes this path itself.
    """
    found = re.match(r".*\{[^}]*\}[^/]*", path)
    item = found[0] if found else ""
    shapes = {re.sub(PARAMETER, "{}", each): each for each in RUN.schema.raw_schema["paths"]}
    return str(shapes.get(re.sub(PARAMETER, "{}", item), item))


def key_of(item: str) -> str:
    """Return the property of a resource that is the last parameter of its path."""
    name = re.findall(PARAMETER, item)[-1]
    declared = properties(result_schema(item, "get")) or properties(result_schema(RUN.creators.get(item, ""), "post"))
    return RUN.keys.get(item, {}).get(name) or (name if name in declared else "id")


def listed_items(body: Any) -> list[Json] | None:
    """Return the items of a list response: an array, or the only array of objects in an object."""
    members = body.values() if isinstance(body, dict) else []
    arrays = [body] if isinstance(body, list) else [each for each in members if isinstance(each, list)]
    return arrays[0] if len(arrays) == 1 and all(isinstance(each, dict) for each in arrays[0]) else None


def list_of(item: str) -> str:
    """Return the path of the list that contains a resource in the form in which a GET returns it, if any."""
    path = RUN.creators.get(item, "")
    schema = resolve(result_schema(path, "get"))
    arrays = [schema, *properties(schema).values()]
    is_list = any(each.get("items", {}) == result_schema(path, "post") != {} for each in arrays)
    return path if is_list and is_readable(path) and item.rpartition("/")[0] == path.rstrip("/") else ""


def listed_in(path: str) -> str:
    """Return the item path of the resources that a list contains, or an empty string if a path is no such list."""
    return next((item for item in RUN.creators if path and list_of(item) == path), "")


def filterable(path: str) -> dict[str, Json]:
    """Return the schemas of the query parameters of a list that select items with a value of a property."""
    shown_properties = properties(result_schema(listed_in(path), "get"))
    schemas = {name: resolve(each.get("schema")) for (_, name), each in parameters(path, "get").items()}
    found = {name: schema for name, schema in schemas.items() if schema.get("type") == "boolean" or "enum" in schema}
    return {name: schema for name, schema in found.items() if name in shown_properties}


def filters(path: str, resource: Json) -> Iterator[tuple[Json, int]]:
    """Yield queries of a list, and how often its items then contain a resource."""
    schemas = filterable(path)
    if not any("default" in schema for schema in schemas.values()):
        yield {}, 1
    for name, schema in schemas.items():
        values = [value for value in schema.get("enum", [True, False]) if value is not None]
        for value in values if resource.get(name) in values else ():
            yield {name: json.dumps(value).strip('"')}, int(value == resource[name])


def page_sizes(path: str) -> dict[str, int]:
    """Return the query parameters that limit the size of a page, with their maximum."""
    schemas = {name: resolve(each.get("schema")) for (_, name), each in parameters(path, "get").items()}
    sizes = {name: schema for name, schema in schemas.items() if schema.get("minimum", 0) >= 1}
    return {name: schema["maximum"] for name, schema in sizes.items() if 1 < schema.get("maximum", 0) <= 100_000}


def sample(schema: Any, depth: int = 0) -> Any:
    """Return a value for a schema: its example or default, or one made from its parts."""
    schema = resolve(schema)
    values = [schema[name] for name in ("example", "const", "default") if name in schema]
    values += schema.get("examples", [])[:1] + schema.get("enum", [])[:1]
    for name in ("oneOf", "anyOf"):
        values += [sample(schema[name][0], depth + 1)] if name in schema and depth < 20 else []
    if values:
        return values[0]
    if found := properties(schema):
        required = {*schema.get("required", [])}.union(
            *(resolve(p).get("required", []) for p in schema.get("allOf", []))
        )
        return {name: sample(found[name], depth + 1) for name in found if name in required and depth < 20}
    formats = {
        "uuid": str(uuid4()),
        "date": "2026-05-12",
        "date-time": "2026-05-12T10:32:14Z",
        "email": "a@example.com",
    }
    text = formats.get(schema.get("format", ""), "x" * schema.get("minLength", 1))
    items = [sample(schema.get("items"), depth + 1) for _ in range(schema.get("minItems", 0)) if depth < 20]
    number = max(schema.get("minimum", 0), 0)
    kinds = {"object": {}, "array": items, "integer": number, "number": number, "boolean": False}
    return kinds.get(schema.get("type", ""), text)


def examples(path: str, method: str) -> list[Any]:
    """Return the examples of the body of an operation, and a value for its schema."""
    media = content(definition(path, method).get("requestBody"))[1]
    named = [resolve(each)["value"] for each in media.get("examples", {}).values() if "value" in resolve(each)]
    return [*named, *([media["example"]] if "example" in media else []), sample(media.get("schema"))]


# Which resources exist, and whose they are.


def segments(url: str) -> Segments:
    """Return the decoded segments of the path of a URL."""
    return tuple(map(unquote, urlsplit(url).path.split("/")))


def url_of(path: str) -> str:
    """Return the URL of a path of the document."""
    return str(RUN.schema.get_base_url()).rstrip("/") + path


def locate(url: str) -> tuple[str, dict[str, str]]:
    """Return the path of the document that fits a URL, and the path parameters; the path is empty if none fits."""
    base, whole = urlsplit(url_of("")).path, urlsplit(url).path
    for path in sorted(RUN.schema.raw_schema["paths"], key=lambda each: each.count("{")):
        names = re.findall(PARAMETER, path)
        pattern = re.sub(r"\\\{.*?\\\}", "([^/]+)", re.escape(base + path))
        if found := re.fullmatch(pattern, whole):
            return path, dict(zip(names, map(unquote, found.groups()), strict=True))
    return "", {}


def linked(response: AnyResponse, link: str) -> str:
    """Return the URL of a link in a response. It is always at the tested service, which alone may get credentials."""
    target = urlsplit(urljoin(str(response.request.url), link))
    return urlsplit(url_of(""))._replace(path=target.path, query=target.query).geturl()


def filled(path: str, values: Json) -> str:
    """Return a path of the document with the values of its parameters."""
    return re.sub(PARAMETER, lambda found: quote(str(values.get(found[1], "")), safe=""), path)


def item_url(case: Case[Any]) -> str:
    """Return the URL of the resource that a request is about."""
    url = str(case.as_transport_kwargs()["url"])
    return "/".join(url.split("/")[: len(url_of(item_of(case.path)).split("/"))])


def new_resources(request: requests.PreparedRequest, response: AnyResponse) -> list[str]:
    """Return the URLs of the resource that a request created, if any."""
    url, status = str(request.url), response.status_code
    path, values = locate(url)
    if request.method == "PUT" and path:
        return [url] if path == item_of(path) and (status == 201 or segments(url) in RUN.absent) else []
    declared = definition(path, "post").get("responses", {})
    if request.method != "POST" or (status != 201 and str(status) in declared and "201" in map(str, declared)):
        return []
    found = [linked(response, header_of(response, "Location"))] if status == 201 else []
    body = json_of(response)
    for item in [item for item, creator in RUN.creators.items() if creator == path]:
        names, known = re.findall(PARAMETER, item), RUN.keys.get(item, {})
        given = {name: body.get(known.get(name, key_of(item))) for name in names[-1:]} if isinstance(body, dict) else {}
        given |= {name: values.get(name, body.get(known.get(name))) for name in names[:-1]} if given else {}
        if given and None not in given.values():
            found.append(url_of(filled(item, given)))
    return [each for each in found if (where := locate(each)[0]) and where == item_of(where)]


def send_and_record(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    """Send a request, and record the resource that the request creates, if any."""
    response = original_send(session, request, **options)
    if RUN.schema and response.status_code in range(200, 300):
        for url in new_resources(request, response):
            if segments(url) not in RUN.created:
                RUN.created[segments(url)] = url
                RUN.remaining.append(segments(url))
    return response


# Patch the library `requests` itself: Schemathesis sends some HTTP requests without calling its hooks, and a faulty
# service may create resources for these HTTP requests.
setattr(requests.Session, "send", send_and_record)  # noqa: B010


def call(method: str, path: str, url: str, headers: Json | None = None, **options: Any) -> requests.Response:
    """Send a request of the run itself, with the configured credentials and with all parameters that are required.

    Args:
        method: The method of the request.
        path: The path of the document that fits the URL.
        url: The URL of the request.
        headers: Further header fields.
        options: Options of `requests.request`.
    """
    operations = RUN.schema[path]
    operation = operations[method if definition(path, method) else next(iter(operations))]
    case = operation.Case()
    set_on_case(case, AuthContext(operation=operation, app=None), None)
    config = RUN.schema.config
    sent = {"query": {}, "header": dict(config.headers_for(operation=operation) or {}), "cookie": {}}
    for (place, name), parameter in parameters(path, method).items():
        if parameter.get("required") and place != "path":
            value = parameter.get("example", sample(parameter.get("schema")))
            sent[place][name] = str(uuid4() if name == "idempotency-key" else value)
    sent["header"] |= {**case.headers, **(headers or {})}
    options["params"] = sent["query"] | case.query | options.get("params", {})
    options.setdefault("verify", config.tls_verify_for(operation=operation))
    return requests.request(
        method,
        url,
        headers=sent["header"],
        cookies=sent["cookie"] | case.cookies,
        auth=case._auth,
        timeout=30,
        allow_redirects=False,
        **options,
    )


def get(url: str) -> requests.Response | None:
    """Return the response to a GET, or None if the document has no GET for the URL that the run can send."""
    path, _ = locate(url)
    return call("get", path, url) if is_readable(path) else None


def is_new_url(url: str) -> bool:
    """Return whether the service says that a URL identifies no resource."""
    response = get(url)
    return response is not None and response.status_code in ABSENT


def varied(body: Any, path: str, method: str) -> Any:
    """Return a body with other strings, since names may have to be unique. References to other resources stay."""
    if not isinstance(body, dict):
        return body
    changed = dict(body)
    for name, schema in settable(path, method).items():
        is_reference = re.search(r"(?i)(^|_)id$", name) or name.endswith("Id")
        if isinstance(body.get(name), str) and "enum" not in schema and not is_reference:
            fresh = uuid4().hex[: schema.get("maxLength", 32)]
            text = body[name][: schema.get("maxLength", 255) - len(fresh)] + fresh
            by_format = {None: text, "email": f"{fresh}@example.com", "uri": f"https://example.com/{fresh}"}
            changed[name] = by_format.get(schema.get("format"), body[name])
    return changed


def without_foreign_key(body: Any, path: str, values: Json) -> Any:
    """Return the body of a POST; if it contains the id of an existing resource, return it with an unused id."""
    for item in [item for item, creator in RUN.creators.items() if creator == path]:
        key, name, declared = key_of(item), re.findall(PARAMETER, item)[-1], settable(path, "post")
        is_known = isinstance(body, dict) and isinstance(body.get(key), str | int) and str(body[key])
        if is_known and (key in declared or not declared):
            url = url_of(filled(item, {**values, name: body[key]}))
            if segments(url) not in RUN.created and not is_new_url(url):
                body = body | {key: unused_value(declared.get(key))}
    return body


def create(item: str, like: Any = None, parent_url: str | None = None) -> str | None:
    """Create a resource, under new parents, and return its URL; return None if the service refuses every attempt.

    The bodies to try are the examples of the document; then an existing resource of this kind, whose references surely
    exist; then both with other names.

    Args:
        item: The item path.
        like: The resource that the new one replaces, if any.
        parent_url: The URL of the parent, instead of a new one.
    """
    path = RUN.creators.get(item, "")
    parent = item_of(path)
    parent_url = parent_url or (create(parent) if parent else "")
    if not path or parent_url is None:
        return None
    values = locate(parent_url)[1]
    url = url_of(filled(path, values))
    media_type, _ = content(definition(path, "post").get("requestBody"))
    bodies = examples(path, "post")
    if not isinstance(like, dict) and is_readable(path):
        like = next(iter(listed_items(json_of(call("get", path, url))) or []), None)
    if isinstance(like, dict):
        bodies.append({name: like[name] for name in settable(path, "post") if name in like})
    for body in [*bodies, *(varied(body, path, "post") for body in reversed(bodies))]:
        headers, options = encoded(without_foreign_key(body, path, values), media_type)
        response = call("post", path, url, headers, **options)
        for created in new_resources(response.request, response) if response.status_code < 300 else ():
            if item_of(locate(created)[0]) == item:
                return created
    return None


def encoded(body: Any, media_type: str) -> tuple[Json, Json]:
    """Return the header fields, and the options of `requests.request`, that send a body."""
    if media_type == "multipart/form-data":
        return {}, {"files": {name: (None, str(value)) for name, value in dict(body).items()}}
    if "json" in media_type:
        return {"Content-Type": media_type}, {"data": json.dumps(body)}
    return ({"Content-Type": media_type}, {"data": body}) if media_type else ({}, {})


def unused_value(schema: Any) -> str | int:
    """Return a value for a path parameter that probably identifies no resource."""
    if resolve(schema).get("type") in ("integer", "number"):
        low, high = resolve(schema).get("minimum", 1), resolve(schema).get("maximum", 2**31 - 1)
        return int(max(low, min(high, 2**53 - 1) - randbelow(10**6)))
    return str(uuid4()) if resolve(schema).get("format") == "uuid" else uuid4().hex


def unused(item: str) -> str | None:
    """Return a URL that identifies no resource, or None if the service does not say so."""
    declared = parameters(item, "get") or parameters(item, "delete")
    schemas = {name: parameter.get("schema", {}) for (_, name), parameter in declared.items()}
    names = re.findall(PARAMETER, item)
    url = url_of(filled(item, {name: unused_value(schemas.get(name)) for name in names}))
    return url if is_new_url(url) else None


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: Json) -> None:
    """Protect the resources of other clients, and change requests that the service would rightly reject.

    - A write to a resource that the run did not create is redirected to a new one, or to a URL that identifies none. If
      the run can do neither, it does not send the request.
    - The first valid write of each operation is redirected to a new resource if there is none at its URL, since
      Schemathesis warns if every valid request to an operation returns 404.
    - A valid idempotency key is made unique, since reusing it with a different body is rejected.
    - The current entity tag is added to a valid If-Match (weak tags included), since Schemathesis warns if every valid
      request to an operation returns 412.
    """
    headers: Any = case.headers
    key = str(headers.get("Idempotency-Key", ""))
    if IDEMPOTENCY_KEY.fullmatch(key):
        is_uuid = re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", key)
        headers["Idempotency-Key"] = str(uuid4()) if is_uuid else uuid4().hex + key[32:]
    if case.method.lower() not in WRITES:
        return
    item = item_of(case.path)
    if not item:
        protect_shared(case)
        return
    if {"", ".", ".."} & {str(value) for value in case.path_parameters.values()}:
        reject()  # The URL would be that of another path.
    url = item_url(case)
    if segments(url) not in RUN.created:
        current = get(url)
        is_invalid = case.meta is not None and case.meta.is_negative_at(ParameterLocation.PATH)
        is_absent = current is not None and current.status_code in (*ABSENT, *(INVALID if is_invalid else ()))
        if is_absent:
            RUN.absent.add(segments(url))
        if not is_absent or is_first_valid(case):
            target = create(item, json_of(current)) or (url if is_absent else unused(item)) or reject()
            if target != url:
                redirect(case, target)
    if ENTITY_TAGS.fullmatch(str(headers.get("If-Match", ""))):
        current = get(str(case.as_transport_kwargs()["url"]))
        headers["If-Match"] += f", {current.headers.get('ETag', '') if current else ''}"


def is_first_valid(case: Case[Any]) -> bool:
    """Return whether this is the first valid request to an operation, outside a sequence of requests."""
    operation, meta = (case.method, case.path), case.meta
    if (
        operation in RUN.tried
        or meta is None
        or meta.generation.mode.is_negative
        or meta.phase.name.value == "stateful"
    ):
        return False
    RUN.tried.add(operation)
    return True


def redirect(case: Case[Any], url: str) -> None:
    """Let a request be about the resource at another URL."""
    declared = parameters(case.path, case.method.lower())
    for name, value in zip(re.findall(PARAMETER, case.path), locate(url)[1].values(), strict=False):
        kind = resolve(declared.get(("path", name), {}).get("schema")).get("type")
        case.path_parameters[name] = int(value) if kind == "integer" else value


def protect_shared(case: Case[Any]) -> None:
    """Keep the original of a shared resource to restore it, and let a POST replace no existing resource."""
    if case.method == "POST":
        body = without_foreign_key(case.body, case.path, {})
        if body is not case.body:
            case.body = body
    elif case.path not in RUN.originals:
        original = json_of(call("get", case.path, url_of(case.path)))
        if not isinstance(original, dict):
            reject()
        RUN.originals[case.path] = original


@atexit.register
def clean_up() -> list[str]:
    """Delete what the run created, restore what it changed, and return a sentence about each failure.

    This function is registered with `atexit`, because `after_run` is skipped when a run is interrupted or stops at its
    first failure.
    """
    before, faults = -1, list[str]()
    # A deletion can fail while another resource refers to the deleted one, so repeat them as long as this helps.
    while RUN.remaining and len(RUN.remaining) != before:
        before, faults = len(RUN.remaining), []
        for resource in reversed(RUN.remaining.copy()):
            url = RUN.created[resource]
            path, _ = locate(url)
            if definition(path, "delete") and (fault := failure("delete", path, url)):
                faults.append(f"{fault}, so it remains")
            else:
                RUN.remaining.remove(resource)
    for path, original in RUN.originals.items():
        writable = {name: original[name] for name in settable(path, "put") if name in original} or original
        if fault := failure("put", path, url_of(path), writable):
            faults.append(f"{fault}, so it keeps the values of the run")
    RUN.originals.clear()
    return faults


def failure(method: str, path: str, url: str, body: Any = None) -> str:
    """Send a request that must succeed, and return an empty string, or what happened if it failed."""
    media_type, _ = content(definition(path, method).get("requestBody"))
    headers, options = encoded(body, media_type)
    if has_header(path, method, "if-match"):
        headers["If-Match"] = "*"
    try:
        response = call(method, path, url, headers, **options)
    except requests.RequestException as error:
        return f"{method.upper()} {url} failed ({error})"
    return "" if response.ok or response.status_code in ABSENT else sentence(response)


# What the checks have in common.


def json_of(response: AnyResponse | None) -> Any:
    """Return the JSON body of a response, or None if there is none."""
    try:
        return response.json() if response is not None and response.content else None
    except ValueError:
        return None


def header_of(response: AnyResponse, name: str) -> str:
    """Return a header field of a response, or an empty string if it is absent."""
    value = response.headers.get(name.lower() if isinstance(response, Response) else name, "")
    return value[0] if isinstance(value, list) else value


def sentence(response: AnyResponse) -> str:
    """Return what was requested, and the status of the response."""
    return f"{response.request.method} {response.request.url} returned {response.status_code}"


def assert_status(response: AnyResponse, *expected: int, because: str) -> None:
    """Fail if a response has another status."""
    assert response.status_code in expected, (
        f"{sentence(response)}, not {' or '.join(map(str, expected))}, although {because}"
    )


def assert_same(received: Any, expected: Any, where: str) -> None:
    """Fail if two JSON documents differ, and say in which properties."""
    if isinstance(received, dict) and isinstance(expected, dict):
        names = [name for name in {**expected, **received} if received.get(name, ...) != expected.get(name, ...)]
        different = [f"`{name}` is {shown(received, name)}, not {shown(expected, name)}" for name in names]
    else:
        different = [] if received == expected else [f"it is {received!r}, not {expected!r}"]
    assert not different, f"{where}: {'; '.join(different)}"


def shown(document: Json, name: str) -> str:
    """Return a property of a document as a failing check shows it."""
    return repr(document[name]) if name in document else "absent"


def json_of_request(response: Response) -> Any:
    """Return the JSON body of the request that got a response, or None if there is none."""
    try:
        return json.loads(response.request.body or "null")  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return None


def url_without_query(response: Response) -> str:
    """Return the URL of the request that got a response, without its query."""
    return str(response.request.url).partition("?")[0]


def is_equivalent(received: Any, sent: Any, schema: Any) -> bool:
    """Return whether a received value is what was sent, perhaps in another spelling or with defaults for omissions."""
    schema = resolve(schema)
    if isinstance(received, dict) and isinstance(sent, dict):
        known = properties(schema)
        return all(name in received and is_equivalent(received[name], sent[name], known.get(name)) for name in sent)
    if isinstance(received, list) and isinstance(sent, list) and len(received) == len(sent):
        return all(is_equivalent(*pair, schema.get("items")) for pair in zip(received, sent, strict=True))
    if isinstance(received, str) and isinstance(sent, str) and "format" in schema:
        return schema["format"] in ("date-time", "time", "duration") or received.casefold() == sent.casefold()
    return bool(received == sent)


def listed(item: str, url: str, key: Any, query: Json | None = None) -> list[Json] | None:
    """Return the items of a list that have a key, or None if the document has no such list, or the list is too long.

    Args:
        item: The item path.
        url: The URL of the resource to look for.
        key: The key of the resource to look for.
        query: The query parameters of the list.
    """
    path, name, found = list_of(item), key_of(item), []
    if not path:
        return None
    page = call(
        "get",
        path,
        url.rpartition("/")[0] + path[len(path.rstrip("/")) :],
        params={**page_sizes(path), **(query or {})},
    )
    for _ in range(MAX_PAGES):
        items = listed_items(json_of(page))
        if page.status_code != 200 or items is None:
            return None
        found += [each for each in items if str(each.get(name)) == str(key)]
        if "next" not in page.links:
            return found
        following = linked(page, page.links["next"]["url"])
        before, after = (parse_qs(urlsplit(each).query) for each in (str(page.url), following))
        (cursor, last), *others = [(each, after[each]) for each in after if after[each] != before.get(each)] or [
            ("", [])
        ]
        # If the cursor is the number of the last item, jump to just before the key.
        if not others and items and last == [str(items[-1].get(name))] and str(key).isdecimal() and last[0].isdecimal():
            after[cursor] = [str(max(int(last[0]), int(key) - 1))]
            following = f"{following.partition('?')[0]}?{urlencode(after, doseq=True)}"
        page = call("get", path, following)
    return None


@contextmanager
def writing(item: str, url: str, present: list[Json]) -> Iterator[Callable[[], None]]:
    """Create a resource in a list, and yield a function that replaces it with another one; delete it at the end.

    Do nothing if the list belongs to a resource that the run did not create, or if the run could not delete.
    """
    parent = item_of(RUN.creators[item])
    parent_url = url.rpartition("/")[0] if parent else ""
    can_write = definition(item, "delete") and (not parent or segments(parent_url) in RUN.created)
    written: list[str] = []

    def write() -> None:
        delete()
        if can_write and (created := create(item, present[-1] if present else None, parent_url)):
            written.append(created)

    def delete() -> None:
        while written:
            call("delete", item, written.pop())

    write()
    try:
        yield write
    finally:
        delete()


def is_success(response: AnyResponse, *methods: str) -> bool:
    """Return whether a request with one of these methods succeeded."""
    return response.request.method in methods and 200 <= response.status_code < 300


def resend(response: Response, method: str = "GET", headers: Json | None = None, **body: Any) -> requests.Response:
    """Send a request again, with the same header fields, but with another method, further header fields or a body."""
    request = response.request.copy()
    request.method = method
    if method in ("GET", "HEAD", "DELETE") or body:
        for name in ("Content-Type", "Content-Length", "Transfer-Encoding"):
            request.headers.pop(name, None)
        request.body = None
    for name in [name for name in request.headers if name.lower() in ("if-match", *map(str.lower, headers or {}))]:
        del request.headers[name]
    request.headers.update(headers or {})
    if body:
        request.prepare_body(body.get("data"), body.get("files"))
    with requests.Session() as session:
        return session.send(request, timeout=30, allow_redirects=False, verify=response.verify)


def own_representation(path: str, method: str, document: Json) -> Json | None:
    """Return the part of a document that a client may send with PUT or PATCH, or None if there is none."""
    return {name: document[name] for name in settable(path, method) if document.get(name) is not None} or None


def is_same_kind(path: str, method: str) -> bool:
    """Return whether an operation returns what a GET of the same path returns."""
    return is_readable(path) and result_schema(path, method) == result_schema(path, "get") != {}


@schemathesis.check
def every_error_is_a_problem(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """An error response is a problem document that contains the status code of the response."""
    declared = [definition(case.path, method).get("responses", {}).values() for method in METHODS]
    contents = [resolve(each).get("content", {}) for responses in declared for each in responses]
    if response.status_code < 400 or not any(PROBLEM in each for each in contents):
        return
    media_type = header_of(response, "Content-Type")
    assert media_type.partition(";")[0] == PROBLEM, f"{sentence(response)} with the type {media_type}, not {PROBLEM}"
    problem = json_of(response)
    assert isinstance(problem, dict), f"{sentence(response)} without a JSON object"
    status = problem.get("status")
    assert status == response.status_code, f"{sentence(response)}, but the `status` of the problem is {status!r}"
    for name in ("title", "detail"):
        assert problem.get(name), f"{sentence(response)}, but the problem has no `{name}`"


@schemathesis.check
def what_was_sent_is_kept(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A resource that is created, replaced or changed has every property as the client sent it."""
    method = case.method.lower()
    kept = settable(case.path, method)
    kept = {name: kept[name] for name in kept.keys() & properties(result_schema(case.path, method)).keys()}
    sent, received = json_of_request(response), json_of(response)
    if not is_success(response, "POST", "PUT", "PATCH") or not isinstance(sent, dict) or not isinstance(received, dict):
        return
    # In a merge patch, null removes a property.
    names = [name for name in sent if name in kept and (sent[name] is not None or method != "patch")]
    different = [name for name in names if not is_equivalent(received.get(name), sent[name], kept[name])]
    changes = [f"`{name}` is {shown(received, name)}, not {sent[name]!r} as sent" for name in different]
    assert not changes, f"{sentence(response)}: {'; '.join(changes)}"


@schemathesis.check
def put_answers_what_get_gives(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """After a PUT or PATCH, GET returns the same resource as the response to that request."""
    if is_success(response, "PUT", "PATCH") and is_same_kind(case.path, case.method.lower()):
        got = resend(response)
        assert_status(got, 200, because=f"{sentence(response)} just before")
        assert_same(json_of(got), json_of(response), f"{sentence(got)}, but other content than {case.method} before")
        tags = header_of(response, "ETag"), header_of(got, "ETag")
        assert tags[0] == tags[1] or "" in tags, (
            f"{sentence(got)} with the ETag {tags[1]}, but {case.method} with {tags[0]}"
        )


@schemathesis.check
def tag_is_known_and_stale_tag_is_refused(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET returns 304 if If-None-Match matches; a write returns 412 and does nothing if If-Match does not match."""
    path, tag = case.path, header_of(response, "ETag")
    is_known = is_same_kind(path, case.method.lower()) and path == item_of(path)
    if not is_success(response, "GET", "PUT", "PATCH") or response.status_code == 204 or not is_known or not tag:
        return
    weak = tag if tag.startswith("W/") else f"W/{tag}"
    if has_header(path, "get", "if-none-match"):
        cached = resend(response, headers={"If-None-Match": f'"other", {weak}'})
        assert_status(cached, 304, because=f"If-None-Match contained its current entity tag {tag}")
        assert cached.content == b"", f"{sentence(cached)} with a body"
        assert cached.headers.get("ETag") == tag, (
            f"{sentence(cached)} with the ETag {cached.headers.get('ETag')}, not {tag}"
        )
    stale = {"If-Match": f'"other", {weak}'}
    own = segments(str(response.request.url)) in RUN.created
    for method in ("put", "patch", "delete") if own else ():
        media_type, _ = content(definition(path, method).get("requestBody"))
        body = own_representation(path, method, json_of(response))
        if has_header(path, method, "if-match") and (body or method == "delete"):
            headers, options = encoded(body, media_type if method != "delete" else "")
            refused = resend(response, method.upper(), headers | stale, **options)
            assert_status(
                refused, 412, because=f"If-Match was {stale['If-Match']}, and the current entity tag is {tag}"
            )
    if own:
        got = resend(response)
        assert_same(json_of(got), json_of(response), f"{got.request.url} changed by a request that If-Match forbade")


@schemathesis.check
def condition_is_refused_where_it_does_not_hold(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A 412 is returned only if If-Match contains neither `*` nor the current entity tag of the resource."""
    condition: Any = response.request.headers.get("If-Match")
    if response.status_code == 412 and condition is not None and is_readable(case.path):
        text = condition.decode("latin-1") if isinstance(condition, bytes) else condition
        tag = resend(response).headers.get("ETag", "")
        assert text != "*", f"{sentence(response)}, although If-Match was `*`"
        strong = [tag for weak, tag in re.findall(r'(W/)?("[^"]*")', text) if not weak]
        assert tag not in strong, f"{sentence(response)}, although If-Match contained the current entity tag {tag}"


@schemathesis.check
def retry_creates_nothing(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A retry with the same idempotency key gets a replay and creates nothing; a different body gets 422 (or 409)."""
    is_keyed = has_header(case.path, "post", "idempotency-key") and "Idempotency-Key" in response.request.headers
    if not is_success(response, "POST") or not is_keyed:
        return
    retried = resend(response, "POST")
    assert_status(retried, response.status_code, because="it is a retry with the same idempotency key")
    assert_same(json_of(retried), json_of(response), f"{sentence(retried)}, but a retry got another body")
    for name in ("ETag", "Location"):
        values = header_of(retried, name), header_of(response, name)
        assert values[0] == values[1], f"{sentence(retried)}, but a retry got the {name} {values[0]}, not {values[1]}"
    declared = resolve(definition(case.path, "post")["responses"].get(str(response.status_code))).get("headers", {})
    if "Idempotency-Replayed" in declared:
        replayed = header_of(response, "Idempotency-Replayed"), header_of(retried, "Idempotency-Replayed")
        assert replayed == ("", "true"), f"Idempotency-Replayed of the request and its retry were {replayed}"
    sent = json_of_request(response)
    other = varied(sent, case.path, "post")
    if other != sent:
        headers, options = encoded(other, content(definition(case.path, "post").get("requestBody"))[0])
        expected = [status for status in (409, 422) if str(status) in definition(case.path, "post")["responses"]]
        refused = resend(response, "POST", headers, **options)
        assert_status(refused, *expected[-1:] or (409, 422), because="its idempotency key was used with another body")


@schemathesis.check
def deleted_resource_is_gone(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET returns 404 for a deleted resource, and the list does not contain it."""
    if is_success(response, "DELETE") and case.path == item_of(case.path) and is_readable(case.path):
        because = f"{sentence(response)} just before"
        if response.status_code != 202:
            assert_status(resend(response), 404, 410, because=because)
            key = str(response.request.url).partition("?")[0].rpartition("/")[2]
            found = listed(case.path, url_without_query(response), unquote(key))
            assert not found, f"The list still contains {found[0]}, although {because}"


@schemathesis.check
def created_resource_is_listed_once(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET of the URL in Location returns the created resource, and the list contains that resource exactly once."""
    if not is_success(response, "POST") or not isinstance(resource := json_of(response), dict):
        return
    for url in new_resources(response.request, response):
        item, _ = locate(url)
        if not is_readable(item) or result_schema(item, "get") != result_schema(case.path, "post"):
            continue
        got = call("get", item, url)
        assert_status(got, 200, because=f"{sentence(response)} with the Location {header_of(response, 'Location')}")
        assert_same(json_of(got), resource, f"{sentence(got)}, but other content than POST before")
        if list_of(item) != case.path:
            continue
        key = resource.get(key_of(item))
        for query, count in filters(case.path, resource):
            found = listed(item, url, key, query)
            if found is None:
                continue
            given = f" with {query}" if query else ""
            assert len(found) == count, f"The list{given} contains {key!r} {len(found)} times, not {count} times"
            for each in found:
                assert_same(
                    each, resource, f"The list{given} contains {key!r}, but with other content than POST before"
                )


@schemathesis.check
def walk_visits_every_resource_once(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """The `next` links lead to each resource exactly once, in the order of the list, despite writes between pages."""
    path, url, item = case.path, url_without_query(response), listed_in(case.path)
    if not is_success(response, "GET") or not item or "Link" not in result_of(path, "get").get("headers", {}):
        return
    query = {name: values[-1] for name, values in parse_qs(urlsplit(str(response.request.url)).query).items()}
    key, (size, largest) = key_of(item), next(iter(page_sizes(path).items()), ("", 0))
    whole = call("get", path, url, params={**query, **({size: largest} if size else {})})
    present = listed_items(json_of(whole)) or []
    order = [each.get(key) for each in present]
    limit = max(1, min(int(query.get(size, len(present) or 1)), len(present) // 3))
    visited: list[Json] = []
    with writing(item, url, present) as write:
        page = call("get", path, url, params={**query, **({size: limit} if size else {})})
        # The walk may take longer than the whole list, as other clients may create resources.
        for _ in range(2 * len(present) + MAX_PAGES):
            assert_status(page, 200, because="it is a page of a list")
            items = listed_items(json_of(page)) or []
            assert not size or len(items) <= limit, f"{sentence(page)} with {len(items)} items: `{size}` is {limit}"
            seen = {each.get(key) for each in visited}
            repeated = [each[key] for each in items if each.get(key) in seen]
            assert not repeated, f"{sentence(page)}, but repeats {repeated} of earlier pages"
            visited += items
            if "next" not in page.links or (order and order[-1] in [each.get(key) for each in items]):
                break
            write()
            page = call("get", path, linked(page, page.links["next"]["url"]))
    keys = [each.get(key) for each in visited]
    assert len(set(keys)) == len(keys), f"The pages of {url} contain a resource twice: {keys}"
    walked, expected = [each for each in keys if each in order], [each for each in order if each in keys]
    assert walked == expected, f"The pages of {url} have the order {walked}, but the whole list {expected}"
    for missing in [each for each in order if each not in keys] if is_readable(item) else ():
        gone = call("get", item, f"{url.rstrip('/')}/{quote(str(missing), safe='')}")
        assert gone.status_code in (404, 410), f"The pages of {url} omit {missing!r}, which exists"
    for name in filterable(path).keys() & query.keys():
        wrong = [each for each in visited if name in each and json.dumps(each[name]).strip('"') != query[name]]
        assert not wrong, f"The pages of {url} with {name}={query[name]} contain {wrong[0]}"


@schemathesis.check
def head_equals_get(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """HEAD returns the same status and header fields as GET, without the body."""
    if response.request.method == "GET":
        got, head = resend(response), resend(response, "HEAD")
        assert head.content == b"", f"{sentence(head)} with a body"
        assert_status(head, response.status_code, because=f"{sentence(response)} just before")
        # Two responses to the same GET may differ in further fields, such as the rest of a rate limit.
        names = {name.lower() for name in got.headers if [got.headers[name]] == response.headers.get(name.lower())}
        stable = sorted((names | {name.lower() for name in head.headers} - response.headers.keys()) - VOLATILE_HEADERS)
        assert_same(
            {name: head.headers[name] for name in stable if name in head.headers},
            {name: got.headers[name] for name in stable if name in got.headers},
            f"{sentence(head)}, but with other header fields than GET",
        )


@schemathesis.check
class IdAndTimeNeverChange:
    """The id and creation time of a resource are the same in every response, and ids are never reused."""

    def __init__(self) -> None:
        self.constant: dict[Segments, Json] = {}
        self.created: dict[Segments, Response] = {}

    def after_response(self, ctx: CheckContext, response: Response, case: Case[Any]) -> None:
        """Compare the resources in this response with those in earlier responses."""
        method, url, body = case.method.lower(), str(response.request.url), json_of(response)
        if not is_success(response, "GET", "POST", "PUT", "PATCH") or not body:
            return
        if case.path == item_of(case.path) and is_same_kind(case.path, method):
            found = {url: body}
        elif method == "post":
            found = dict.fromkeys(new_resources(response.request, response), body)
        else:
            item = listed_in(case.path)
            items = (listed_items(body) or []) if item else []
            start = url_without_query(response).rstrip("/")
            found = {f"{start}/{quote(str(each.get(key_of(item))), safe='')}": each for each in items}
        for place, resource in found.items():
            self.compare(place, resource)
            if method == "post":
                earlier = self.created.setdefault(segments(place), response)
                assert earlier is response, f"{sentence(response)} with {place}, which an earlier POST created"

    def compare(self, url: str, resource: Any) -> None:
        """Compare a resource with an earlier response; its URL contains its id."""
        item, values = locate(url)
        key, declared = key_of(item), properties(result_schema(item, "get"))
        if not isinstance(resource, dict) or resource.get(key) is None:
            return
        last = list(values.values())[-1]
        assert str(resource[key]) == last, f"{url} has the `{key}` {resource[key]!r}"
        by_service = declared.keys() - settable(item, "put").keys() - settable(item, "patch").keys()
        names = [
            name
            for name in by_service - settable(RUN.creators.get(item, ""), "post").keys()
            if "created" in name.lower()
        ]
        constant = {name: resource[name] for name in names if name in resource}
        assert_same(constant, self.constant.setdefault(segments(url), constant), f"{url} changed what never changes")

    def after_run(self, ctx: CheckContext) -> None:
        """Delete every resource that the run created, and restore what it changed."""
        faults = clean_up()
        assert not faults, "; ".join(faults)
