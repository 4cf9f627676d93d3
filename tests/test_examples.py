"""Every example of the contract, replayed against the service."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from handlers import contract
from tests.conftest import FROM_FOLDER, Service, Start
from tests.wire import exchange

JSON = {"Content-Type": "application/json"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def bodies() -> dict[str, Any]:
    """Return every named example of a body."""
    named = dict(contract.specification()["components"]["examples"])
    for response in contract.responses(None).values():
        named |= response["content"]["application/problem+json"]["examples"]
    return {name: example["value"] for name, example in named.items()}


EXAMPLES = bodies()


def answers(service: Service, folder: Path) -> Iterator[tuple[str, httpx.Response]]:
    """Yield the name of each example of an answer, with the answer that the service really gives."""
    client = service.client
    yield "EmptyPage", client.get("/api/tasks")
    yield "TaskNotFound", client.get("/api/tasks/1")
    yield "TutorialTask", client.post("/api/tasks", json=EXAMPLES["TutorialInput"])
    yield "CompletedTask", client.put("/api/tasks/1", json=EXAMPLES["CompletedInput"])
    yield "CompletedTask", client.get("/api/tasks/1")
    client.post("/api/tasks", json={"title": "Water the plants"})
    yield "TaskPage", client.get("/api/tasks")
    yield "TaskDeleted", client.delete("/api/tasks/1")
    yield "InvalidQuery", client.get("/api/tasks?limit=1001")
    for method, path in (("POST", "/api/tasks"), ("PUT", "/api/tasks/2")):
        yield "TitleRequired", client.request(method, path, json={})
        yield "TitleRequired", client.request(method, path, json={"title": ""})
        yield "SeveralViolations", client.request(method, path, json={"title": "", "completed": "yes"})
        yield "BodyTooLarge", client.request(method, path, content=b" " * 70000, headers=JSON)
        yield "NotJson", client.request(method, path, content=b"title")
    yield "TargetTooLong", client.get("/" + "a" * 9000)
    yield "HeadersTooLarge", client.get("/", headers={"A": "a" * 20000})
    yield "NoSuchPath", client.get("/nowhere")
    yield "NoSuchMethod", client.patch("/api/tasks")
    (malformed,) = exchange(service.url, b"nonsense\r\n\r\n")
    yield "NotHttp", httpx.Response(malformed.status, headers=malformed.headers, content=malformed.body)
    with closing(sqlite3.connect(folder / "tasks.db")) as database:
        database.execute("DROP TABLE task")
    yield "ListTasksFailed", client.get("/api/tasks")
    yield "CreateTaskFailed", client.post("/api/tasks", json={"title": "a"})
    yield "GetTaskFailed", client.get("/api/tasks/1")
    yield "ReplaceTaskFailed", client.put("/api/tasks/1", json={"title": "a"})
    yield "DeleteTaskFailed", client.delete("/api/tasks/1")
    (folder / "tasks.db").unlink()
    yield "Unavailable", client.delete("/api/tasks/1")
    (folder / "handlers/swagger_ui/index.html").unlink()
    yield "Failed", client.get("/docs")


def masked(body: Any) -> Any:
    """Return a body with the same time wherever there is one."""
    if isinstance(body, list):
        return [masked(item) for item in body]
    if isinstance(body, dict):
        return {name: masked(value) for name, value in body.items()}
    return MOMENT.sub("moment", body) if isinstance(body, str) else body


def test_every_example_of_a_body_is_what_is_sent(start: Start, checkout: Path) -> None:
    service = start(folder=checkout, command=FROM_FOLDER)
    replayed = {"TutorialInput", "CompletedInput"}

    for name, answer in answers(service, checkout):
        assert masked(answer.json()) == masked(EXAMPLES[name]), name
        assert answer.is_success or answer.status_code == EXAMPLES[name]["status"]
        replayed.add(name)

    assert replayed == EXAMPLES.keys()


def test_every_example_of_a_parameter_is_taken(client: httpx.Client) -> None:
    client.post("/api/tasks", json=EXAMPLES["TutorialInput"])
    parameters = [
        (path, parameter)
        for path, item in contract.specification()["paths"].items()
        for described in (item, *(operation for operation in item.values() if isinstance(operation, dict)))
        for parameter in described.get("parameters", [])
    ]
    assert {parameter["name"] for _, parameter in parameters} == {"id", "limit", "after", "completed"}

    for path, parameter in parameters:
        name, example = parameter["name"], str(parameter["example"]).lower()
        url = path.format(id=example) if name == "id" else f"{path}?{name}={example}"
        assert client.get(url).status_code == 200


def test_every_example_of_a_property_is_taken(client: httpx.Client) -> None:
    properties = contract.specification()["components"]["schemas"]["TaskInput"]["properties"]
    body = {name: schema["example"] for name, schema in properties.items()}

    created = client.post("/api/tasks", json=body)

    assert created.status_code == 201
    kept = contract.specification()["components"]["schemas"]["Task"]["properties"]
    assert masked(created.json()) == masked({name: schema["example"] for name, schema in kept.items()})


def test_every_example_of_a_header_is_what_is_sent(start: Start, tmp_path: Path) -> None:
    client = start().client
    examples = {name: header["example"] for name, header in contract.document()["components"]["headers"].items()}
    created = [client.post("/api/tasks", json={"title": "a"}) for _ in range(51)]
    page = client.get("/api/tasks?limit=50")
    refused = client.patch("/api/tasks")
    (tmp_path / "tasks.db").unlink()
    unavailable = client.delete("/api/tasks/1", headers={"X-Request-ID": examples["RequestId"]})

    assert examples == {
        "Link": page.headers["link"],
        "Location": created[0].headers["location"],
        "RetryAfter": int(unavailable.headers["retry-after"]),
        "RequestId": unavailable.headers["x-request-id"],
    }
    assert refused.headers["allow"] == contract.responses(None)["405"]["headers"]["Allow"]["example"]
