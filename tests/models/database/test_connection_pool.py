"""The PostgreSQL connection pool: its connections have the right settings, and are clean when they return to it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from models.database import postgresql
from models.database.address import Database
from models.database.errors import DuplicateError, MissingError, UnavailableError
from models.database.pipeline import PooledConnection
from models.database.statements import Execute, Rows
from tests.support.stores import IN_THIS_DATABASE, PostgresqlStore, run_with_pool

SESSION = {
    "synchronous_commit": "on",
    "client_min_messages": "warning",
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "2500ms",
}
SETTINGS = ", ".join(f"current_setting('{name}')" for name in SESSION)
INSERT = "INSERT INTO task (title, completed, created_at) VALUES (%s, false, '')"
INSERT_EMPTY_TITLE = "INSERT INTO task (title, completed, created_at) VALUES ('', false, '')"
# The key of an advisory lock that only these tests use.
LOCK = 7

Operation = Callable[..., Coroutine[Any, Any, Rows]]


@pytest.fixture(scope="module", params=["postgresql", "pgbouncer"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return the backends with a connection pool."""
    return str(request.param)


async def read(database: Database, *statements: str) -> Rows:
    """Run statements, and return the rows of the last statement."""
    rows: Rows = []
    for statement in statements:
        rows = await database.read(statement, [])
    return rows


async def run_all(execute: Execute, *statements: str) -> Rows:
    rows: Rows = []
    for statement in statements:
        rows = await execute(statement, [])
    return rows


async def write(database: Database, *statements: str) -> Rows:
    """Run statements, each in its own transaction, and return the rows of the last statement."""
    rows: Rows = await database.write(run_all, *statements)
    return rows


async def write_atomically(database: Database, *statements: str) -> Rows:
    """Run statements in a single transaction, and return the rows of the last statement."""
    rows: Rows = await database.write_atomically(run_all, *statements)
    return rows


OPERATIONS = [read, write, write_atomically]


@pytest.fixture
def shorten_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeouts, but leave the tests enough time on a busy machine."""
    monkeypatch.setattr(postgresql, "POOL_TIMEOUT", 0.5)
    monkeypatch.setattr(postgresql, "TIMEOUT", 1.0)


async def wait_until(condition: Callable[[], Any]) -> None:
    """Poll until the condition holds; evaluate it in a thread, since it may run a blocking query."""
    deadline = monotonic() + 60
    while not await asyncio.to_thread(condition):
        assert monotonic() < deadline
        await asyncio.sleep(0.01)


async def assert_connection_is_clean(database: Database, store: PostgresqlStore) -> None:
    """Assert that the pool's only connection is idle, has the right settings, and is not in a transaction."""
    # Wait, because the pool replaces a closed connection in the background.
    await wait_until(lambda: database.connection_states() == {"used": 0, "idle": 1})
    for operation in OPERATIONS:
        assert await operation(database, f"SELECT {SETTINGS}") == [tuple(SESSION.values())]
    # The connection holds no unread result of an earlier statement.
    for number in range(3):
        assert await read(database, f"SELECT {number}") == [(number,)]
    before = store.execute("SELECT count(*) FROM task")
    for insert in (write, write_atomically):
        assert await insert(database, f"{INSERT_EMPTY_TITLE} RETURNING 1") == [(1,)]
    # Count the rows on another connection, which sees only committed rows.
    assert store.execute("SELECT count(*) FROM task") == [(before[0][0] + 2,)]
    assert store.execute("SELECT count(*) FROM task WHERE title = 'lost'") == [(0,)]
    assert database.connection_states() == {"used": 0, "idle": 1}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_settings_apply_to_every_connection(store: PostgresqlStore, operation: Operation) -> None:
    """The settings override the defaults of the database, also on connections that replace closed connections."""
    for name, default in zip(SESSION, ("off", "error", "0", "0"), strict=True):
        store.execute(f"ALTER DATABASE {store.name} SET {name} = {default}")
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND " + IN_THIS_DATABASE

    async def work(database: Database) -> None:
        known: set[int] = set()
        for _ in range(2):
            with psycopg.connect(store.direct_url, autocommit=True) as other:
                other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
                # Each call waits for the lock, so the next call needs another connection.
                statement = f"SELECT pg_backend_pid(), {SETTINGS}, pg_advisory_xact_lock_shared({LOCK})"
                calls: list[asyncio.Task[Rows]] = []
                while len(calls) < 3:
                    calls.append(asyncio.create_task(operation(database, statement)))
                    await wait_until(lambda: store.execute(waiting) == [(len(calls),)])  # noqa: B023, it runs at once
                other.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
                rows = [(await call)[0] for call in calls]
            processes = {row[0] for row in rows}
            assert len(processes) == 3
            assert not processes & known
            assert [row[1:-1] for row in rows] == [tuple(SESSION.values())] * 3
            known |= processes
            await asyncio.to_thread(store.end_connections)

    run_with_pool(store, 3, work)


