"""Schemathesis hooks and checks for the guarantees that an OpenAPI document states only in prose.

The checks need only a running service and Schemathesis. They learn from the document which operations create, list,
read and change which resources, and compare several responses about the same resource. They assume that no other client
changes the resources that the run creates. A run changes and deletes only these. It deletes them when it ends, even if
it is interrupted.

An item path, such as `/tasks/{id}`, is the path of single resources; its last part is a parameter.
"""

import atexit
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from secrets import randbelow
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urljoin, urlsplit
from uuid import uuid4

import requests
import schemathesis
from hypothesis import reject
from schemathesis import AuthContext, Case, CheckContext, HookContext, Response
from schemathesis.auths import set_on_case
from schemathesis.config import OperationConfig
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transforms import resolve_pointer
from schemathesis.filters import FilterSet

Json = dict[str, Any]
# The decoded segments of a URL path: the identity of a resource.
Segments = tuple[str, ...]

WRITES = {"put", "post", "patch", "delete"}
PROBLEM = "application/problem+json"
# Header fields whose values differ in every response, or that only a response with a body needs.
VOLATILE_HEADERS = {"date", "x-request-id", "transfer-encoding"}
ENTITY_TAGS = re.compile(r'[ \t,]*(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*')
IDEMPOTENCY_KEY = re.compile("[!-~]([ -~]*[!-~])?")
PARAMETER = r"\{([^}]*)\}"
# The statuses of a response to a URL that identifies no resource; the latter only if a path parameter is invalid.
ABSENT = (404, 410)
INVALID = (400, 414, 422)
# A check that looks for a resource in a list follows at most this many `next` links.
MAX_PAGES = 10


@dataclass
class Run:
    """The tested document, and what the run has created."""

    schema: Any = None
    # The resources that the run created, and the URLs of those that it must still delete, in order of creation.
    created: set[Segments] = field(default_factory=set)
    remaining: dict[Segments, str] = field(default_factory=dict)
    # The URLs that identified no resource just before the run sent a PUT there.
    absent: set[Segments] = field(default_factory=set)
    # The body of the latest POST to a path that created a resource.
    bodies: dict[str, Any] = field(default_factory=dict)
    # The operations that got a valid request for a resource that exists.
    tried: set[tuple[str, str]] = field(default_factory=set)


RUN = Run()
original_send = requests.Session.send


@schemathesis.hook
def after_load_schema(context: HookContext, schema: Any) -> None:
    """Disable the writes to shared resources, and to those that the run can neither read nor create."""
    RUN.schema = schema

    def is_harmful(selected: Any) -> bool:
        path, method = selected.operation.path, selected.operation.method.lower()
        item = item_of(path)
        is_known = creator_of(item) or is_readable(item) if item else method == "post"
        return method in WRITES and not is_known

    harmful = FilterSet()
    harmful.include(is_harmful)
    schema.config.operations.operations.append(OperationConfig(filter_set=harmful, enabled=False))


# Lookups in the document.


def resolve(node: Any) -> Json:
    """Return a part of the document; if it is a reference, return the part that it refers to."""
    while isinstance(node, dict) and "$ref" in node:
        node = resolve_pointer(RUN.schema.raw_schema, unquote(node["$ref"].partition("#")[2]))
    return node if isinstance(node, dict) else {}


def definition(path: str, method: str) -> Json:
    """Return an operation of the document, or an empty dictionary if there is none."""
    return resolve(resolve(RUN.schema.raw_schema["paths"].get(path)).get(method))


def parameters(path: str, method: str) -> dict[tuple[str, str], Json]:
    """Return the parameters of an operation by location and name; the names of header fields are in lower case."""
    shared = resolve(RUN.schema.raw_schema["paths"].get(path)).get("parameters", [])
    declared = map(resolve, [*shared, *definition(path, method).get("parameters", [])])
    return {(each["in"], each["name"].lower() if each["in"] == "header" else each["name"]): each for each in declared}


def has_header(path: str, method: str, name: str) -> bool:
    """Return whether an operation has a header parameter."""
    return ("header", name) in parameters(path, method)


def is_readable(path: str) -> bool:
    """Return whether the document has a GET for a path that needs no other parameters."""
    declared = parameters(path, "get").items()
    return bool(definition(path, "get")) and not any(
        parameter.get("required") and place != "path" for (place, _), parameter in declared
    )


def responses(path: str, method: str) -> dict[str, Json]:
    """Return the responses of an operation by status."""
    declared = definition(path, method).get("responses", {})
    return {str(status): resolve(response) for status, response in declared.items()}


