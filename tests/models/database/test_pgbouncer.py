"""The service and its commands behind PgBouncer: what other clients of the pool see, and how they recover."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import psycopg
import pytest

from models.database.address import open_database
from models.database.errors import UnavailableError
from models.database.postgresql import POOLER_CANNOT_PREPARE
from tests.support.calls import CALLS, assert_unavailable, call, make_key, post, titles, wait_for, wait_until
from tests.support.pooler import PgBouncer
from tests.support.service import Start, run
from tests.support.stores import PostgresqlStore

pytestmark = pytest.mark.slow

POOL_SIZE = 2
SETTINGS = "SELECT name, setting FROM pg_settings WHERE source IN ('client', 'session') AND name != 'application_name'"

# The prepared statements that PgBouncer passed on without account.
UNKNOWN_STATEMENTS = "SELECT name FROM pg_prepared_statements WHERE name NOT LIKE 'PGBOUNCER%'"


@pytest.fixture(scope="module")
def backend() -> str:
    """Return PostgreSQL, to which each test adds its own PgBouncer."""
    return "postgresql"


@pytest.fixture
def pooler(store: PostgresqlStore, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PgBouncer]:
    """Yield a PgBouncer for the store, with further settings as the test's parameters."""
    pooler = PgBouncer(tmp_path, store.url, **({"default_pool_size": POOL_SIZE} | getattr(request, "param", {})))
    store.url = pooler.url
    yield pooler
    pooler.kill()


def assert_sessions_are_unchanged(store: PostgresqlStore) -> None:
    """Assert that all sessions of PgBouncer are like new connections, but for statements that it has prepared."""
    with psycopg.connect(store.direct_url) as connection:
        expected = connection.execute(SETTINGS).fetchall()
    with ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(store.url)) for _ in range(POOL_SIZE)]
        # Each connection is in a transaction, so each has a session of its own.
        for connection in connections:
            assert connection.execute(SETTINGS).fetchall() == expected
            assert connection.execute(UNKNOWN_STATEMENTS).fetchall() == []


@pytest.mark.usefixtures("pooler")
def test_settings_do_not_leak_to_other_clients(start: Start, store: PostgresqlStore, tmp_path: Path) -> None:
    clients = [start().client for _ in range(2)]
    post(clients[0], "key")
    with ThreadPoolExecutor(8) as pool:
        requests = [(client, method, path) for client in clients for method, path, _ in CALLS * 8]
        statuses = {response.status_code for response in pool.map(lambda request: call(*request), requests)}
    make_key(store, tmp_path)

    assert statuses <= {200, 201, 204, 404}
    assert_sessions_are_unchanged(store)


def test_commands(postgresql_url: str, tmp_path: Path) -> None:
    """Two nodes may migrate at once, and a file can be copied."""
    file = {"DATABASE_URL": "sqlite:///tasks.db"}
    assert run(tmp_path, "migrate", variables=file).returncode == 0
    with closing(PostgresqlStore(postgresql_url, None)) as store, ThreadPoolExecutor() as pool:
        pooler = PgBouncer(tmp_path, store.url, default_pool_size=POOL_SIZE)
        try:
            store.url = pooler.url
            migrate = [pool.submit(run, tmp_path, "migrate", variables={"DATABASE_URL": pooler.url}) for _ in range(2)]
            assert [migration.result().stderr for migration in migrate] == ["", ""]
            assert_sessions_are_unchanged(store)
            copied = run(tmp_path, "copy", "--from", file["DATABASE_URL"], "--to", pooler.url)
            assert copied.returncode == 0, copied.stderr
            assert_sessions_are_unchanged(store)
        finally:
            pooler.kill()