def test_lost_server_is_detected(store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection has TCP keepalives and a connect timeout, which the URL may override."""
    seen: list[dict[str, Any]] = []
    connect = PooledConnection.connect

    async def record_and_connect(conninfo: str, **options: Any) -> AsyncConnection[Any]:
        seen.append(conninfo_to_dict(conninfo) | options)
        return await connect(conninfo, **options)

    monkeypatch.setattr(PooledConnection, "connect", record_and_connect)
    run_with_pool(store, 1, lambda database: read(database, "SELECT 1"))
    store.url += f"{'&' if '?' in store.url else '?'}connect_timeout=7"
    run_with_pool(store, 1, lambda database: read(database, "SELECT 1"))

    for options in seen:
        assert 0 < int(options["keepalives_idle"]) <= 60
        assert 0 < int(options["keepalives_interval"]) <= 60
        assert 0 < int(options["keepalives_count"]) <= 9
    assert 0 < int(seen[0]["connect_timeout"]) < 7
    assert int(seen[-1]["connect_timeout"]) == 7


@pytest.mark.usefixtures("shorten_timeouts")
def test_server_that_hangs_after_connecting(store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool gives up connections that the server does not configure, and makes others."""
    execute, hangs = AsyncConnection.execute, [True]

    async def execute_or_hang(connection: AsyncConnection[Any], sql: Any, *arguments: Any, **options: Any) -> Any:
        return await execute(connection, "SELECT pg_sleep(60)" if hangs else sql, *arguments, **options)

    async def work(database: Database) -> None:
        with pytest.raises(UnavailableError):
            await read(database, "SELECT 1")
        hangs.clear()
        deadline = monotonic() + 10
        while True:
            with suppress(UnavailableError):
                assert await read(database, "SELECT 1") == [(1,)]
                break
            assert monotonic() < deadline

    monkeypatch.setattr(AsyncConnection, "execute", execute_or_hang)
    run_with_pool(store, 2, work)


def test_statement_is_prepared_at_its_first_use(store: PostgresqlStore) -> None:
    async def work(database: Database) -> None:
        statement = "SELECT statement FROM pg_prepared_statements"
        assert (statement,) in await read(database, statement)

    run_with_pool(store, 1, work)


OUTCOMES = {
    "success": "SELECT 1",
    "no such table": "SELECT * FROM nothing",
    "division by zero": "SELECT 1 / 0",
    "unique violation": "DO $$BEGIN RAISE unique_violation; END$$",
    "serialization failure": "DO $$BEGIN RAISE serialization_failure; END$$",
    "deadlock": "DO $$BEGIN RAISE deadlock_detected; END$$",
    "statement timeout": "DO $$BEGIN RAISE query_canceled; END$$",
    "lock timeout": "DO $$BEGIN RAISE lock_not_available; END$$",
    "standby": "DO $$BEGIN RAISE read_only_sql_transaction; END$$",
    "internal error": "DO $$BEGIN RAISE internal_error; END$$",
    "server shutdown": "SELECT pg_terminate_backend(pg_backend_pid())",
    "value that psycopg cannot read": "SELECT 'infinity'::timestamp",
    "result that a pipeline cannot have": "COPY task TO STDOUT",
    "transaction left open": "BEGIN",
}


@pytest.mark.parametrize("statement", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_connection_is_clean_however_a_statement_ends(store: PostgresqlStore, statement: str) -> None:
    async def work(database: Database) -> None:
        for operation in OPERATIONS:
            # In a single transaction, the failing statement also rolls back the statement before it.
            before = ["INSERT INTO task (title, completed, created_at) VALUES ('lost', false, '')"]
            succeeds = statement in (OUTCOMES["success"], OUTCOMES["transaction left open"])
            with suppress(psycopg.Error, DuplicateError, UnavailableError):
                await operation(database, *before[: operation is write_atomically and not succeeds], statement)
                assert succeeds
            await assert_connection_is_clean(database, store)

    run_with_pool(store, 1, work)


async def raise_missing(_: Execute) -> None:
    raise MissingError


async def raise_runtime_error(_: Execute) -> None:
    raise RuntimeError


async def fail_at_commit(execute: Execute) -> None:
    await execute("CREATE TEMP TABLE once (a int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP", [])
    await execute("INSERT INTO once VALUES (1), (1)", [])


async def continue_after_an_error(execute: Execute) -> None:
    with suppress(psycopg.Error):
        await execute("SELECT 1 / 0", [])


async def lose_connection(execute: Execute) -> None:
    with suppress(psycopg.Error):
        await execute("SELECT pg_terminate_backend(pg_backend_pid())", [])


@pytest.mark.parametrize(
    "end", [raise_missing, raise_runtime_error, fail_at_commit, continue_after_an_error, lose_connection]
)
def test_connection_is_clean_however_the_work_ends(
    store: PostgresqlStore, end: Callable[[Execute], Coroutine[Any, Any, None]]
) -> None:
    async def insert_and_end(execute: Execute) -> None:
        await execute(INSERT, ["lost" if end is not continue_after_an_error else "kept"])
        await end(execute)

    async def work(database: Database) -> None:
        for write_, work_ in ((database.write, end), (database.write_atomically, insert_and_end)):
            with suppress(psycopg.Error, DuplicateError, UnavailableError, MissingError, RuntimeError):
                await write_(work_)
            await assert_connection_is_clean(database, store)

    run_with_pool(store, 1, work)


def test_session_that_ends_before_the_commit(store: PostgresqlStore) -> None:
    """PgBouncer sends two errors then: that of the server, and its own."""

    async def insert_and_end_session(execute: Execute) -> None:
        await execute(INSERT, ["lost"])
        await asyncio.to_thread(store.end_connections)

    async def work(database: Database) -> None:
        with pytest.raises(UnavailableError):
            await database.write_atomically(insert_and_end_session)
        await assert_connection_is_clean(database, store)

    run_with_pool(store, 1, work)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_connection_is_clean_after_cancellation_at_any_step(
    store: PostgresqlStore, operation: Operation, times: int
) -> None:
    """If `times` is 2, a second cancellation interrupts the cleanup after the first cancellation."""

    async def work(database: Database) -> None:
        for steps in range(24):
            call = asyncio.create_task(operation(database, *["SELECT 1", "SELECT 2"]))
            for _ in range(times):
                for _ in range(steps):
                    await asyncio.sleep(0)
                call.cancel()
            with suppress(asyncio.CancelledError, UnavailableError):
                await call
            assert await asyncio.wait_for(read(database, f"SELECT {steps}"), 30) == [(steps,)]
        await assert_connection_is_clean(database, store)

    run_with_pool(store, 1, work)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_connection_is_clean_after_a_waiting_call_is_cancelled(store: PostgresqlStore, operation: Operation) -> None:
    """Cancel two calls: one waits for the server, and the other waits for a connection."""

    async def work(database: Database) -> None:
        running = asyncio.create_task(operation(database, *["SELECT 1", "SELECT pg_sleep(60)"]))
        active = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{store.name}' AND query = 'SELECT pg_sleep(60)'"
        await wait_until(lambda: store.execute(active))
        waiting = asyncio.create_task(operation(database, "SELECT 1"))
        await wait_until(database.queue_depth)
        waiting.cancel()
        running.cancel()
        for call in (waiting, running):
            with pytest.raises(asyncio.CancelledError):
                await call
        await assert_connection_is_clean(database, store)
        assert database.queue_depth() == 0

    run_with_pool(store, 1, work)


@pytest.mark.usefixtures("shorten_timeouts")
def test_connection_is_clean_after_a_timeout(store: PostgresqlStore) -> None:
    """A timeout closes the connection of a slow transaction; a call that waits for this connection fails earlier."""

    async def take_too_long(execute: Execute) -> None:
        await execute(INSERT, ["lost"])
        while True:
            await execute("SELECT 1", [])
            await asyncio.sleep(0.1)

    async def work(database: Database) -> None:
        running = asyncio.create_task(database.write_atomically(take_too_long))
        await wait_until(lambda: database.connection_states()["used"])
        with pytest.raises(UnavailableError):
            await read(database, "SELECT 1")
        with pytest.raises(UnavailableError):
            await running
        await assert_connection_is_clean(database, store)

    run_with_pool(store, 1, work)
