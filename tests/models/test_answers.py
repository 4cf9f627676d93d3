"""The answers kept for requests that are sent again: with their tasks, for their time, and without secrets."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.support.calls import TASK, assert_replayed, post, titles, wait_until
from tests.support.service import Start
from tests.support.stores import Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each keeps what is promised in a way of its own."""
    return str(request.param)


def answers_in(store: Store) -> int:
    ((count,),) = store.execute("SELECT count(*) FROM kept_answer")
    return int(count)


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


def test_answer_is_kept_for_fractions_of_an_hour(start: Start, store: Store) -> None:
    client = start().client
    for minutes in (40, 20):
        post(client, str(minutes))
        moment = datetime.now(UTC) - timedelta(minutes=minutes)
        written = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # Those that were kept before are older.
        store.execute(f"UPDATE kept_answer SET created_at = '{written}' WHERE created_at > '{written}'")

    client = start("--idempotency-hours", "0.5").client
    wait_until(lambda: answers_in(store) == 1)

    assert post(client, "20").headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in post(client, "40").headers


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