def content(node: Any) -> tuple[str, Json]:
    """Return the first media type of a body, JSON if possible, and its description in the document."""
    found = resolve(node).get("content", {}).items()
    return next((each for each in found if "json" in each[0]), next(iter(found), ("", {})))


def result_schema(path: str, method: str) -> Any:
    """Return the schema of the body of the first successful response of an operation, perhaps a reference."""
    results = [each for status, each in responses(path, method).items() if status.startswith("2")]
    return content(next(iter(results), {}))[1].get("schema", {})


def properties(schema: Any) -> dict[str, Json]:
    """Return the properties of an object schema, also of those that it combines with `allOf`."""
    found: dict[str, Json] = {}
    for part in resolve(schema).get("allOf", []):
        found |= properties(part)
    return found | {name: resolve(each) for name, each in resolve(schema).get("properties", {}).items()}


def settable(path: str, method: str) -> dict[str, Json]:
    """Return the properties that a client can set with an operation."""
    found = properties(content(definition(path, method).get("requestBody"))[1].get("schema"))
    return {name: each for name, each in found.items() if not each.get("readOnly")}


def item_of(path: str) -> str:
    """Return the item path in a path, such as `/pets/{id}` in `/pets/{id}/photo`, or an empty string.

    The parameters have the names that they have where the document describes this path itself.
    """
    found = re.match(r".*\{[^}]*\}[^/]*", path)
    item = found[0] if found else ""
    shapes = {re.sub(PARAMETER, "{}", each): each for each in RUN.schema.raw_schema["paths"]}
    return str(shapes.get(re.sub(PARAMETER, "{}", item), item))


def creator_of(item: str) -> str:
    """Return the path of the POST that creates the resources of an item path, or an empty string."""
    collection, _, last = item.rpartition("/")
    paths = (collection, f"{collection}/") if re.fullmatch(PARAMETER, last) else ()
    return next((path for path in paths if definition(path, "post")), "")


def created_by(path: str) -> str:
    """Return the item path of the resources that a POST creates, or an empty string."""
    items = map(item_of, RUN.schema.raw_schema["paths"] if path else ())
    return next((item for item in items if creator_of(item) == path), "")


def key_of(item: str) -> str:
    """Return the property that is the last parameter of an item path: a link names it, or it has the same name."""
    creator, name = creator_of(item), re.findall(PARAMETER, item)[-1]
    for response in responses(creator, "post").values():
        for link in map(resolve, response.get("links", {}).values()):
            values = {each.removeprefix("path."): value for each, value in link.get("parameters", {}).items()}
            if found := re.fullmatch(r"\$response\.body#/([^/]+)", str(values.get(name))):
                return found[1]
    declared = properties(result_schema(item, "get")) or properties(result_schema(creator, "post"))
    return name if name in declared else "id"


def listed_in(path: str) -> str:
    """Return the item path of the resources that a list contains as a GET returns them, or an empty string."""
    item, schema = created_by(path), resolve(result_schema(path, "get"))
    arrays = [schema, *properties(schema).values()]
    is_list = any(each.get("items", {}) == result_schema(path, "post") != {} for each in arrays)
    return item if is_list and is_readable(path) and is_readable(item) else ""


def listed_items(body: Any) -> list[Json] | None:
    """Return the items of a list response: an array, or the only array of objects in an object."""
    members = body.values() if isinstance(body, dict) else [body]
    arrays = [each for each in members if isinstance(each, list)]
    return arrays[0] if len(arrays) == 1 and all(isinstance(each, dict) for each in arrays[0]) else None


def query_schemas(path: str) -> dict[str, Json]:
    """Return the schemas of the query parameters of a list."""
    declared = parameters(path, "get").items()
    return {name: resolve(each.get("schema")) for (place, name), each in declared if place == "query"}


def filters(path: str) -> set[str]:
    """Return the query parameters of a list that select items by the value of a property."""
    shown = properties(result_schema(listed_in(path), "get"))
    found = query_schemas(path).items()
    return {name for name, schema in found if name in shown and ("enum" in schema or schema.get("type") == "boolean")}


def page_sizes(path: str) -> dict[str, int]:
    """Return the query parameters that limit the size of a page, with their maximum."""
    sizes = {name: schema for name, schema in query_schemas(path).items() if schema.get("minimum", 0) >= 1}
    return {name: schema["maximum"] for name, schema in sizes.items() if 1 < schema.get("maximum", 0) <= 100_000}


# Which resources exist, and who created them.


def segments(url: str) -> Segments:
    """Return the decoded segments of the path of a URL."""
    return tuple(map(unquote, urlsplit(url).path.split("/")))


def url_of(path: str, values: Iterable[str] = ()) -> str:
    """Return the URL of a path of the document with the encoded values of its parameters."""
    remaining = iter(values)
    return str(RUN.schema.get_base_url()).rstrip("/") + re.sub(PARAMETER, lambda _: next(remaining), path)


