"""Idempotency keys: a request that the client retries is executed only once."""

from typing import Any

import httpx
import pytest

from tests.support.calls import TASK, assert_replayed, post, titles


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "two nodes"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn; two nodes that share a PostgreSQL database must behave like a single node."""
    return str(request.param)


def test_retry_replays_the_first_response(client: httpx.Client) -> None:
    first = post(client, "key")

    assert first.status_code == 201
    assert_replayed(post(client, "key"), first)
    assert titles(client) == [TASK["title"]]


def test_replay_ignores_later_changes_to_the_task(client: httpx.Client) -> None:
    first = post(client, "key")
    client.put("/api/tasks/1", json={"title": "changed"})
    assert_replayed(post(client, "key"), first)
    client.delete("/api/tasks/1")

    assert_replayed(post(client, "key"), first)
    assert titles(client) == []


@pytest.mark.parametrize(
    "content",
    [
        b'{"completed":false,"title":"Write the tutorial"}',
        b'\n{ "title" : "Write the tutorial" }',
        b'{"title": "\\u0057rite the tutorial", "description": null}',
    ],
)
def test_replay_ignores_the_formatting_of_the_json(client: httpx.Client, content: bytes) -> None:
    first = post(client, "key")
    headers = {"Idempotency-Key": "key", "Content-Type": "application/json; charset=utf-8"}

    assert_replayed(client.post("/api/tasks", content=content, headers=headers), first)


@pytest.mark.parametrize("change", [{"title": "write the tutorial"}, {"description": ""}, {"completed": True}])
def test_key_used_with_another_body_gets_422(client: httpx.Client, change: dict[str, Any]) -> None:
    first = post(client, "key")
    refused = post(client, "key", {**TASK, **change})

    assert refused.status_code == 422
    assert "new key" in refused.json()["detail"]
    assert titles(client) == [TASK["title"]]
    assert_replayed(post(client, "key"), first)


def test_keys_of_different_clients_are_independent(client: httpx.Client) -> None:
    responses = [post(client, "key", Authorization=f"Bearer {name}") for name in ("ann", "bob")]
    responses += [post(client, "key"), post(client, "key", Authorization="Bearer")]

    assert [response.json()["id"] for response in responses] == [1, 2, 3, 4]
    assert_replayed(post(client, "key", Authorization="Bearer bob"), responses[1])


def test_request_without_a_key_is_executed_each_time(client: httpx.Client) -> None:
    ids = [client.post("/api/tasks", json=TASK).json()["id"] for _ in range(3)]

    assert ids == [1, 2, 3]


@pytest.mark.parametrize("key", ["a", "a b", '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "!~", "k" * 255])
def test_printable_ascii_is_a_valid_key(shared_client: httpx.Client, key: str) -> None:
    first = post(shared_client, key)

    assert_replayed(post(shared_client, key), first)


@pytest.mark.parametrize("lines", [[b""], [b"k" * 256], [b"\xe9"], [b"a\tb"], [b"a", b"a"], [b"\xff"]])
def test_invalid_key_gets_400(shared_client: httpx.Client, lines: list[bytes]) -> None:
    headers = [(b"Idempotency-Key", line) for line in lines]
    refused = shared_client.post("/api/tasks", json=TASK, headers=headers)

    assert refused.status_code == 400
    assert {error["parameter"] for error in refused.json()["errors"]} == {"Idempotency-Key"}


def test_key_of_a_refused_request_can_be_reused(client: httpx.Client) -> None:
    assert post(client, "key", {"title": ""}).status_code == 400
    first = post(client, "key")

    assert first.status_code == 201
    assert_replayed(post(client, "key"), first)
