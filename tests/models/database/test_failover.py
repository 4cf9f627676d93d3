"""The service with a primary and a synchronous standby: no failover loses a write that the service acknowledged."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count, product
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from models import keys
from models.database.address import open_database
from models.database.migrate import migrate
from tests.support.calls import assert_is_problem, assert_unavailable, bearer, call, post, titles, wait_until
from tests.support.pooler import PgBouncer
from tests.support.replication import ReplicatedServer, replicated_servers
from tests.support.service import Service, running

pytestmark = pytest.mark.slow

# No response may take more seconds than this. The number is the sum of the timeouts for a connection and for a
# statement, doubled for a busy machine.
TIMEOUT = 10
KINDS = {("GET", "api"), ("GET", "health"), ("POST", "api"), ("PUT", "api")}
# The processes of a server that serve clients, and those whose commits wait for the standby.
CLIENTS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

Servers = tuple[ReplicatedServer, ReplicatedServer]


@contextmanager
def migrated_servers() -> Iterator[Servers]:
    with replicated_servers() as (primary, standby):
        migrate(primary.url)
        yield primary, standby


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Yield a primary and its standby, which the test may stop."""
    with migrated_servers() as servers:
        yield servers


@pytest.fixture(scope="module")
def shared_servers() -> Iterator[Servers]:
    """Yield a primary and its standby, which the tests of this module share."""
    with migrated_servers() as servers:
        yield servers


@contextmanager
def serving(folder: Path, url: str, *flags: str) -> Iterator[Service]:
    """Run a node that uses the database at a URL, and that must not log a traceback."""
    with running("postgresql", folder, *flags, variables={"DATABASE_URL": url}) as service:
        yield service
        assert "Traceback" not in service.log()


def kind(response: httpx.Response) -> tuple[str, str]:
    """Return the method and the first segment of the path of a request."""
    return response.request.method, response.url.path.split("/")[1]


def several(*servers: ReplicatedServer) -> str:
    """Return the URL of a database that is on one of these servers."""
    return f"postgresql://postgres@{','.join(server.host for server in servers)}/postgres"