def locate(url: str) -> tuple[str, list[str]]:
    """Return the path of the document that fits a URL, or an empty string, and the encoded path parameters."""
    base = urlsplit(url_of("")).path
    for path in sorted(RUN.schema.raw_schema["paths"], key=lambda each: each.count("{")):
        pattern = re.sub(r"\\\{.*?\\\}", "([^/]+)", re.escape(base + path))
        if found := re.fullmatch(pattern, urlsplit(url).path):
            return path, list(found.groups())
    return "", []


def linked(response: Response, link: str) -> str:
    """Return the URL of a link in a response. It is always at the tested service, which alone may get credentials."""
    target = urlsplit(urljoin(str(response.request.url), link))
    return urlsplit(url_of(""))._replace(path=target.path, query=target.query).geturl()


def url_in_list(list_url: str, key: Any) -> str:
    """Return the URL of a resource in a list."""
    return f"{list_url.partition('?')[0].rstrip('/')}/{quote(str(key), safe='')}"


def item_url(case: Case[Any]) -> str:
    """Return the URL of the resource that a request is about."""
    url = str(case.as_transport_kwargs()["url"])
    return "/".join(url.split("/")[: len(url_of("").split("/")) + item_of(case.path).count("/")])


def new_resource(response: Response) -> str | None:
    """Return the URL of the resource that a request created, or None if it created none."""
    url, status = str(response.request.url), response.status_code
    path, _ = locate(url)
    if not path or not 200 <= status < 300:
        return None
    if response.request.method == "PUT":
        return url if path == item_of(path) and (status == 201 or segments(url) in RUN.absent) else None
    if response.request.method != "POST" or (status != 201 and "201" in responses(path, "post")):
        return None
    item, body = created_by(path), json_of(response)
    location = header_of(response, "Location") if status == 201 else ""
    found, _ = locate(linked(response, location))
    if location and found and found == (item or item_of(found)):
        return linked(response, location)
    has_key = item and isinstance(body, dict) and body.get(key_of(item)) is not None
    return url_in_list(url, body[key_of(item)]) if has_key else None


