"""A request that is sent again is done once."""

from typing import Any

import httpx
import pytest

from tests.support.calls import TASK, assert_replayed, post, titles


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "two nodes"])
def backend(request: pytest.FixtureRequest) -> str:
    """Two nodes on one PostgreSQL give the guarantees of one."""
    return str(request.param)


def test_request_is_answered_again_with_the_first_answer(client: httpx.Client) -> None:
    first = post(client, "key")

    assert first.status_code == 201
    assert_replayed(post(client, "key"), first)
    assert titles(client) == [TASK["title"]]


def test_first_answer_is_given_whatever_became_of_the_task(client: httpx.Client) -> None:
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
def test_request_is_the_same_however_it_is_written(client: httpx.Client, content: bytes) -> None:
    first = post(client, "key")
    headers = {"Idempotency-Key": "key", "Content-Type": "application/json; charset=utf-8"}

    assert_replayed(client.post("/api/tasks", content=content, headers=headers), first)


@pytest.mark.parametrize("change", [{"title": "write the tutorial"}, {"description": ""}, {"completed": True}])
def test_key_of_another_request_is_refused(client: httpx.Client, change: dict[str, Any]) -> None:
    first = post(client, "key")
    refused = post(client, "key", {**TASK, **change})

    assert refused.status_code == 422
    assert "new key" in refused.json()["detail"]
    assert titles(client) == [TASK["title"]]
    assert_replayed(post(client, "key"), first)


def test_keys_of_two_callers_have_nothing_to_do_with_each_other(client: httpx.Client) -> None:
    answers = [post(client, "key", Authorization=f"Bearer {who}") for who in ("ann", "bob")]
    answers += [post(client, "key"), post(client, "key", Authorization="Bearer")]

    assert [answer.json()["id"] for answer in answers] == [1, 2, 3, 4]
    assert_replayed(post(client, "key", Authorization="Bearer bob"), answers[1])


def test_request_without_a_key_is_done_each_time(client: httpx.Client) -> None:
    ids = [client.post("/api/tasks", json=TASK).json()["id"] for _ in range(3)]

    assert ids == [1, 2, 3]


@pytest.mark.parametrize("key", ["a", "a b", '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "!~", "k" * 255])
def test_printable_characters_are_a_key(shared_client: httpx.Client, key: str) -> None:
    first = post(shared_client, key)

    assert_replayed(post(shared_client, key), first)


@pytest.mark.parametrize("lines", [[b""], [b"k" * 256], [b"\xe9"], [b"a\tb"], [b"a", b"a"], [b"\xff"]])
def test_nothing_else_is_a_key(shared_client: httpx.Client, lines: list[bytes]) -> None:
    headers = [(b"Idempotency-Key", line) for line in lines]
    refused = shared_client.post("/api/tasks", json=TASK, headers=headers)

    assert refused.status_code == 400
    assert {error["parameter"] for error in refused.json()["errors"]} == {"Idempotency-Key"}


def test_refused_request_is_not_remembered(client: httpx.Client) -> None:
    assert post(client, "key", {"title": ""}).status_code == 400
    first = post(client, "key")

    assert first.status_code == 201
    assert_replayed(post(client, "key"), first)
