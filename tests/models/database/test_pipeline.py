"""Requests that share the connections of a PostgreSQL server: each gets its own result, even if others fail."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from models.database import pipeline, pool, postgresql
from models.database.address import Database, open_database
from models.database.errors import DuplicateError, UnavailableError
from models.database.statements import Execute, Rows
from tests.support.pooler import MAX_PREPARED_STATEMENTS
from tests.support.stores import PostgresqlStore, run_with_pool

# Statements in one transaction have the same time, and those on one connection have the same process.
ROUND_TRIP = "SELECT now()::text, pg_backend_pid()"
INSERT = "INSERT INTO task (id, title, completed, created_at) VALUES (%s, %s, false, '')"


@pytest.fixture(scope="module", params=["postgresql", "pgbouncer"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return the backends with a connection pool."""
    return str(request.param)


async def execute_one(execute: Execute, sql: str, parameters: Sequence[Any] = ()) -> Rows:
    return await execute(sql, parameters)


async def read_all(database: Database, *statements: str) -> list[Any]:
    """Read concurrently, and return the rows or the error of each statement."""
    return await asyncio.gather(*[database.read(sql, []) for sql in statements], return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110, nothing signals a change
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("reads", "round_trips"), [(2, 1), (100, 7)])
def test_concurrent_reads_share_a_round_trip(store: PostgresqlStore, reads: int, round_trips: int) -> None:
    async def work(database: Database) -> None:
        rows = await read_all(database, *[ROUND_TRIP] * reads)
        assert len({tuple(result) for result in rows}) == round_trips

    run_with_pool(store, 3, work)


