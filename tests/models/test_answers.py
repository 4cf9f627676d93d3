"""The responses kept for idempotency keys are stored with their task, for a limited time, and without secrets."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from models.answers import Answer, AnswerQueries
from models.database.address import open_database
from models.database.migrate import migrate
from models.database.statements import Execute, Rows
from tests.support.calls import TASK, assert_replayed, post, titles, wait_until
from tests.support.service import Start
from tests.support.stores import Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each implements these guarantees in its own way."""
    return str(request.param)


def count_kept_responses(store: Store) -> int:
    ((count,),) = store.execute("SELECT count(*) FROM kept_answer")
    return int(count)


@pytest.mark.parametrize("table", ["task", "kept_answer"])
def test_failed_request_is_not_kept(start: Start, store: Store, table: str) -> None:
    """The task and the response are stored together or not at all."""
    client = start().client
    store.execute(f"ALTER TABLE {table} RENAME TO away")
    assert post(client, "key").status_code == 500
    store.execute(f"ALTER TABLE away RENAME TO {table}")

    assert titles(client) == []
    assert count_kept_responses(store) == 0
    first = post(client, "key")
    assert_replayed(post(client, "key"), first)


def test_request_gets_409_while_another_with_its_key_is_running(start: Start, store: Store) -> None:
    """Both requests reach the same process; in another process, the second request would wait for the first."""
    url = start().url
    client = httpx.Client(base_url=url, timeout=30)
    with client, ThreadPoolExecutor() as pool:
        with store.block_writes():
            running = [pool.submit(post, client, "key") for _ in range(2)]
            wait_until(lambda: any(future.done() for future in running))
            assert post(client, "key", {"title": "another"}).status_code == 409
        responses = sorted((future.result() for future in running), key=lambda response: response.status_code)

        assert [response.status_code for response in responses] == [201, 409]
        assert responses[1].headers["retry-after"] == "1"
        assert_replayed(post(client, "key"), responses[0])
        assert titles(client) == [TASK["title"]]


def test_kept_response_survives_a_restart(start: Start) -> None:
    service = start()
    first = post(service.client, "key")
    assert service.stop() == 0

    assert_replayed(post(start().client, "key"), first)


def test_expired_responses_are_purged_at_start(start: Start, store: Store) -> None:
    """The purge removes more responses than fit into one batch, and keeps a recent response."""
    client = start().client
    first = [post(client, str(number)) for number in range(250)]
    store.execute("UPDATE kept_answer SET created_at = '2026-01-01T00:00:00.000Z'")
    recent = post(client, "recent")
    assert_replayed(post(client, "249"), first[249])

    # Start another service, which purges at its start; its next purge would come long after this test.
    client = start().client
    wait_until(lambda: count_kept_responses(store) == 1)

    assert_replayed(post(client, "recent"), recent)
    assert [post(client, str(number), {"title": "again"}).status_code for number in (0, 249)] == [201, 201]


def test_retention_period_may_be_a_fraction_of_an_hour(start: Start, store: Store) -> None:
    client = start().client
    for minutes in (40, 20):
        post(client, str(minutes))
        created = datetime.now(UTC) - timedelta(minutes=minutes)
        written = created.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # Only the response to the latest POST is newer than `written`.
        store.execute(f"UPDATE kept_answer SET created_at = '{written}' WHERE created_at > '{written}'")

    client = start("--idempotency-hours", "0.5").client
    wait_until(lambda: count_kept_responses(store) == 1)

    assert post(client, "20").headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in post(client, "40").headers


def test_expired_responses_are_purged_while_the_service_runs(start: Start) -> None:
    client = start("--idempotency-hours", "0.0001").client
    post(client, "key")

    wait_until(lambda: post(client, "key", {"title": "another"}).status_code == 201)


def test_failed_purge_is_retried(start: Start, store: Store) -> None:
    service = start("--idempotency-hours", "0.0001")
    post(service.client, "key")
    store.make_unreachable()
    wait_until(lambda: "Cannot purge expired responses to idempotent requests; retrying later: " in service.log())
    store.make_reachable()

    wait_until(lambda: post(service.client, "key", {"title": "another"}).status_code == 201)
    assert "Traceback" not in service.log()


def test_idempotency_key_and_credentials_are_not_stored(start: Start, store: Store) -> None:
    service = start()
    post(service.client, "secret-key", Authorization="Bearer secret-token")
    assert service.stop() == 0

    rows = [store.execute(f"SELECT * FROM {table}") for table in ("task", "kept_answer")]
    stored = repr(rows).encode()
    assert b"Write the tutorial" in stored
    assert b"secret" not in stored


def test_second_request_with_a_key_waits_for_the_first(store: Store) -> None:
    """As on two nodes: a write that would violate a unique constraint must not run if the first request succeeds."""
    migrate(store.url)
    answer = Answer(b"fingerprint", 201, {"Location": "/1"}, b"{}")

    async def work() -> tuple[Answer | None, Answer | None]:
        nodes = [open_database(store.url) for _ in range(2)]
        for node in nodes:
            await node.start()
        answers = AnswerQueries(nodes[0])

        async def run(execute: Execute) -> Answer | None:
            found = await answers.find_or_reserve(execute, b"key")
            if not found:
                await answers.store(execute, b"key", answer)
            return found

        found = await asyncio.gather(*(node.write_atomically(run) for node in nodes))
        for node in nodes:
            await node.shut_down()
        return found[0], found[1]

    assert sorted(asyncio.run(work()), key=bool) == [None, answer]


def test_key_of_a_response_that_is_purged_meanwhile_is_reserved() -> None:
    """Simulate a race that no test can provoke: the key is taken, but its row is gone when it is read."""
    outcomes: list[Rows] = [[], [], [(b"key",)]]

    async def execute(*_: object) -> Rows:
        return outcomes.pop(0)

    answers = AnswerQueries(open_database("sqlite:///never-opened.db"))

    assert asyncio.run(answers.find_or_reserve(execute, b"key")) is None
    assert outcomes == []
