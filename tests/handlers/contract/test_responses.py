"""Response validation: the service sends only responses that match the contract."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from handlers.contract.document import PREFIX
from handlers.contract.responses import ResponseValidation
from tests.support.contract import resolved
from tests.support.project import RUN_FROM_SOURCE
from tests.support.service import Start

SCHEMA = resolved()["components"]["schemas"]["Task"]
TASK = {name: part["example"] for name, part in SCHEMA["properties"].items()} | {"description": None}
PROBLEM = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Task not found"}
JSON = {"content-type": "application/json", "cache-control": "private, no-cache"}
TAGGED = {**JSON, "etag": '"1-a"'}
CREATED = {**TAGGED, "cache-control": "no-store", "location": "/api/tasks/1"}
REFUSED = {"content-type": "application/problem+json", "cache-control": "no-store"}


def send_validated(operation_id: str | None, status: int, headers: dict[str, str], body: Any) -> list[Message]:
    """Pass a response through the response validation, and return the ASGI messages that reach the client."""
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send(
            {"type": "http.response.body", "body": body if isinstance(body, bytes) else json.dumps(body).encode()}
        )

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        raise AssertionError

    state = {"operation_id": operation_id, "request_id": "1"}
    scope = {"type": "http", "method": "GET", "raw_path": b"/", "state": state}
    asyncio.run(ResponseValidation(app)(scope, receive, send))
    return messages


@pytest.mark.parametrize(
    ("operation_id", "status", "headers", "body"),
    [
        ("getTask", 200, TAGGED, TASK),
        ("getTask", 304, {"etag": '"1"', "cache-control": "private, no-cache"}, b""),
        ("getTask", 404, REFUSED, PROBLEM),
        ("createTask", 201, CREATED, TASK),
        ("createTask", 201, {**CREATED, "idempotency-replayed": "true"}, TASK),
        ("listTasks", 200, TAGGED, []),
        ("listTasks", 200, {**TAGGED, "link": '<a>; rel="next"'}, [TASK]),
        ("listTasks", 200, {**TAGGED, "content-encoding": "gzip"}, gzip.compress(b"[]", mtime=0)),
        (None, 200, {"content-type": "text/html", "x-any": "thing"}, b"<html>"),
        (None, 404, REFUSED, PROBLEM),
    ],
)
def test_valid_response_is_sent(operation_id: str | None, status: int, headers: dict[str, str], body: Any) -> None:
    start, content = send_validated(operation_id, status, headers, body)

    assert start["status"] == status
    assert content["body"] == (body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    "case",
    [
        ("getTask", 202, TAGGED, TASK, "The contract declares no response 202 here"),
        ("getTask", 413, TAGGED, TASK, "The contract declares no response 413 here"),
        ("getTask", 200, {**TAGGED, "link": "1"}, TASK, "The contract declares no header link here"),
        ("getTask", 200, JSON, TASK, "ETag is required"),
        ("getTask", 200, {**JSON, "etag": "1"}, TASK, "ETag must match"),
        ("getTask", 200, {**JSON, "etag": 'W/"1"'}, TASK, "ETag must match"),
        (
            "getTask",
            200,
            {**TAGGED, "cache-control": "no-store"},
            TASK,
            "Cache-Control must be one of private, no-cache",
        ),
        ("getTask", 304, TAGGED, b"", "The contract declares no body of type application/json here"),
        ("getTask", 304, {**TAGGED, "content-type": ""}, b"{}", "The contract declares no body of type  here"),
        ("createTask", 201, {**CREATED, "idempotency-replayed": "false"}, TASK, "Idempotency-Replayed must be one of"),
        ("createTask", 201, {**TAGGED, "cache-control": "no-store"}, TASK, "Location is required"),
        ("createTask", 201, {**CREATED, "location": "^"}, TASK, "Location must match"),
        ("getTask", 200, {**TAGGED, "content-type": ""}, TASK, "The contract declares no body of type  here"),
        ("getTask", 200, {**TAGGED, "content-type": ""}, b"", "The contract declares no body of type  here"),
        (
            "getTask",
            200,
            {**TAGGED, "content-type": "text/plain"},
            TASK,
            "The contract declares no body of type text/plain here",
        ),
        ("getTask", 200, TAGGED, {**TASK, "id": 0}, "/id: id must be at least 1"),
        ("getTask", 200, TAGGED, {**TASK, "owner": "a"}, "/owner: owner is not a property of this object"),
        ("getTask", 200, TAGGED, {"id": 1}, "/title: Title is required; /description: description is required"),
        ("listTasks", 200, TAGGED, [TASK, {**TASK, "createdAt": "now"}], "/1/createdAt: createdAt must be"),
        (
            "listTasks",
            200,
            {**TAGGED, "content-encoding": "gzip"},
            gzip.compress(b"[0]", mtime=0),
            "/0: The body[0] must be of type object",
        ),
        (
            "getTask",
            200,
            {**TAGGED, "content-encoding": "gzip"},
            gzip.compress(b"{}", mtime=0),
            "The contract declares no header",
        ),
        (
            None,
            404,
            {**REFUSED, "content-type": "application/json"},
            PROBLEM,
            "The contract declares no body of type application/json here",
        ),
        (None, 418, JSON, PROBLEM, "The contract declares no response 418 here"),
    ],
)
def test_invalid_response_is_an_error(case: tuple[Any, ...], caplog: pytest.LogCaptureFixture) -> None:
    *response, message = case
    start, _ = send_validated(*response)

    assert start["status"] == 500
    assert f"InvalidResponseError: {response[0]}: {message}" in caplog.text


@pytest.mark.parametrize(("flags", "status"), [(("--validate-responses",), 500), ((), 200)])
def test_invalid_response_becomes_a_500_only_with_validation(
    start: Start, checkout: Path, flags: tuple[str, ...], status: int
) -> None:
    contract = checkout / "openapi.yaml"
    contract.write_text(
        contract.read_text("utf-8").replace("type: boolean\n          example", "type: string\n          example"),
        "utf-8",
    )
    variables = {f"{PREFIX}VALIDATE_RESPONSES": "false"}

    service = start(*flags, folder=checkout, command=RUN_FROM_SOURCE, variables=variables)
    service.client.post("/api/tasks", json={"title": "a"})
    response = service.client.get("/api/tasks/1")

    assert response.status_code == status
    if flags:
        assert response.json()["detail"] == "Failed to fetch task"
        assert "InvalidResponseError: createTask: /completed: completed must be of type string\n" in service.log()
    else:
        assert response.json()["completed"] is False
        assert service.log() == ""
