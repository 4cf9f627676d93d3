"""API keys: their creation and revocation, and the checks in every serving process."""

import asyncio
import re
import sqlite3
from hashlib import sha256
from pathlib import Path
from time import sleep

import httpx
import pytest
import yaml

from handlers.contract import document
from handlers.contract.document import NAME
from models import keys
from models.database.errors import UnavailableError
from models.database.sqlite import SqliteFile
from models.database.statements import Rows
from models.keys import BYTES, KeyCache
from tests.support.calls import bearer, make_key, revoke_key, wait_for
from tests.support.inside import run
from tests.support.service import Start
from tests.support.stores import Store

# Processes cache the API keys for this many seconds. A request after that time must see a changed key, however busy the
# machine is. An earlier request may see the change or not, depending on the machine, and is not tested.
CACHE_TTL = 1


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each implements these guarantees in its own way."""
    return str(request.param)


def test_published_document_says_whether_a_key_is_required(start: Start, store: Store, tmp_path: Path) -> None:
    """The first API key changes the published document and its entity tag, without a restart of the service."""
    service = start()
    client = service.client
    before = {name: client.get(f"/openapi.{name}") for name in ("yaml", "json")}
    assert client.get("/api/tasks").status_code == 200
    key = make_key(store, tmp_path)
    sleep(CACHE_TTL)
    assert client.get("/api/tasks").status_code == 401

    after = {
        name: client.get(f"/openapi.{name}", headers={"If-None-Match": before[name].headers["etag"]}) for name in before
    }

    assert [yaml.safe_load(before[name].content)["security"] for name in before] == [[], []]
    assert [yaml.safe_load(after[name].content)["security"] for name in after] == [[{"ApiKey": []}]] * 2
    assert after["yaml"].text.replace(f'"{service.url}"', "/").encode() == document.to_yaml(document.raw())
    assert client.get("/api/tasks", headers=bearer(key)).status_code == 200


def test_revoked_key_is_refused_within_a_second_everywhere(start: Start, store: Store, tmp_path: Path) -> None:
    """The test covers both workers of one node, and a second node; both stay closed after all keys are revoked."""
    keys = [make_key(store, tmp_path, name) for name in ("old", "new")]
    nodes = [start("--workers", "2"), start()]
    # Use several clients, because each connection stays with one worker.
    clients = [httpx.Client(base_url=node.url) for node in nodes for _ in range(8)]
    for client in clients:
        assert client.get("/api/tasks", headers=bearer(keys[0])).status_code == 200

    revoke_key(store, tmp_path, "old")
    sleep(CACHE_TTL)
    old_statuses = [client.get("/api/tasks", headers=bearer(keys[0])).status_code for client in clients]
    new_statuses = [client.get("/api/tasks", headers=bearer(keys[1])).status_code for client in clients]
    revoke_key(store, tmp_path, "new")
    sleep(CACHE_TTL)
    for client in clients:
        assert client.get("/api/tasks", headers=bearer(keys[1])).status_code == 401
        client.close()

    assert set(old_statuses) == {401}
    assert set(new_statuses) == {200}
    assert {node.client.get("/api/tasks").status_code for node in nodes} == {401}
    assert start().client.get("/api/tasks").status_code == 401


def test_requests_get_503_while_keys_cannot_be_checked(start: Start, store: Store, tmp_path: Path) -> None:
    """The service fails closed, since the key may have been revoked; the published document does not change."""
    key = make_key(store, tmp_path)
    client = start().client
    assert client.get("/api/tasks", headers=bearer(key)).status_code == 200
    store.make_unreachable()

    # Requests with a key and requests without a key both get 503.
    wait_for(client, 503, headers=bearer(key))
    wait_for(client, 503)
    assert client.get("/nowhere").status_code == 503
    assert client.get("/openapi.json").json()["security"] == [{"ApiKey": []}]

    store.make_reachable()
    wait_for(client, 200, headers=bearer(key))


def test_key_is_long_and_shown_once(store: Store, tmp_path: Path) -> None:
    created = run(tmp_path, "key", "new", "app", variables={"DATABASE_URL": store.url})
    key = created.stdout.strip()
    listed = run(tmp_path, "key", "list", variables={"DATABASE_URL": store.url})

    assert BYTES * 8 == 256
    assert re.fullmatch(NAME + "_[A-Za-z0-9_-]{43}", key)
    assert created.stderr == "Send it in the header Authorization: Bearer ...; it is not shown again.\n"
    assert re.fullmatch(r"app  created \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\n", listed.stdout)
    ((name, stored, revoked),) = store.execute("SELECT name, hash, revoked_at FROM api_key")
    assert (name, len(bytes(stored)), revoked) == ("app", 32, None)
    assert key.encode() not in bytes(stored) and key.removeprefix(f"{NAME}_").encode() not in bytes(stored)
    assert make_key(store, tmp_path, "other") != key


def test_name_can_be_reused_after_its_key_is_revoked(store: Store, tmp_path: Path, start: Start) -> None:
    old = make_key(store, tmp_path)
    again = run(tmp_path, "key", "new", "app", variables={"DATABASE_URL": store.url})
    revoke_key(store, tmp_path)
    listed = run(tmp_path, "key", "list", variables={"DATABASE_URL": store.url}).stdout
    new = make_key(store, tmp_path)

    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "The key app exists already: revoke it first, or choose another name.\n"
    assert re.fullmatch(r"app  created \S+Z, revoked \S+Z\n", listed)
    client = start().client
    assert [client.get("/api/tasks", headers=bearer(key)).status_code for key in (old, new)] == [401, 200]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("revoke", "app"), "No valid key has the name app: the command key list shows all keys."),
        (("new", "a b"), "A key's name has 1 to 64 letters, digits, dots, underscores and hyphens."),
        (("new", "a" * 65), "A key's name has 1 to 64 letters, digits, dots, underscores and hyphens."),
    ],
)
def test_command_explains_the_error(store: Store, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    make_key(store, tmp_path, "other")

    ended = run(tmp_path, "key", *arguments, variables={"DATABASE_URL": store.url})

    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{sentence}\n")


@pytest.mark.parametrize("arguments", [("list",), ("revoke", "app")])
def test_mistyped_database_is_not_created(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = run(tmp_path, "key", *arguments, "--database-url", "sqlite:///typo.db")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "There is no file typo.db: name an existing database in DATABASE_URL.\n"
    assert not (tmp_path / "typo.db").exists()


def test_empty_list_of_keys_is_explained(store: Store, tmp_path: Path) -> None:
    run(tmp_path, "migrate", variables={"DATABASE_URL": store.url})

    listed = run(tmp_path, "key", "list", variables={"DATABASE_URL": store.url})

    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", "There are no keys.\n")


def test_command_lists_its_subcommands(tmp_path: Path) -> None:
    assert "{new,list,revoke}" in run(tmp_path, "key").stdout


def test_first_key_can_be_created_before_the_first_start(tmp_path: Path) -> None:
    assert run(tmp_path, "key", "new", "app").returncode == 0

    with sqlite3.connect(tmp_path / "tasks.db") as connection:
        assert connection.execute("SELECT name FROM api_key").fetchall() == [("app",)]


def test_idempotency_keys_belong_to_one_api_key(start: Start, store: Store, tmp_path: Path) -> None:
    """An idempotency key stays valid when its API key is renewed under the same name, but not for other API keys."""
    first, other = make_key(store, tmp_path, "first"), make_key(store, tmp_path, "other")
    client = start().client

    def post(authorization: str) -> str:
        headers = {"Authorization": authorization, "Idempotency-Key": "once"}
        return client.post("/api/tasks", json={"title": "a"}, headers=headers).headers["location"]

    assert post(f"Bearer {first}") == post(f"bearer  {first}") == "/api/tasks/1"
    assert post(f"Bearer {other}") == "/api/tasks/2"
    revoke_key(store, tmp_path, "first")
    renewed = make_key(store, tmp_path, "first")
    wait_for(client, 200, headers=bearer(renewed))
    assert post(f"Bearer {renewed}") == "/api/tasks/1"


class FakeKeyTable(SqliteFile):
    """A fake database whose rows the test sets: the name, key and revocation time of each API key."""

    def __init__(self) -> None:
        super().__init__(Path("never-opened.db"))
        self.rows: list[tuple[str, bytes, str | None]] = []

    async def read(self, *_: object) -> Rows:
        return [(name, sha256(key).digest(), revoked) for name, key, revoked in self.rows]


def test_service_that_had_keys_stays_closed() -> None:
    """The service stays closed if its keys are revoked before or after its start, or if the table is emptied."""
    table = FakeKeyTable()

    def refreshed(cache: KeyCache, *rows: tuple[str, bytes, str | None]) -> KeyCache:
        table.rows = [*rows]
        asyncio.run(cache.refresh())
        return cache

    valid, revoked = ("app", b"key", None), ("app", b"key", "2026-01-01T00:00:00.000Z")
    assert KeyCache(table).required
    assert not refreshed(KeyCache(table)).required
    for rows in ([valid], [revoked], [valid, revoked], [revoked, valid], [valid, None], [revoked, None]):
        cache = refreshed(KeyCache(table))
        for row in rows:
            refreshed(cache, *([row] if row else []))
            assert cache.required
            assert cache.name_of(b"key") == ("app" if row is valid else None)
    both = refreshed(KeyCache(table), ("old", b"old", revoked[2]), valid)
    assert (both.required, both.name_of(b"key"), both.name_of(b"old")) == (True, "app", None)


class SlowDatabase(SqliteFile):
    """A fake database whose reads take longer than the cache TTL; some of the reads fail.

    Args:
        failing: The numbers of the reads that fail, counted from 1.
    """

    def __init__(self, *failing: int) -> None:
        super().__init__(Path("never-opened.db"))
        self.reads = 0
        self._failing = failing

    async def read(self, *_: object) -> Rows:
        self.reads += 1
        number = self.reads
        await asyncio.sleep(1)
        if number in self._failing:
            raise UnavailableError("busy")
        return []


@pytest.mark.parametrize(("failing", "failed"), [((), 0), ((1,), 600)])
def test_waiting_requests_share_a_slow_refresh(failing: tuple[int, ...], failed: int) -> None:
    """Each request waits for two refreshes, because the cache is stale again after a slow refresh."""
    slow = SlowDatabase(*failing)
    cache = KeyCache(slow)

    async def request() -> None:
        await cache.ensure_fresh()
        await cache.ensure_fresh()

    async def requests() -> list[BaseException | None]:
        refreshes = asyncio.create_task(cache.refresh_forever())
        results = await asyncio.gather(*(request() for _ in range(600)), return_exceptions=True)
        refreshes.cancel()
        return results

    errors = [error for error in asyncio.run(requests()) if error]
    assert [type(error) for error in errors] == [UnavailableError] * failed
    assert cache.required == bool(failed)
    assert slow.reads == 2 - len(failing), "waiting requests must share a read"


def test_request_does_not_wait_forever_for_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "TIMEOUT", 0.01)

    with pytest.raises(UnavailableError, match="takes too long"):
        asyncio.run(KeyCache(SlowDatabase()).ensure_fresh())


def test_service_recovers_with_its_database(start: Start, store: Store) -> None:
    """The first request after an outage refreshes the cache of the API keys."""
    client = start().client
    assert client.get("/api/tasks").status_code == 200
    store.make_unreachable()
    wait_for(client, 503, path="/nowhere")
    store.make_reachable()

    assert client.get("/nowhere").status_code == 404
