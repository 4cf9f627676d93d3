"""A request that is sent again is done once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import httpx
import pytest

from tests.conftest import Start
from tests.stores import Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "two nodes"])
def backend(request: pytest.FixtureRequest) -> str:
    """Two nodes on one PostgreSQL give the guarantees of one."""
    return str(request.param)


TASK = {"title": "Write the tutorial", "completed": False}


def post(client: httpx.Client, key: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return client.post("/api/tasks", json=body or TASK, headers={"Idempotency-Key": key, **headers})


def titles(client: httpx.Client) -> list[str]:
    return [task["title"] for task in client.get("/api/tasks?limit=1000").json()]


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = monotonic() + 30
    while not condition():
        assert monotonic() < give_up


def answers_in(store: Store) -> int:
    ((count,),) = store.execute("SELECT count(*) FROM kept_answer")
    return int(count)


def lasting(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in ("date", "idempotency-replayed")}


def assert_replayed(again: httpx.Response, first: httpx.Response) -> None:
    """The answer is the first one once more, and says so."""
    assert (again.status_code, again.content, lasting(again)) == (201, first.content, lasting(first))
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


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


@pytest.mark.parametrize("table", ["task", "kept_answer"])
def test_failed_request_is_not_remembered(start: Start, store: Store, table: str) -> None:
    """The task and the answer are kept together, or neither."""
    client = start().client
    store.execute(f"ALTER TABLE {table} RENAME TO away")
    assert post(client, "key").status_code == 500
    store.execute(f"ALTER TABLE away RENAME TO {table}")

    assert titles(client) == []
    assert answers_in(store) == 0
    first = post(client, "key")
    assert_replayed(post(client, "key"), first)


def test_request_that_is_still_running_is_not_done_beside_itself(start: Start, store: Store) -> None:
    """In one process; between two, the second one waits for the first."""
    url = start().url
    client = httpx.Client(base_url=url, timeout=30)
    with client, ThreadPoolExecutor() as pool:
        with store.writes_held():
            running = [pool.submit(post, client, "key") for _ in range(2)]
            wait_until(lambda: any(future.done() for future in running))
            assert post(client, "key", {"title": "another"}).status_code == 409
        answers = sorted((future.result() for future in running), key=lambda answer: answer.status_code)

        assert [answer.status_code for answer in answers] == [201, 409]
        assert answers[1].headers["retry-after"] == "1"
        assert_replayed(post(client, "key"), answers[0])
        assert titles(client) == [TASK["title"]]


def test_answer_outlives_the_service(start: Start) -> None:
    service = start()
    first = post(service.client, "key")
    assert service.stop() == 0

    assert_replayed(post(start().client, "key"), first)


def test_answer_is_kept_for_as_long_as_is_set(start: Start, store: Store) -> None:
    """More of them than are removed at a time, while a younger one stays."""
    client = start().client
    first = [post(client, str(number)) for number in range(250)]
    store.execute("UPDATE kept_answer SET created_at = '2026-01-01T00:00:00.000Z'")
    young = post(client, "young")
    assert_replayed(post(client, "249"), first[249])

    # It removes them when it starts; the next look is long after this test.
    client = start().client
    wait_until(lambda: answers_in(store) == 1)

    assert_replayed(post(client, "young"), young)
    assert [post(client, str(number), {"title": "again"}).status_code for number in (0, 249)] == [201, 201]


def test_answers_are_removed_while_the_service_runs(start: Start) -> None:
    client = start("--idempotency-hours", "0.0001").client
    post(client, "key")

    wait_until(lambda: post(client, "key", {"title": "another"}).status_code == 201)


def test_answers_are_removed_later_where_it_fails(start: Start, store: Store) -> None:
    service = start("--idempotency-hours", "0.0001")
    post(service.client, "key")
    store.lose()
    wait_until(lambda: "Old answers to requests with an idempotency key are removed later: " in service.log())
    store.find_again()

    wait_until(lambda: post(service.client, "key", {"title": "another"}).status_code == 201)
    assert "Traceback" not in service.log()


def test_neither_key_nor_credentials_are_kept(start: Start, store: Store) -> None:
    service = start()
    post(service.client, "secret-key", Authorization="Bearer secret-token")
    assert service.stop() == 0

    rows = [store.execute(f"SELECT * FROM {table}") for table in ("task", "kept_answer")]
    kept = repr(rows).encode()
    assert b"Write the tutorial" in kept
    assert b"secret" not in kept