def send_and_record(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    """Send a request, and record the resource that the request creates, if any."""
    response = original_send(session, request, **options)
    if RUN.schema and request.method in ("POST", "PUT"):
        url = new_resource(Response.from_requests(response, verify=True))
        if url and segments(url) not in RUN.created:
            RUN.created.add(segments(url))
            RUN.remaining[segments(url)] = url
            RUN.bodies[locate(str(request.url))[0]] = parsed(request.body)
    return response


# Patch the library `requests` itself: Schemathesis sends some HTTP requests without calling its hooks, and a faulty
# service may create resources for these HTTP requests.
setattr(requests.Session, "send", send_and_record)  # noqa: B010


def call(method: str, url: str, body: Any = None, headers: Json | None = None, query: Json | None = None) -> Response:
    """Send a request of the run itself, with the configured credentials and with all parameters that are required."""
    path, values = locate(url)
    operation, config = RUN.schema[path][method], RUN.schema.config
    media_type, _ = content(definition(path, method).get("requestBody"))
    case = operation.Case(
        path_parameters=dict(zip(re.findall(PARAMETER, path), values, strict=True)),
        body=NOT_SET if body is None else body,
        media_type=media_type or None,
    )
    sent = {"query": case.query, "header": case.headers, "cookie": case.cookies}
    case.headers.update(config.headers_for(operation=operation) or {})
    for (place, name), parameter in parameters(path, method).items():
        if parameter.get("required") and place in sent:
            schema = resolve(parameter.get("schema"))
            value = parameter.get("example", schema.get("example", schema.get("default", "")))
            sent[place][name] = str(uuid4()) if name == "idempotency-key" else str(value)
    set_on_case(case, AuthContext(operation=operation, app=None), None)
    # `transport.send` calls no hooks.
    response: Response = RUN.schema.transport.send(case, headers=headers, params=query, allow_redirects=False)
    return response


def get(url: str) -> Response | None:
    """Return the response to a GET, or None if the document has no GET for the URL that the run can send."""
    return call("get", url) if is_readable(locate(url)[0]) else None


def delete(url: str) -> Response:
    """Delete a resource, whatever its current entity tag is."""
    return call("delete", url, headers={"If-Match": "*"})


def is_absent(response: Response | None, *further: int) -> bool:
    """Return whether a response says that a URL identifies no resource."""
    return response is not None and response.status_code in (*ABSENT, *further)


def unused_value(schema: Any) -> str | int:
    """Return a value for an id that probably identifies no resource."""
    schema = resolve(schema)
    if schema.get("type") in ("integer", "number"):
        return int(max(schema.get("minimum", 1), min(schema.get("maximum", 2**31 - 1), 2**53 - 1) - randbelow(10**6)))
    return str(uuid4()) if schema.get("format") == "uuid" else uuid4().hex


def unused(item: str) -> str | None:
    """Return a URL that identifies no resource, or None if the service does not say so."""
    schemas = {name: each.get("schema") for (_, name), each in parameters(item, "get").items()}
    url = url_of(item, [str(unused_value(schemas.get(name))) for name in re.findall(PARAMETER, item)])
    return url if is_absent(get(url)) else None


def with_unused_key(body: Any, list_url: str) -> Any:
    """Return the body of a POST; if it contains the id of a resource of others, return it with an unused id."""
    path, _ = locate(list_url)
    key = key_of(created_by(path)) if created_by(path) else ""
    if not isinstance(body, dict) or not isinstance(body.get(key), str | int):
        return body
    url = url_in_list(list_url, body[key])
    is_safe = segments(url) in RUN.created or is_absent(get(url))
    return body if is_safe else body | {key: unused_value(settable(path, "post").get(key))}


def with_unique_names(body: Json, path: str) -> Json:
    """Return the body of a POST with other strings, since names may have to be unique. References stay."""
    changed, unique = dict(body), uuid4().hex
    for name, schema in settable(path, "post").items():
        is_free = isinstance(body.get(name), str) and not {"enum", "format", "pattern"} & schema.keys()
        if is_free and not re.search(r"(^|_)id$|Id$|ID$", name):
            length = schema.get("maxLength", 255)
            changed[name] = (body[name][: max(0, length - len(unique))] + unique)[:length]
        elif name in body and schema.get("format") == "email":
            changed[name] = f"{unique}@example.com"
    return changed


def create(item: str, like: Any = None, list_url: str = "") -> str | None:
    """Create a resource and return its URL, or None if the service refuses.

    The body is an example, or that of an earlier POST, with the properties of an existing resource, since the resources
    that these refer to surely exist.

    Args:
        item: The item path.
        like: The resource that the new one replaces, if any.
        list_url: The URL to send the POST to; by default, it is under a new parent.
    """
    path = creator_of(item)
    parent = create(item_of(path)) if item_of(path) and not list_url else ""
    media_type, media = content(definition(path, "post").get("requestBody"))
    if not path or parent is None or not re.search("json|form|^$", media_type):
        return None
    url = list_url or url_of(path, locate(parent)[1])
    if not isinstance(like, dict) and is_readable(path):
        like = next(iter(listed_items(json_of(call("get", url))) or []), None)
    known, names = like if isinstance(like, dict) else {}, settable(path, "post")
    examples = [resolve(each).get("value") for each in media.get("examples", {}).values()]
    examples += [media.get("example"), resolve(media.get("schema")).get("example"), RUN.bodies.get(path)]
    body = next((each for each in examples if isinstance(each, dict)), {})
    body = {name: each["example"] for name, each in names.items() if "example" in each} | body
    body |= {name: known[name] for name in names if known.get(name) is not None}
    for attempt in (with_unique_names(body, path), body) if media else (None,):
        created = new_resource(call("post", url, with_unused_key(attempt, url)))
        if created and item_of(locate(created)[0]) == item:
            return created
    return None


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: Json) -> None:
    """Protect the resources of other clients, and change requests that the service would rightly reject.

    - A write to a resource that the run did not create is redirected to a new one, or to a URL that identifies none. If
      the run can do neither, it does not send the request. A POST with the id of such a resource gets another id.
    - The first valid write of each operation is redirected to a new resource if there is none at its URL, since
      Schemathesis warns if every valid request to an operation returns 404.
    - A valid idempotency key is made unique, since reusing it with a different body is rejected.
    - The current entity tag is added to a valid If-Match (weak tags included), since Schemathesis warns if every valid
      request to an operation returns 412.
    """
    headers: Any = case.headers
    if IDEMPOTENCY_KEY.fullmatch(key := str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = str(uuid4()) + key[36:]
    item = item_of(case.path)
    if case.method == "POST" and not item:
        body = with_unused_key(case.body, url_of(case.path))
        if body is not case.body:
            case.body = body
    if case.method.lower() not in WRITES or not item:
        return
    if {"", ".", ".."} & {str(value) for value in case.path_parameters.values()}:
        reject()  # The URL would be that of another path.
    url, operation, meta = item_url(case), (case.method, case.path), case.meta
    if segments(url) not in RUN.created:
        current = get(url)
        is_free = is_absent(current, *(INVALID if meta and meta.is_negative_at(ParameterLocation.PATH) else ()))
        is_single = meta and not meta.generation.mode.is_negative and meta.phase.name.value != "stateful"
        if is_free:
            RUN.absent.add(segments(url))
        if not is_free or (is_single and operation not in RUN.tried):
            created = create(item, json_of(current))
            if created and is_single:
                RUN.tried.add(operation)
            target = created or (url if is_free else unused(item) or reject())
            if target != url:
                redirect(case, target)
    if ENTITY_TAGS.fullmatch(str(headers.get("If-Match", ""))):
        current = get(str(case.as_transport_kwargs()["url"]))
        headers["If-Match"] += f", {header_of(current, 'ETag') if current else ''}"


def redirect(case: Case[Any], url: str) -> None:
    """Let a request be about the resource at another URL."""
    declared = parameters(case.path, case.method.lower())
    for name, value in zip(re.findall(PARAMETER, case.path), locate(url)[1], strict=False):
        kind = resolve(declared.get(("path", name), {}).get("schema")).get("type")
        case.path_parameters[name] = int(value) if kind == "integer" else value


@atexit.register
def clean_up() -> list[str]:
    """Delete what the run created, and return a sentence about each failure.

    This function is registered with `atexit`, because `after_run` is skipped when a run is interrupted or stops at its
    first failure.
    """
    before, faults = -1, list[str]()
    # A deletion can fail while another resource refers to the deleted one, so repeat them as long as this helps.
    while RUN.remaining and len(RUN.remaining) != before:
        before, faults = len(RUN.remaining), []
        for resource, url in reversed(list(RUN.remaining.items())):
            fault = ""
            if definition(locate(url)[0], "delete"):
                try:
                    response = delete(url)
                    is_gone = is_success(response, "DELETE") or is_absent(response)
                    fault = "" if is_gone else sentence(response)
                except requests.RequestException as error:
                    fault = f"DELETE {url} failed ({error})"
            if fault:
                faults.append(f"{fault}, so it remains")
            else:
                del RUN.remaining[resource]
    return faults


# Helpers of the checks.


def parsed(body: Any) -> Any:
    """Return a JSON document, or None if it is no JSON."""
    try:
        return json.loads(body or "null")
    except (ValueError, TypeError):
        return None


def json_of(response: Response | None) -> Any:
    """Return the JSON body of a response, or None if there is none."""
    return parsed(response.content) if response is not None else None


def header_of(response: Response, name: str) -> str:
    """Return a header field of a response, or an empty string if it is absent."""
    return ", ".join(response.headers.get(name.lower(), []))


def next_url(page: Response) -> str | None:
    """Return the URL of the next page of a list, or None if there is none."""
    links = requests.utils.parse_header_links(header_of(page, "Link"))
    return next((linked(page, link["url"]) for link in links if link.get("rel") == "next"), None)


def sentence(response: Response) -> str:
    """Return what was requested, and the status of the response."""
    return f"{response.request.method} {response.request.url} returned {response.status_code}"


def assert_status(response: Response, *expected: int, because: str) -> None:
    """Fail if a response has another status."""
    wanted = " or ".join(map(str, expected))
    assert response.status_code in expected, f"{sentence(response)}, not {wanted}, although {because}"


def assert_same(received: Any, expected: Any, where: str) -> None:
    """Fail if two JSON documents differ, and say in which properties."""
    if isinstance(received, dict) and isinstance(expected, dict):
        names = [name for name in {**expected, **received} if received.get(name, ...) != expected.get(name, ...)]
        values = [(name, received.get(name, "absent"), expected.get(name, "absent")) for name in names]
        different = [f"`{name}` is {value!r}, not {other!r}" for name, value, other in values]
    else:
        different = [] if received == expected else [f"it is {received!r}, not {expected!r}"]
    assert not different, f"{where}: {'; '.join(different)}"


def assert_same_header(response: Response, earlier: Response, name: str) -> None:
    """Fail if a header field differs from that of an earlier response."""
    value, expected = header_of(response, name), header_of(earlier, name)
    assert value == expected, f"{sentence(response)} with the {name} {value}, but {sentence(earlier)} with {expected}"


def text(value: Any) -> str:
    """Return a value as a query contains it."""
    return json.dumps(value).strip('"')


def is_success(response: Response, *methods: str) -> bool:
    """Return whether a request with one of these methods succeeded."""
    return response.request.method in methods and 200 <= response.status_code < 300


def is_same_kind(path: str, method: str) -> bool:
    """Return whether an operation returns what a GET of the same path returns."""
    return is_readable(path) and result_schema(path, method) == result_schema(path, "get") != {}


def resend(response: Response, method: str = "GET", url: str = "", headers: Json | None = None) -> Response:
    """Send a request again, with the same header fields, but perhaps with another method, URL or header fields."""
    request = response.request.copy()
    removed = ["If-Match", *(headers or {})]
    if method != "POST":
        removed += ["Content-Type", "Content-Length", "Transfer-Encoding"]
        request.body = None
    for name in removed:
        request.headers.pop(name, None)
    request.method, request.url = method, url or request.url
    request.headers.update(headers or {})
    with requests.Session() as session:
        again = session.send(request, timeout=30, allow_redirects=False, verify=response.verify)
    return Response.from_requests(again, verify=response.verify)


def pages(list_url: str, query: Json, most: int) -> Iterator[Response]:
    """Yield the pages of a list, each of which is requested only when it is needed."""
    page = call("get", list_url, query=query)
    for _ in range(most):
        yield page
        if not (following := next_url(page)):
            return
        page = resend(page, url=following)


def find_in_list(url: str, query: Json) -> list[Json] | None:
    """Return the items of a list that have the URL of a resource, or None if there is no list, or a too long one."""
    item, values = locate(url)
    path = creator_of(item)
    if not item or listed_in(path) != item:
        return None
    list_url, key = url_of(path, values), key_of(item)
    found = list(pages(list_url, {**page_sizes(path), **query}, MAX_PAGES))
    bodies = [listed_items(json_of(page)) for page in found if page.status_code == 200]
    if None in bodies or len(bodies) < len(found) or next_url(found[-1]):
        return None
    items = [each for body in bodies for each in body or []]
    return [each for each in items if segments(url_in_list(list_url, each.get(key))) == segments(url)]


@schemathesis.check
def every_error_is_a_problem(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """An error response is a problem document that contains the status code of the response."""
    methods = resolve(RUN.schema.raw_schema["paths"].get(case.path))
    declared = [each for method in methods for each in responses(case.path, method).values()]
    if response.status_code < 400 or not any(PROBLEM in each.get("content", {}) for each in declared):
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
    path, method, received = case.path, case.method.lower(), json_of(response)
    sent: Any = case.body
    is_json = "json" in str(case.media_type) and isinstance(sent, dict) and isinstance(received, dict)
    if not is_success(response, "POST", "PUT", "PATCH") or not is_json:
        return
    kept, returned, changes = settable(path, method), properties(result_schema(path, method)), []
    for name in sent.keys() & kept.keys() & returned.keys():
        # Services may complete objects, and return values of other formats in another spelling.
        parts = sent[name] if isinstance(sent[name], list) else [sent[name]]
        has_objects = any(isinstance(each, dict) for each in parts)
        is_exact = kept[name].get("format", "date") in ("date", "int32", "int64") and not has_objects
        # In a merge patch, null removes a property.
        is_removed = method == "patch" and sent[name] is None
        if is_exact and not is_removed and received.get(name, "absent") != sent[name]:
            changes.append(f"`{name}` is {received.get(name, 'absent')!r}, not {sent[name]!r} as sent")
    assert not changes, f"{sentence(response)}: {'; '.join(sorted(changes))}"


@schemathesis.check
def put_answers_what_get_gives(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """After a PUT or PATCH, GET returns the same resource as the response to that request."""
    if is_success(response, "PUT", "PATCH") and is_same_kind(case.path, case.method.lower()):
        got = resend(response)
        assert_status(got, 200, because=f"{sentence(response)} just before")
        assert_same(json_of(got), json_of(response), f"{sentence(got)}, but other content than {case.method} before")
        if header_of(response, "ETag"):
            assert_same_header(got, response, "ETag")


@schemathesis.check
def tag_is_known_and_stale_tag_is_refused(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET returns 304 if If-None-Match matches; a write returns 412 and does nothing if If-Match does not match."""
    path, tag, resource = case.path, header_of(response, "ETag"), json_of(response)
    is_resource = path == item_of(path) and is_same_kind(path, case.method.lower()) and isinstance(resource, dict)
    if not is_success(response, "GET", "PUT", "PATCH") or not is_resource or not tag:
        return
    others = f'"other", {tag if tag.startswith("W/") else f"W/{tag}"}'
    if has_header(path, "get", "if-none-match"):
        cached = resend(response, headers={"If-None-Match": others})
        assert_status(cached, 304, because=f"If-None-Match contained its current entity tag {tag}")
        assert cached.content == b"", f"{sentence(cached)} with a body"
        assert_same_header(cached, response, "ETag")
    if segments(str(response.request.url)) not in RUN.created:
        return
    because = f"If-Match was {others}, and the current entity tag is {tag}"
    for method in ("put", "patch", "delete"):
        body = {name: resource[name] for name in settable(path, method) if resource.get(name) is not None}
        if has_header(path, method, "if-match") and (body or method == "delete"):
            refused = call(method, str(response.request.url), body or None, {"If-Match": others})
            assert_status(refused, 412, because=because)
    got = resend(response)
    assert_same(json_of(got), resource, f"{got.request.url} changed by a request that If-Match forbade")


@schemathesis.check
def condition_is_refused_where_it_does_not_hold(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A 412 is returned only if If-Match contains neither `*` nor the current entity tag of the resource."""
    condition: Any = response.request.headers.get("If-Match")
    if response.status_code == 412 and condition is not None and is_readable(case.path):
        tags = condition.decode("latin-1") if isinstance(condition, bytes) else condition
        tag = header_of(resend(response), "ETag")
        assert tags != "*", f"{sentence(response)}, although If-Match was `*`"
        strong = [each for weak, each in re.findall(r'(W/)?("[^"]*")', tags) if not weak]
        assert tag not in strong, f"{sentence(response)}, although If-Match contained the current entity tag {tag}"


@schemathesis.check
def retry_creates_nothing(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A retry with the same idempotency key gets a replay and creates nothing; a different body gets 422 (or 409)."""
    key = response.request.headers.get("Idempotency-Key")
    if not is_success(response, "POST") or not key or not has_header(case.path, "post", "idempotency-key"):
        return
    retried, declared = resend(response, "POST"), responses(case.path, "post")
    assert_status(retried, response.status_code, because="it is a retry with the same idempotency key")
    assert_same(json_of(retried), json_of(response), f"{sentence(retried)}, but a retry got another body")
    for name in ("ETag", "Location"):
        assert_same_header(retried, response, name)
    if "Idempotency-Replayed" in declared.get(str(response.status_code), {}).get("headers", {}):
        replayed = header_of(response, "Idempotency-Replayed"), header_of(retried, "Idempotency-Replayed")
        assert replayed == ("", "true"), f"Idempotency-Replayed of the request and its retry were {replayed}"
    other = with_unique_names(case.body, case.path) if isinstance(case.body, dict) else case.body
    if other != case.body:
        refused = call("post", str(response.request.url), other, {"Idempotency-Key": key})
        expected = [422] if "422" in declared else [409] if "409" in declared else [409, 422]
        assert_status(refused, *expected, because="its idempotency key was used with another body")


@schemathesis.check
def deleted_resource_is_gone(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET returns 404 for a deleted resource, and the list does not contain it."""
    is_deleted = is_success(response, "DELETE") and response.status_code != 202
    if is_deleted and case.path == item_of(case.path) and is_readable(case.path):
        because = f"{sentence(response)} just before"
        assert_status(resend(response), *ABSENT, because=because)
        found = find_in_list(str(response.request.url), {})
        assert not found, f"The list still contains {found[0]}, although {because}"


@schemathesis.check
def created_resource_is_listed_once(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET of the URL in Location returns the created resource, and the list contains that resource exactly once."""
    is_created = is_success(response, "POST") and isinstance(json_of(response), dict)
    url = new_resource(response) if is_created else None
    item, _ = locate(url or "")
    if not url or not is_readable(item) or result_schema(item, "get") != result_schema(case.path, "post"):
        return
    resource, location = json_of(response), header_of(response, "Location")
    got = resend(response, url=linked(response, location) if location else url)
    assert_status(got, 200, because=f"{sentence(response)} with the Location {location}")
    assert_same(json_of(got), resource, f"{sentence(got)}, but other content than POST before")
    query = {name: text(resource[name]) for name in sorted(filters(case.path)) if resource.get(name) is not None}
    found, given = find_in_list(url, query), f" with {query}" if query else ""
    if found is not None:
        key = resource.get(key_of(item))
        assert len(found) == 1, f"The list{given} contains {key!r} {len(found)} times, not 1 times"
        assert_same(found[0], resource, f"The list{given} contains {key!r}, but with other content than POST before")


@schemathesis.check
def walk_visits_every_resource_once(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """The `next` links lead to each resource exactly once, in the order of the list, despite writes between pages."""
    path, item, declared = case.path, listed_in(case.path), responses(case.path, "get").values()
    if not is_success(response, "GET") or not item or not any("Link" in each.get("headers", {}) for each in declared):
        return
    url, _, text_of_query = str(response.request.url).partition("?")
    query: Json = {name: values[-1] for name, values in parse_qs(text_of_query).items()}
    key, (size, largest) = key_of(item), next(iter(page_sizes(path).items()), ("", 0))
    whole = call("get", url, query={**query, **({size: largest} if size else {})})
    present = listed_items(json_of(whole)) or []
    order = [each.get(key) for each in present]
    limit = max(1, min(int(query.get(size, len(present) or 1)), len(present) // 3))
    visited: list[Json] = []
    # Write only to a list that is not part of a resource of others, and only what can be deleted again.
    can_write = definition(item, "delete") and (not item_of(path) or segments(item_url(case)) in RUN.created)
    like, written = present[-1] if present else None, None
    # The walk may take longer than the whole list, as other clients may create resources.
    for page in pages(url, {**query, **({size: limit} if size else {})}, 2 * len(present) + MAX_PAGES):
        assert_status(page, 200, because="it is a page of a list")
        items = listed_items(json_of(page)) or []
        assert not size or len(items) <= limit, f"{sentence(page)} with {len(items)} items: `{size}` is {limit}"
        repeated = [each[key] for each in items if each.get(key) in [earlier.get(key) for earlier in visited]]
        assert not repeated, f"{sentence(page)}, but repeats {repeated} of earlier pages"
        visited += items
        if order and order[-1] in [each.get(key) for each in items]:
            break
        if written:
            delete(written)
        written = create(item, like, url) if can_write else None
    if written:
        delete(written)
    keys = [each.get(key) for each in visited]
    assert len(set(keys)) == len(keys), f"The pages of {url} contain a resource twice: {keys}"
    walked, expected = [each for each in keys if each in order], [each for each in order if each in keys]
    assert walked == expected, f"The pages of {url} have the order {walked}, but the whole list {expected}"
    for missing in [each for each in order if each not in keys]:
        gone = call("get", url_in_list(url, missing))
        assert gone.status_code in ABSENT, f"The pages of {url} omit {missing!r}, which exists"
    for name in filters(path) & query.keys():
        wrong = [each for each in visited if name in each and text(each[name]) != query[name]]
        assert not wrong, f"The pages of {url} with {name}={query[name]} contain {wrong[0]}"


@schemathesis.check
def head_equals_get(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """HEAD returns the same status and header fields as GET, without the body."""
    if response.request.method == "GET":
        got, head = resend(response), resend(response, "HEAD")
        assert head.content == b"", f"{sentence(head)} with a body"
        assert_status(head, response.status_code, because=f"{sentence(response)} just before")
        # Two responses to the same GET may differ in further fields, such as the rest of a rate limit.
        stable = {name for name in got.headers if got.headers[name] == response.headers.get(name)}
        stable |= head.headers.keys() - response.headers.keys()
        received, expected = (
            {name: header_of(each, name) for name in sorted(stable - VOLATILE_HEADERS) if name in each.headers}
            for each in (head, got)
        )
        assert_same(received, expected, f"{sentence(head)}, but with other header fields than GET")


@schemathesis.check
class IdAndTimeNeverChange:
    """The id and creation time of a resource are the same in every response, and ids are never reused."""

    def __init__(self) -> None:
        self.times: dict[Segments, Json] = {}
        self.created: dict[Segments, Response] = {}

    def after_response(self, ctx: CheckContext, response: Response, case: Case[Any]) -> None:
        """Compare the resources in this response with those in earlier responses."""
        path, method, url, body = case.path, case.method.lower(), str(response.request.url), json_of(response)
        if not is_success(response, "GET", "POST", "PUT", "PATCH"):
            return
        if created := new_resource(response) if method == "post" else None:
            earlier = self.created.setdefault(segments(created), response)
            assert earlier is response, f"{sentence(response)} with {created}, which an earlier POST created"
            self.compare(created, body)
        elif path == item_of(path) and is_same_kind(path, method):
            self.compare(url, body)
        elif method == "get" and (item := listed_in(path)):
            for each in listed_items(body) or []:
                self.compare(url_in_list(url, each.get(key_of(item))), each)

    def compare(self, url: str, resource: Any) -> None:
        """Compare a resource with earlier responses; its URL contains its id."""
        item, values = locate(url)
        key = key_of(item) if item else ""
        if not isinstance(resource, dict) or resource.get(key) is None:
            return
        assert str(resource[key]) == unquote(values[-1]), f"{url} has the `{key}` {resource[key]!r}"
        by_client = {*settable(creator_of(item), "post"), *settable(item, "put"), *settable(item, "patch")}
        by_service = properties(result_schema(item, "get")).keys() - by_client
        times = {name: resource[name] for name in by_service if "created" in name.lower() and name in resource}
        assert_same(times, self.times.setdefault(segments(url), times), f"{url} changed what never changes")

    def after_run(self, ctx: CheckContext) -> None:
        """Delete every resource that the run created."""
        faults = clean_up()
        assert not faults, "; ".join(faults)
