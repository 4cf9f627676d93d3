"""The connection pool of a PostgreSQL server: its settings, and that no connection is lost or returned in mid-use."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from models.database.address import database
from models.database.errors import MissingError, UnavailableError
from models.database.statements import Execute, Rows
from tests.support.stores import IN_THIS_DATABASE, PostgresqlStore, bind_database

SESSION = {
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "2500ms",
}
SETTINGS = ", ".join(f"current_setting('{name}')" for name in SESSION)
INSERT = "INSERT INTO task (title, completed, created_at) VALUES (%s, false, '')"
# Some number, under which nothing else locks.
LOCK = 7

Use = Callable[..., Coroutine[Any, Any, Rows]]


@pytest.fixture(scope="module")
def backend() -> str:
    """The one that this is about."""
    return "postgresql"


async def read(*statements: str) -> Rows:
    """Run some statements, and return the rows of the last one."""
    rows: Rows = []
    for statement in statements:
        rows = await database.read(statement, [])
    return rows


async def run_all(execute: Execute, *statements: str) -> Rows:
    rows: Rows = []
    for statement in statements:
        rows = await execute(statement, [])
    return rows


async def write(*statements: str) -> Rows:
    """Run some statements, each on its own."""
    rows: Rows = await database.write(run_all, *statements)
    return rows


async def write_together(*statements: str) -> Rows:
    """Run some statements in one transaction."""
    rows: Rows = await database.write_together(run_all, *statements)
    return rows


USES = [read, write, write_together]


def use(store: PostgresqlStore, connections: int, work: Callable[[], Awaitable[Any]]) -> None:
    """Do some work with a pool of so many connections, in this process."""
    bind_database(store.url, connections)

    async def start_and_work() -> None:
        await database.start()
        try:
            await work()
        finally:
            await database.shut_down()

    asyncio.run(start_and_work())


async def wait_until(is_so: Callable[[], Any]) -> None:
    """Wait until something is so, which may take a query of its own."""
    give_up = monotonic() + 60
    while not await asyncio.to_thread(is_so):
        assert monotonic() < give_up
        await asyncio.sleep(0.01)


async def assert_as_new(store: PostgresqlStore) -> None:
    """The one connection is in the pool, has its settings and is in no transaction; each result is of its statement."""
    # One that has ended is replaced in the background.
    await wait_until(lambda: database.connection_states() == {"used": 0, "idle": 1})
    for use in USES:
        assert await use(f"SELECT {SETTINGS}") == [tuple(SESSION.values())]
    for number in range(3):
        assert await read(f"SELECT {number}") == [(number,)]
    before = store.execute("SELECT count(*) FROM task")
    for use in (write, write_together):
        assert await use("INSERT INTO task (title, completed, created_at) VALUES ('', false, '') RETURNING 1") == [(1,)]
    # Another connection sees only what is committed.
    assert store.execute("SELECT count(*) FROM task") == [(before[0][0] + 2,)]
    assert store.execute("SELECT count(*) FROM task WHERE title = 'lost'") == [(0,)]
    assert database.connection_states() == {"used": 0, "idle": 1}


@pytest.mark.parametrize("use_", USES)
def test_settings_are_in_force_on_every_connection(store: PostgresqlStore, use_: Use) -> None:
    """Whatever the server has by default, and also on those that replace others."""
    for name, default in zip(SESSION, ("off", "0", "0"), strict=True):
        store.execute(f"ALTER DATABASE {store.name} SET {name} = {default}")
    waiting = "SELECT count(*) = 3 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND " + IN_THIS_DATABASE

    async def work() -> None:
        known: set[int] = set()
        for _ in range(2):
            with psycopg.connect(store.url, autocommit=True) as other:
                other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
                # While each waits for the lock, the next one needs another connection.
                statement = f"SELECT pg_backend_pid(), {SETTINGS}, pg_advisory_xact_lock_shared({LOCK})"
                calls = [asyncio.create_task(use_(statement)) for _ in range(3)]
                await wait_until(lambda: store.execute(waiting) == [(True,)])
                other.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
                rows = [(await call)[0] for call in calls]
            processes = {row[0] for row in rows}
            assert len(processes) == 3
            assert not processes & known
            assert [row[1:-1] for row in rows] == [tuple(SESSION.values())] * 3
            known |= processes
            await asyncio.to_thread(store.end_connections)

    use(store, 3, work)


def test_server_that_vanishes_is_noticed(store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each connection, in the time that the address says, if it does."""
    seen: list[dict[str, Any]] = []
    connect = AsyncConnection.connect

    async def note(conninfo: str, **options: Any) -> AsyncConnection[Any]:
        seen.append(conninfo_to_dict(conninfo) | options)
        return await connect(conninfo, **options)

    monkeypatch.setattr(AsyncConnection, "connect", note)
    use(store, 1, partial(read, "SELECT 1"))
    store.url += f"{'&' if '?' in store.url else '?'}connect_timeout=7"
    use(store, 1, partial(read, "SELECT 1"))

    for options in seen:
        assert 0 < int(options["keepalives_idle"]) <= 60
        assert 0 < int(options["keepalives_interval"]) <= 60
        assert 0 < int(options["keepalives_count"]) <= 9
    assert 0 < int(seen[0]["connect_timeout"]) < 7
    assert int(seen[-1]["connect_timeout"]) == 7