def test_error_of_a_read_affects_no_other(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        for failing, error in {
            "SELECT 1 / 0": psycopg.DataError,
            "SELEC 1": psycopg.errors.SyntaxError,
            "SELECT 'infinity'::timestamp": psycopg.DataError,
        }.items():
            statements = ["SELECT 1", failing, "SELECT 2", failing, "SELECT 3"]
            results = await read_all(database, *statements)
            assert [isinstance(result, error) for result in results] == [False, True, False, True, False]
            assert results[::2] == [[(1,)], [(2,)], [(3,)]]

    run_with_pool(store, 2, work)


def test_repeated_read_runs_alone(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        async def fail_and_read() -> Rows:
            with pytest.raises(psycopg.DataError):
                await database.read("SELECT 1 / floor(random())::int FROM pg_sleep(0.5)", [])
            return await database.read(ROUND_TRIP, [])

        assert await database.read("SELECT 1", []) == [(1,)]
        failing, repeated = [asyncio.create_task(each) for each in (fail_and_read(), database.read(ROUND_TRIP, []))]
        await until(lambda: database.connection_states()["used"])
        waiting = asyncio.create_task(database.read(ROUND_TRIP, []))
        await until(database.queue_depth)
        # One read waits before the repeated one, and usually one after it.
        assert await repeated not in (await waiting, await failing)

    run_with_pool(store, 1, work)


@pytest.mark.parametrize("value", [object(), "\0"])
def test_value_that_postgresql_does_not_have(store: PostgresqlStore, value: object) -> None:
    async def work(database: Database) -> None:
        calls = [database.read("SELECT %s", [each]) for each in (1, value, 2)]
        first, failed, last = await asyncio.gather(*calls, return_exceptions=True)
        assert (first, last) == ([(1,)], [(2,)])
        assert isinstance(failed, psycopg.Error)
        for write in (database.write, database.write_atomically):
            with pytest.raises(psycopg.Error):
                await write(execute_one, "SELECT %s", [value])
            assert await write(execute_one, "SELECT 1") == [(1,)]

    run_with_pool(store, 1, work)


def test_placeholders_and_percent_signs(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        assert await database.read("SELECT %s::text || '%%s' || %s::text", ["a", "b"]) == [("a%sb",)]

    run_with_pool(store, 1, work)


def test_results_of_many_requests(store: PostgresqlStore, caplog: pytest.LogCaptureFixture) -> None:
    """Reads and writes of all kinds, many of them cancelled at any moment, get their own results."""
    random = Random(0)
    acknowledged: set[int] = set()

    async def read(database: Database, number: int) -> None:
        size = random.choice([0, 10, 20_000])
        rows = await database.read("SELECT %s::int, repeat('a', %s::int)", [number, size])
        assert rows == [(number, "a" * size)]

    async def fail(database: Database, number: int) -> None:
        with pytest.raises(psycopg.DataError):
            await database.read("SELECT %s::int / 0", [number])

    async def write(database: Database, number: int) -> None:
        write = random.choice([database.write, database.write_atomically])
        assert await write(execute_one, f"{INSERT} RETURNING id", [number, "b" * 20_000]) == [(number,)]
        acknowledged.add(number)

    async def conflict(database: Database, number: int) -> None:
        async def insert_twice(execute: Execute) -> None:
            await execute(INSERT, [number, ""])
            await execute(INSERT, [number, ""])

        with pytest.raises(DuplicateError):
            await database.write_atomically(insert_twice)

    async def run_client(database: Database, numbers: range) -> None:
        for number in numbers:
            call = asyncio.create_task(random.choice([read, fail, write, conflict])(database, number))
            if random.random() < 0.5:
                for _ in range(random.randrange(15)):
                    await asyncio.sleep(0)
                call.cancel()
            with suppress(asyncio.CancelledError):
                await call

    async def work(database: Database) -> None:
        await asyncio.gather(*[run_client(database, range(first, first + 50)) for first in range(0, 1000, 50)])
        assert database.queue_depth() == 0
        await until(lambda: database.connection_states()["used"] == 0)
        ids = {id for (id,) in await database.read("SELECT id FROM task", [])}
        assert 0 < len(acknowledged) < 500
        assert acknowledged <= ids

    run_with_pool(store, 3, work)
    # No connection was closed.
    assert not caplog.messages


def test_large_parameters_and_results(store: PostgresqlStore) -> None:
    """They exceed the buffers of the sockets, in both directions at the same time."""

    async def work(database: Database) -> None:
        values = [letter * 3_000_000 for letter in "abcdefgh"]
        for write in (database.write, database.write_atomically):
            reads = [database.read("SELECT %s::text", [value]) for value in values]
            writes = [write(execute_one, "SELECT %s::text", [value]) for value in values]
            assert await asyncio.gather(*reads, *writes) == [[(value,)] for value in values * 2]

    run_with_pool(store, 2, work)


def test_connection_that_is_lost_in_the_middle_of_a_batch(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        results = await read_all(database, "SELECT 1", "SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 2")
        # The server may have sent the first result.
        assert results[0] == [(1,)] or isinstance(results[0], UnavailableError)
        assert isinstance(results[1], UnavailableError)
        assert isinstance(results[2], UnavailableError)
        assert await database.read("SELECT 3", []) == [(3,)]

    run_with_pool(store, 1, work)


def test_server_that_sends_an_unreadable_message(store: PostgresqlStore) -> None:
    target = conninfo_to_dict(store.url)
    clients: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = str(target["host"]), target.get("port") or 5432
        if host.startswith("/"):
            upstream = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            upstream = await asyncio.open_connection(host, int(port))
        clients.append(writer)
        await asyncio.gather(forward(reader, upstream[1]), forward(upstream[0], writer))

    async def work(proxy: asyncio.Server) -> None:
        host, port = proxy.sockets[0].getsockname()
        database = open_database(urlsplit(store.url)._replace(netloc=f"postgres@{host}:{port}", query="").geturl(), 1)
        await database.start()
        assert await database.read("SELECT 1", []) == [(1,)]
        reads = [asyncio.create_task(database.read("SELECT pg_sleep(60)", [])) for _ in range(2)]
        await until(lambda: database.connection_states()["used"])
        for client in clients:
            client.write(b"unreadable" * 10)
        for read in reads:
            with pytest.raises(UnavailableError, match="lost synchronization with server"):
                await read
        assert await database.read("SELECT 1", []) == [(1,)]
        await database.shut_down()

    async def serve() -> None:
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as proxy:
            await work(proxy)

    asyncio.run(serve())


def test_slow_read_delays_others_only_for_a_while(store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "TIMEOUT", 2.0)

    async def work(database: Database) -> None:
        slow = asyncio.create_task(database.read("SELECT pg_sleep(60)", []))
        others = [database.read(f"SELECT {number}", []) for number in range(8)]
        assert await asyncio.gather(*others) == [[(number,)] for number in range(8)]
        assert not slow.done()
        with pytest.raises(UnavailableError, match="no result within 2 seconds"):
            await slow
        assert await database.read("SELECT 9", []) == [(9,)]

    run_with_pool(store, 3, work)


def test_slow_reads_that_share_a_connection(store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while they run alone, so each has time until the timeout."""
    monkeypatch.setattr(postgresql, "TIMEOUT", 6.0)
    # PgBouncer has too few sessions.
    store.url = store.direct_url

    async def work(database: Database) -> None:
        assert await read_all(database, *["SELECT 1 FROM pg_sleep(2.2)"] * 3) == [[(1,)]] * 3

    run_with_pool(store, 4, work)


def test_error_of_a_read_that_was_repeated(store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement timeout ends the first attempts; the second attempts get the lock."""
    monkeypatch.setattr(postgresql, "TIMEOUT", 6.0)

    async def work(database: Database) -> None:
        with psycopg.connect(store.direct_url, autocommit=True) as other:
            other.execute("SELECT pg_advisory_lock(7)")
            waiting = asyncio.create_task(read_all(database, *["SELECT 1 FROM pg_advisory_xact_lock_shared(7)"] * 2))
            await asyncio.sleep(3.5)
            other.execute("SELECT pg_advisory_unlock(7)")
        assert await waiting == [[(1,)], [(1,)]]

    run_with_pool(store, 3, work)


def test_cancelled_read_is_not_sent(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        cancelled = asyncio.create_task(database.read("SELECT nextval('task_id_seq')", []))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await database.read("SELECT nextval('task_id_seq')", []) == [(1,)]

    run_with_pool(store, 1, work)


def test_write_without_a_result(store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "TIMEOUT", 1.0)

    async def work(database: Database) -> None:
        for write in (database.write, database.write_atomically):
            with pytest.raises(UnavailableError, match="no result within 1 seconds"):
                await write(execute_one, "SELECT pg_sleep(60)")

    run_with_pool(store, 2, work)


def test_requests_that_wait_at_shutdown(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        running = asyncio.create_task(database.read("SELECT pg_sleep(60)", []))
        await until(lambda: database.connection_states() == {"used": 1, "idle": 0})
        waiting = [database.read("SELECT 1", []), database.write(execute_one, "SELECT 1")]
        calls = [running, *map(asyncio.ensure_future, waiting)]
        await until(lambda: database.queue_depth() == 2)
        await database.shut_down()
        for call in calls:
            with pytest.raises(UnavailableError):
                await call
        with pytest.raises(UnavailableError):
            await database.read("SELECT 1", [])
        with pytest.raises(UnavailableError):
            await database.write(execute_one, "SELECT 1")

    run_with_pool(store, 1, work)


def test_shutdown_while_a_connection_is_opened(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        call = asyncio.ensure_future(database.read("SELECT 1", []))
        await asyncio.sleep(0)
        await database.shut_down()
        with suppress(UnavailableError):
            assert await call == [(1,)]

    run_with_pool(store, 1, work)


@pytest.mark.parametrize("timeout", ["IDLE_TIMEOUT", "HOLD_TIMEOUT"])
def test_connections_return_to_the_pool_of_psycopg(
    store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch, timeout: str
) -> None:
    """It closes connections that are old or not needed."""
    returned: list[psycopg.AsyncConnection[Any]] = []
    putconn = AsyncConnectionPool.putconn

    async def record_and_putconn(self: Any, connection: psycopg.AsyncConnection[Any]) -> None:
        returned.append(connection)
        await putconn(self, connection)

    monkeypatch.setattr(AsyncConnectionPool, "putconn", record_and_putconn)
    monkeypatch.setattr(pool, timeout, 0.02)

    async def work(database: Database) -> None:
        async with asyncio.timeout(60):
            while len(returned) < 3:
                assert await database.read("SELECT 1", []) == [(1,)]
                await asyncio.sleep(0.01 if timeout == "HOLD_TIMEOUT" else 0.1)
        await until(lambda: database.connection_states() == {"used": 0, "idle": 1})

    run_with_pool(store, 1, work)


def test_connection_that_the_server_closed_in_the_pool_of_psycopg(
    store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE_TIMEOUT", 0.02)

    async def work(database: Database) -> None:
        assert await database.read("SELECT 1", []) == [(1,)]
        await asyncio.sleep(0.1)
        store.end_connections()
        assert await database.read("SELECT 1", []) == [(1,)]

    run_with_pool(store, 1, work)


def test_waiting_requests_time_out_one_by_one(store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "POOL_TIMEOUT", 0.5)

    async def work(database: Database) -> None:
        running = asyncio.create_task(database.write(execute_one, "SELECT pg_sleep(2)"))
        await until(lambda: database.connection_states()["used"])
        calls = []
        for _ in range(3):
            calls.append(asyncio.create_task(database.read("SELECT 1", [])))
            await asyncio.sleep(0.1)
        for call in calls:
            with pytest.raises(UnavailableError, match=r"couldn't get a connection after 0\.50 sec"):
                await call
        await running

    run_with_pool(store, 1, work)


def test_number_of_prepared_statements_is_limited(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        for number in range(2 * pipeline.PREPARED):
            await database.read(f"SELECT {number}", [])
        ((count,),) = await database.read("SELECT count(*) FROM pg_prepared_statements", [])
        # PgBouncer closes them itself.
        assert 0 < count <= (pipeline.PREPARED if store.url == store.direct_url else MAX_PREPARED_STATEMENTS)

    run_with_pool(store, 1, work)


def test_transaction_is_not_acknowledged_after_a_suppressed_error(
    store: PostgresqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def suppress_error(execute: Execute) -> None:
        await execute(INSERT, [1, "lost"])
        with suppress(DuplicateError):
            await execute(INSERT, [1, "duplicate"])

    async def work(database: Database) -> None:
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await database.write_atomically(suppress_error)
        assert await database.read("SELECT id FROM task", []) == []

    run_with_pool(store, 1, work)
    # The transaction was rolled back without closing the connection.
    assert not caplog.messages


def test_transaction_without_statements(store: PostgresqlStore) -> None:
    async def do_nothing(_: Execute) -> int:
        return 1

    async def work(database: Database) -> None:
        assert await database.write_atomically(do_nothing) == 1
        assert await database.read("SELECT 1", []) == [(1,)]

    run_with_pool(store, 1, work)