@pytest.mark.usefixtures("pooler")
@pytest.mark.parametrize(
    "pooler", [{"max_prepared_statements": 0}, {"pool_mode": "session", "default_pool_size": 30}], indirect=True
)
def test_pooler_without_prepared_statements(start: Start, store: PostgresqlStore) -> None:
    """Like PgBouncer before 1.21, it passes on their names, and two clients may use one name."""
    services = [start() for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        requests = [(service.client, method, path) for service in services for method, path, _ in CALLS * 8]
        statuses = {response.status_code for response in pool.map(lambda request: call(*request), requests)}

    assert statuses <= {200, 201, 204, 404}
    assert_sessions_are_unchanged(store)
    # Both services write to this file.
    assert services[0].log() == f"WARNING:  {POOLER_CANNOT_PREPARE}\n" * 2


@pytest.mark.usefixtures("pooler")
@pytest.mark.parametrize("pooler", [{"max_prepared_statements": 0, "default_pool_size": 1}], indirect=True)
def test_prepared_statement_of_another_client(store: PostgresqlStore, caplog: pytest.LogCaptureFixture) -> None:
    """It remains in the session, and has the name that psycopg gives to its first statement."""
    with psycopg.connect(store.url, prepare_threshold=0) as other:
        other.execute("SELECT 1")
    database = open_database(store.url)

    async def read() -> Any:
        await database.start()
        try:
            return await database.read("SELECT 2", [])
        finally:
            await database.shut_down()

    assert asyncio.run(read()) == [(2,)]
    assert caplog.messages == [POOLER_CANNOT_PREPARE]


@pytest.mark.usefixtures("pooler")
def test_lost_prepared_statements(store: PostgresqlStore, caplog: pytest.LogCaptureFixture) -> None:
    """For example, PgBouncer 1.21 does not know that a client's DEALLOCATE ALL removes those of other clients."""
    database = open_database(store.url, POOL_SIZE)

    async def lose_statements() -> None:
        await database.start()
        try:
            await asyncio.gather(*[database.read("SELECT pg_sleep(0.1)", []) for _ in range(POOL_SIZE)])
            with ExitStack() as stack:
                connections = [stack.enter_context(psycopg.connect(store.url)) for _ in range(POOL_SIZE)]
                for connection in connections:
                    for (name,) in connection.execute("SELECT name FROM pg_prepared_statements").fetchall():
                        connection.execute(f'DEALLOCATE "{name}"')
            for _ in range(POOL_SIZE):
                with pytest.raises(UnavailableError, match="does not exist"):
                    await database.read("SELECT 1", [])
            assert await database.read("SELECT 1", []) == [(1,)]
        finally:
            await database.shut_down()

    asyncio.run(lose_statements())

    assert caplog.messages.count(POOLER_CANNOT_PREPARE) == 1


@pytest.mark.parametrize("pooler", [{"server_login_retry": 1}], indirect=True)
def test_pooler_or_server_is_restarted_under_load(start: Start, store: PostgresqlStore, pooler: PgBouncer) -> None:
    services = [start() for _ in range(2)]
    responses: list[tuple[str, httpx.Response]] = []
    done = Event()

    def create(number: int) -> None:
        client = services[number % 2].client
        while not done.wait(0.02):
            title = f"{number}.{len(responses)}"
            responses.append((title, client.post("/api/tasks", json={"title": title})))

    def wait_for_next(status: int) -> None:
        before = len(responses)
        wait_until(lambda: status in {response.status_code for _, response in responses[before:]})

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(create, number) for number in range(4)]
        try:
            wait_for_next(201)
            pooler.kill()
            wait_for_next(503)
            pooler.start()
            wait_for_next(201)
            store.make_unreachable()
            wait_for_next(503)
            store.make_reachable()
            wait_for_next(201)
        finally:
            done.set()
    for client in clients:
        client.result()

    # The other service may have recovered earlier.
    wait_for(services[0].client, 200)
    acknowledged = {title for title, response in responses if response.status_code == 201}
    assert acknowledged <= set(titles(services[0].client))
    for _, response in responses:
        if response.status_code != 201:
            assert_unavailable(response)
    assert "Traceback" not in services[0].log()
