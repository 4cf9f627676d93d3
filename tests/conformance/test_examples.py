"""Every example in the contract matches what the running service accepts or sends."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx
import pytest

from handlers.contract import document
from tests.support.calls import METHODS, UNKNOWN_METHOD
from tests.support.contract import resolved
from tests.support.project import TIMEOUT
from tests.support.service import Service, Start
from tests.support.stores import Store
from tests.support.wire import exchange, request

JSON = {"Content-Type": "application/json"}
KEY = {"Idempotency-Key": "key"}
STALE = {"If-Match": '"0"'}
# This module does not reproduce the response examples that need an API key, a timeout or a service that is not ready.
NOT_REPLAYED = {"KeyRequired", "RequestTimeout", "NotReady"}
RATE_LIMIT = 100  # requests per second
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


Content = dict[str, dict[str, Any]]


def named_examples(content: Content) -> dict[str, Any]:
    """Return the examples of a body that is JSON, by name."""
    return {
        name: example["value"]
        for media_type, described in content.items()
        if media_type.endswith("json")
        for name, example in (described.get("examples") or {"": {"value": described.get("example")}}).items()
    }


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Return the method, path and description of each operation, with the parameters of its path."""
    return [
        (
            method,
            path,
            {**item[method], "parameters": [*item.get("parameters", ()), *item[method].get("parameters", ())]},
        )
        for path, item in resolved()["paths"].items()
        for method in sorted(item.keys() & METHODS)
    ]


def request_examples() -> list[tuple[str, str, str, str, Any]]:
    """Return the method, path, media type, name and value of each example of a request body that is JSON."""
    return [
        (method, path, media_type, name, example)
        for method, path, operation in operations()
        for media_type, described in operation.get("requestBody", {"content": {}})["content"].items()
        for name, example in named_examples({media_type: described}).items()
    ]


RESPONSES = [
    (path, status, named_examples(response.get("content", {})))
    for path, responses in (
        *((path, operation["responses"]) for _, path, operation in operations()),
        ("", document.responses(None)),
    )
    for status, response in responses.items()
]
# The examples of requests and of successful responses are components; those of problems belong to their responses.
EXAMPLES = {name: example["value"] for name, example in resolved()["components"]["examples"].items()}
for _, _, examples in RESPONSES:
    EXAMPLES = examples | EXAMPLES
# The examples that `responses` must cover: those of the successful responses about tasks, and those of the engine.
COVERED = [
    example
    for path, status, examples in RESPONSES
    if not path or (path.startswith("/api/tasks") and status < "300")
    for name, example in examples.items()
    if name not in NOT_REPLAYED
]