class Load:
    """Clients that create tasks, change a task and read; each response is recorded with the seconds that it took."""

    def __init__(self, key: str) -> None:
        self.responses: list[tuple[httpx.Response, float]] = []
        # The title of each task according to the last response that shows it.
        self.acknowledged: dict[int, str] = {}
        # The ids of the tasks whose deletion was acknowledged.
        self.deleted: set[int] = set()
        self._key = key
        self._done = Event()
        self._deadline = monotonic() + 60
        self._clients: list[Future[None]] = []

    @contextmanager
    def run(self, urls: list[str]) -> Iterator[None]:
        """Run the clients; at the end, let them finish what they are doing, and raise their errors."""
        works = list(product([self._create, self._change, self._read], urls * 2))
        with ThreadPoolExecutor(len(works)) as pool:
            self._clients += [pool.submit(self._run, *work) for work in works]
            try:
                yield
            finally:
                self._done.set()
        for client in self._clients:
            client.result()

    def wait_for(self, *statuses: int) -> None:
        """Wait until a request of each kind gets one of these statuses."""
        before = len(self.responses)
        while KINDS - {kind(response) for response, _ in self.responses[before:] if response.status_code in statuses}:
            assert monotonic() < self._deadline, [(kind(response), response) for response, _ in self.responses[before:]]
            assert not [client.result() for client in self._clients if client.done()]
            sleep(0.01)

    def _run(self, work: Callable[[httpx.Client, str], None], url: str) -> None:
        with httpx.Client(base_url=url, headers=bearer(self._key), timeout=30) as client:
            for number in count():
                if self._done.wait(0.03):
                    return
                work(client, f"{id(client)}-{number}")

    def _create(self, client: httpx.Client, title: str) -> None:
        created = self._send(client, "POST", "/api/tasks", f"{title}-without-idempotency-key")
        if created.status_code == 201:
            id = created.json()["id"]
            del self.acknowledged[id]
            if self._send(client, "DELETE", created.headers["location"]).status_code == 200:
                self.deleted.add(id)
        self._repeat(client, "POST", "/api/tasks", title, {"Idempotency-Key": title})

    def _change(self, client: httpx.Client, title: str) -> None:
        task = self._repeat(client, "POST", "/api/tasks", f"{title}-new", {"Idempotency-Key": title})
        path = task.headers["location"]
        for number in range(10):
            changed = self._repeat(client, "PUT", path, f"{title}-{number}", {"If-Match": task.headers["etag"]})
            if changed.status_code == 412:
                # The service has made this change, but answered 503.
                changed = self._repeat(client, "GET", path)
                assert changed.json()["title"] == f"{title}-{number}"
            task = changed

    def _read(self, client: httpx.Client, _: str) -> None:
        self._send(client, "GET", "/api/tasks?limit=1")
        self._send(client, "GET", "/health/ready")
        assert client.get("/api/tasks", headers=bearer("wrong")).status_code in (401, 503)

    def _repeat(self, client: httpx.Client, *request: Any) -> httpx.Response:
        while (response := self._send(client, *request)).status_code == 503:
            assert monotonic() < self._deadline
            sleep(0.05)
        return response

    def _send(
        self, client: httpx.Client, method: str, path: str, title: str = "", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        called = monotonic()
        response = client.request(method, path, json={"title": title} if title else None, headers=headers)
        self.responses.append((response, monotonic() - called))
        if response.is_success and isinstance(task := response.json(), dict) and "id" in task:
            assert method != "POST" or task["id"] not in self.acknowledged.keys() | self.deleted
            self.acknowledged[task["id"]] = task["title"]
        return response


@pytest.mark.parametrize("end", [ReplicatedServer.kill, ReplicatedServer.stop])
def test_failover_under_load(servers: Servers, tmp_path: Path, end: Callable[[ReplicatedServer], None]) -> None:
    """Two nodes, one of them with two workers, follow a failover or a switchover by themselves."""
    old, new = servers
    load = Load(keys.create(old.url, "app", ""))
    with (
        serving(tmp_path, several(old, new), "--workers", "2") as first,
        serving(tmp_path, several(new, old)) as second,
        load.run([first.url, second.url]),
    ):
        load.wait_for(200, 201)
        end(old)
        load.wait_for(503)
        new.promote()
        load.wait_for(200, 201)

        # The old primary becomes the standby. The first node also finds it first.
        old.copy(new)
        old.start()
        new.wait_for_standby(True)
        new.execute(f"SELECT pg_terminate_backend(pid) {CLIENTS}")
        load.wait_for(200, 201)

    tasks = new.execute("SELECT id, title FROM task")
    assert load.acknowledged.items() <= set(tasks)
    assert not load.deleted & {id for id, _ in tasks}
    # No repeated request has created a second task.
    assert len({title for _, title in tasks}) == len(tasks)
    for response, seconds in load.responses:
        assert seconds < TIMEOUT
        assert response.status_code in (200, 201, 412, 503)
        if response.status_code in (412, 503):
            assert_is_problem(response.status_code, response)


@pytest.mark.parametrize("has_pooler", [False, True])
@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
def test_commit_that_does_not_wait_for_the_standby(
    shared_servers: Servers, tmp_path: Path, function: str, has_pooler: bool
) -> None:
    """The write is only on the primary, so a failover would lose it: it is acknowledged once the standby has it."""
    primary, standby = shared_servers
    title = f"{function} {has_pooler}"
    with ExitStack() as stack:
        url = primary.url
        if has_pooler:
            pooler = PgBouncer(tmp_path, url)
            stack.callback(pooler.kill)
            url = pooler.url
        service = stack.enter_context(serving(tmp_path, url))
        pool = stack.enter_context(ThreadPoolExecutor())

        def create() -> httpx.Response:
            return post(service.client, title, {"title": title})

        with standby.suspended():
            first = pool.submit(create)
            wait_until(lambda: bool(primary.execute(f"SELECT {function}(pid) {WAITING}")) or first.done())
            assert_unavailable(first.result())
            assert titles(service.client).count(title) == 1
            repeated = pool.submit(create)
            wait_until(lambda: bool(primary.execute(f"SELECT 1 {WAITING}")) or repeated.done())
            assert not repeated.done()
        assert repeated.result().status_code == 201
        assert repeated.result().headers["idempotency-replayed"] == "true"
        assert titles(service.client).count(title) == 1


def test_standby_that_hangs_for_a_while(shared_servers: Servers, tmp_path: Path) -> None:
    """No write is acknowledged meanwhile, and nobody sees one."""
    primary, standby = shared_servers
    with serving(tmp_path, several(primary, standby)) as service:
        with standby.suspended():
            assert_unavailable(call(service.client, "POST", "/api/tasks"))
            assert "no result within 3 seconds; " in service.log()
            assert "a" not in titles(service.client)

        wait_until(lambda: "a" in titles(service.client))


@pytest.mark.parametrize(
    ("url", "is_standby"),
    [
        ("postgresql://postgres@{standby},{primary}/postgres", False),
        ("postgresql://postgres@/postgres?host={standby},{primary}", False),
        ("postgresql://postgres@{standby},{primary}/postgres?target_session_attrs=any", True),
        ("postgresql://postgres@{standby}/postgres", True),
    ],
)
def test_primary_is_found_wherever_it_is_in_the_url(shared_servers: Servers, url: str, is_standby: bool) -> None:
    primary, standby = shared_servers
    database = open_database(url.format(primary=primary.host, standby=standby.host))

    async def read() -> list[tuple[bool]]:
        await database.start()
        try:
            return await database.read("SELECT pg_is_in_recovery()", [])
        finally:
            await database.shut_down()

    assert asyncio.run(read()) == [(is_standby,)]