def test_statement_is_prepared_at_its_first_use(store: PostgresqlStore) -> None:
    async def work() -> None:
        statement = "SELECT statement FROM pg_prepared_statements"
        assert (statement,) in await read(statement)

    use(store, 1, work)


ENDS = {
    "success": "SELECT 1",
    "no such table": "SELECT * FROM nothing",
    "division by zero": "SELECT 1 / 0",
    "unique violation": "DO $$BEGIN RAISE unique_violation; END$$",
    "serialization failure": "DO $$BEGIN RAISE serialization_failure; END$$",
    "deadlock": "DO $$BEGIN RAISE deadlock_detected; END$$",
    "statement timeout": "DO $$BEGIN RAISE query_canceled; END$$",
    "lock timeout": "DO $$BEGIN RAISE lock_not_available; END$$",
    "standby": "DO $$BEGIN RAISE read_only_sql_transaction; END$$",
    "server that shuts down": "SELECT pg_terminate_backend(pg_backend_pid())",
    "value that psycopg cannot read": "SELECT 'infinity'::timestamp",
}


@pytest.mark.parametrize("statement", ENDS.values(), ids=ENDS.keys())
def test_connection_is_as_new_however_a_statement_ends(store: PostgresqlStore, statement: str) -> None:
    async def work() -> None:
        for use_ in USES:
            # What is before the statement is undone with it, where the two are one transaction.
            before = ["INSERT INTO task (title, completed, created_at) VALUES ('lost', false, '')"]
            succeeds = statement == ENDS["success"]
            with suppress(psycopg.Error, UnavailableError):
                await use_(*before[: use_ is write_together and not succeeds], statement)
                assert succeeds
            await assert_as_new(store)

    use(store, 1, work)


async def raise_missing(_: Execute) -> None:
    raise MissingError


async def end_badly(_: Execute) -> None:
    raise RuntimeError


async def fail_at_commit(execute: Execute) -> None:
    await execute("CREATE TEMP TABLE once (a int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP", [])
    await execute("INSERT INTO once VALUES (1), (1)", [])


async def go_on_after_an_error(execute: Execute) -> None:
    with suppress(psycopg.Error):
        await execute("SELECT 1 / 0", [])


async def lose_the_connection(execute: Execute) -> None:
    with suppress(psycopg.Error):
        await execute("SELECT pg_terminate_backend(pg_backend_pid())", [])


@pytest.mark.parametrize("end", [raise_missing, end_badly, fail_at_commit, go_on_after_an_error, lose_the_connection])
def test_connection_is_as_new_however_the_work_ends(
    store: PostgresqlStore, end: Callable[[Execute], Awaitable[None]]
) -> None:
    async def insert_and_end(execute: Execute) -> None:
        await execute(INSERT, ["lost" if end is not go_on_after_an_error else "kept"])
        await end(execute)

    async def work() -> None:
        for write_, work_ in ((database.write, end), (database.write_together, insert_and_end)):
            with suppress(psycopg.Error, UnavailableError, MissingError, RuntimeError):
                await write_(work_)
            await assert_as_new(store)

    use(store, 1, work)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("use_", USES)
def test_connection_is_as_new_whenever_the_caller_is_cancelled(store: PostgresqlStore, use_: Use, times: int) -> None:
    """At each step, and perhaps once more while the first cancellation is under way."""

    async def work() -> None:
        for steps in range(24):
            call = asyncio.create_task(use_(*["SELECT 1", "SELECT 2"]))
            for _ in range(times):
                for _ in range(steps):
                    await asyncio.sleep(0)
                call.cancel()
            with suppress(asyncio.CancelledError, UnavailableError):
                await call
            assert await asyncio.wait_for(read(f"SELECT {steps}"), 30) == [(steps,)]
        await assert_as_new(store)

    use(store, 1, work)


@pytest.mark.parametrize("use_", USES)
def test_connection_is_as_new_after_a_caller_is_cancelled_who_waits(store: PostgresqlStore, use_: Use) -> None:
    """For the server, or for a connection."""

    async def work() -> None:
        running = asyncio.create_task(use_(*["SELECT 1", "SELECT pg_sleep(60)"]))
        active = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{store.name}' AND query = 'SELECT pg_sleep(60)'"
        await wait_until(lambda: store.execute(active))
        waiting = asyncio.create_task(use_("SELECT 1"))
        await wait_until(database.queue_depth)
        waiting.cancel()
        running.cancel()
        for call in (waiting, running):
            with pytest.raises(asyncio.CancelledError):
                await call
        await assert_as_new(store)
        assert database.queue_depth() == 0

    use(store, 1, work)


def test_connection_is_as_new_after_work_or_a_wait_that_takes_too_long(store: PostgresqlStore) -> None:
    """The work loses its connection; the call that waits for it is refused before that."""

    async def take_too_long(execute: Execute) -> None:
        await execute(INSERT, ["lost"])
        while True:
            await execute("SELECT 1", [])
            await asyncio.sleep(0.1)

    async def work() -> None:
        running = asyncio.create_task(database.write_together(take_too_long))
        await wait_until(lambda: database.connection_states()["used"])
        with pytest.raises(UnavailableError):
            await read("SELECT 1")
        with pytest.raises(UnavailableError):
            await running
        await assert_as_new(store)

    use(store, 1, work)