def responses(service: Service, store: Store) -> Iterator[tuple[str, httpx.Response]]:
    """Yield the name of each response example, with a real response of the service in the same situation."""
    client = service.client
    yield "EmptyPage", client.get("/api/tasks")
    yield "TaskNotFound", client.get("/api/tasks/1")
    yield "TutorialTask", client.post("/api/tasks", json=EXAMPLES["TutorialInput"], headers=KEY)
    yield "IdempotencyKeyReused", client.post("/api/tasks", json=EXAMPLES["CompletedInput"], headers=KEY)
    yield "TaskHasChanged", client.put("/api/tasks/1", json=EXAMPLES["CompletedInput"], headers=STALE)
    yield "TaskHasChanged", client.delete("/api/tasks/1", headers=STALE)
    yield (
        "EntityTagAltered",
        client.delete("/api/tasks/1", headers={"If-Match": f"W/{client.get('/api/tasks/1').headers['etag']}"}),
    )
    yield "CompletedTask", client.put("/api/tasks/1", json=EXAMPLES["CompletedInput"])
    yield "CompletedTask", client.get("/api/tasks/1")
    client.post("/api/tasks", json={"title": "Water the plants"})
    yield "TaskPage", client.get("/api/tasks")
    yield "TaskDeleted", client.delete("/api/tasks/1")
    yield "InvalidQuery", client.get("/api/tasks?limit=1001")
    yield "InvalidEntityTags", client.get("/api/tasks/2", headers={"If-None-Match": "1"})
    for method, path in (("POST", "/api/tasks"), ("PUT", "/api/tasks/2")):
        yield "TitleRequired", client.request(method, path, json={})
        yield "SeveralViolations", client.request(method, path, json={"title": "", "completed": "yes"})
        yield "BodyTooLarge", client.request(method, path, content=b" " * 70000, headers=JSON)
        yield "NotJson", client.request(method, path, content=b"title")
    yield "TargetTooLong", client.get("/" + "a" * 9000)
    yield "HeadersTooLarge", client.get("/", headers={"A": "a" * 20000})
    yield "NoSuchPath", client.get("/nowhere")
    yield "NoSuchMethod", client.request(UNKNOWN_METHOD, "/api/tasks")
    with ThreadPoolExecutor() as pool, store.block_writes():
        task = {"title": "Twice at once"}
        same = [pool.submit(client.post, "/api/tasks", json=task, headers={"Idempotency-Key": "b"}) for _ in range(2)]
        yield "FirstRequestRunning", next(as_completed(same)).result()
    (malformed,) = exchange(service.url, b"nonsense\r\n\r\n")
    yield "NotHttp", httpx.Response(malformed.status, headers=malformed.headers, content=malformed.body)
    # Send more than twice the limit, because the requests may fall into two windows of the rate limit.
    received = exchange(service.url, request("GET", "/nowhere") * (2 * RATE_LIMIT + 1))
    refused = next(response for response in received if response.status == 429)
    yield "TooManyRequests", httpx.Response(refused.status, headers=refused.headers, content=refused.body)
    time.sleep(int(refused.headers["retry-after"]))
    store.execute("DROP TABLE task")
    yield "ListTasksFailed", client.get("/api/tasks")
    yield "CreateTaskFailed", client.post("/api/tasks", json={"title": "a"})
    yield "GetTaskFailed", client.get("/api/tasks/1")
    yield "ReplaceTaskFailed", client.put("/api/tasks/1", json={"title": "a"})
    yield "DeleteTaskFailed", client.delete("/api/tasks/1")
    store.make_unreachable()
    yield "Unavailable", client.delete("/api/tasks/1")
    store.make_reachable()
    store.execute("DROP TABLE api_key")
    # Every request fails once the service's cache of the API keys is stale.
    deadline = time.monotonic() + TIMEOUT
    while (response := client.get("/nowhere")).status_code != 500:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield "Failed", response


def masked(body: Any) -> Any:
    """Return a copy of a body in which every timestamp is masked."""
    if isinstance(body, list):
        return [masked(item) for item in body]
    if isinstance(body, dict):
        return {name: masked(value) for name, value in body.items()}
    return TIMESTAMP.sub("timestamp", body) if isinstance(body, str) else body


def test_body_examples_match_the_responses(start: Start, store: Store) -> None:
    service = start("--rate-limit", f"{RATE_LIMIT}/second")
    replayed = []

    for name, response in responses(service, store):
        assert masked(response.json()) == masked(EXAMPLES[name]), (
            f"the example {name} in openapi.yaml differs from the response; change it to {response.json()}"
        )
        assert response.is_success or response.status_code == EXAMPLES[name]["status"]
        replayed.append(masked(response.json()))

    assert [example for example in COVERED if masked(example) not in replayed] == [], (
        "`responses` above must yield a response for each of these examples"
    )


def create_others(client: httpx.Client, path: str) -> None:
    """Create one of each resource but the one that a POST to the path creates, so that all have the id 1."""
    bodies = {other: example for method, other, _, _, example in request_examples() if method == "post"}
    for other, body in bodies.items():
        if other != path and "{" not in other:
            client.post(other, json=body)


@pytest.mark.parametrize("request_example", request_examples(), ids=lambda case: f"{case[0]}-{case[1]}-{case[3]}")
def test_request_example_is_accepted(client: httpx.Client, request_example: tuple[str, str, str, str, Any]) -> None:
    method, path, media_type, name, example = request_example
    create_others(client, path)

    response = client.request(
        method, re.sub("{.*?}", "1", path), content=json.dumps(example), headers={"Content-Type": media_type}
    )

    assert response.is_success, f"the service rejects the example {name} in openapi.yaml: {response.text}"
    # The response contains every property of the example unchanged.
    if response.content and isinstance(example, dict):
        returned = response.json()
        assert {key: returned[key] for key in example if key in returned} == example


def test_parameter_examples_are_accepted(client: httpx.Client) -> None:
    client.post("/api/tasks", json=EXAMPLES["TutorialInput"])
    calls = [
        (method, path, parameter, example["value"])
        for method, path, operation in operations()
        for parameter in operation["parameters"]
        for example in (parameter.get("examples") or {"": {"value": parameter["example"]}}).values()
    ]
    names = {parameter["name"] for _, _, parameter, _ in calls}
    assert names >= {parameter["name"] for parameter in document.raw()["components"]["parameters"].values()}
    bodies = {(method, path): (media_type, example) for method, path, media_type, _, example in request_examples()}

    for method, path, parameter, example in calls:
        location, name = parameter["in"], parameter["name"]
        text = str(example).lower() if isinstance(example, bool) else str(example)
        media_type, body = bodies.get((method, path), ("", None))
        response = client.request(
            method,
            re.sub("{.*?}", text if location == "path" else "1", path),
            params={name: text} if location == "query" else {},
            headers={"Content-Type": media_type} | ({name: text} if location == "header" else {}),
            content=json.dumps(body) if media_type else None,
        )
        # A 412 means that the example's entity tag does not match; a 404, that an earlier request has deleted the task;
        # a 409, that an earlier request has created the same.
        assert response.is_success or response.status_code in (404, 409, 412), (
            f"the service rejects the example of {name} in openapi.yaml: {response.text}"
        )


def test_property_examples_are_accepted(client: httpx.Client) -> None:
    properties = resolved()["components"]["schemas"]["TaskInput"]["properties"]
    body = {name: schema["example"] for name, schema in properties.items()}
    create_others(client, "/api/tasks")

    created = client.post("/api/tasks", json=body)

    assert created.status_code == 201, (
        f"the service rejects an example in the schema TaskInput of openapi.yaml: {created.text}"
    )
    kept = resolved()["components"]["schemas"]["Task"]["properties"]
    expected = {name: schema["example"] for name, schema in kept.items()}
    assert masked(created.json()) == masked(expected), "the examples in the schemas Task and TaskInput must be the same"


def test_header_examples_match_the_responses(start: Start, store: Store) -> None:
    service = start("--rate-limit", f"{RATE_LIMIT}/second")
    client = service.client
    examples = {name: header["example"] for name, header in document.raw()["components"]["headers"].items()}
    created = [client.post("/api/tasks", json={"title": "a"}, headers=KEY) for _ in range(2)]
    for _ in range(50):
        client.post("/api/tasks", json={"title": "a"})
    page = client.get("/api/tasks?limit=50")
    refused = client.request(UNKNOWN_METHOD, "/api/tasks")
    store.make_unreachable()
    unavailable = client.delete("/api/tasks/1", headers={"X-Request-ID": examples["RequestId"]})

    # The contract does not fix the hash in an entity tag, because the hash depends on the JSON format.
    assert re.fullmatch(r'"1-[0-9a-f]{8}"', created[0].headers["etag"])
    assert re.fullmatch(r'"1-[0-9a-f]{8}"', examples.pop("ETag"))
    assert examples.pop("WwwAuthenticate") == document.constant_headers("listTasks", 401)["WWW-Authenticate"]
    allow = resolved()["x-responses"]["405"]["headers"]["Allow"]
    assert allow["example"] == refused.headers["allow"], (
        "the example of Allow in openapi.yaml must be the value for /api/tasks"
    )
    assert (
        examples.items()
        >= {
            "CacheControl": page.headers["cache-control"],
            "IdempotencyReplayed": created[1].headers["idempotency-replayed"] == "true",
            "Link": page.headers["link"].replace(service.url, "http://127.0.0.1:8000"),
            "Location": created[0].headers["location"],
            "NoStore": created[0].headers["cache-control"],
            "RateLimit": created[0].headers["ratelimit"],
            "RateLimitPolicy": created[0].headers["ratelimit-policy"],
            "RetryAfter": int(unavailable.headers["retry-after"]),
            "Vary": page.headers["vary"],
            "ContentEncoding": page.headers["content-encoding"],
            "RequestId": unavailable.headers["x-request-id"],
        }.items()
    )
