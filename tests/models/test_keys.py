"""The keys of callers: made, revoked, and looked at by every process that serves."""

import asyncio
import re
import sqlite3
from hashlib import sha256
from pathlib import Path
from time import sleep

import httpx
import pytest
import yaml

from handlers.contract import document as contract
from models.database.address import database
from models.database.errors import UnavailableError
from models.database.sqlite import SqliteFile
from models.database.statements import Rows
from models.keys import BYTES, PREFIX, KeyRing
from models.transfer.copy import TABLES
from tests.support.calls import bearer, make_key, revoke_key, wait_for
from tests.support.inside import run
from tests.support.service import Start
from tests.support.stores import Store

# For so long a process may take the keys to be what they were. A request that comes later must not, however busy the
# machine is; to measure how soon one is refused would measure the machine.
SECOND = 1


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each keeps what is promised in a way of its own."""
    return str(request.param)


def test_document_says_what_the_service_does(start: Start, store: Store, tmp_path: Path) -> None:
    """Without a key, and, without a restart, with one; readers who have the old document get the new one."""
    client = start().client
    before = {name: client.get(f"/openapi.{name}") for name in ("yaml", "json")}
    assert client.get("/api/tasks").status_code == 200
    key = make_key(store, tmp_path)
    sleep(SECOND)
    assert client.get("/api/tasks").status_code == 401

    after = {
        name: client.get(f"/openapi.{name}", headers={"If-None-Match": before[name].headers["etag"]}) for name in before
    }

    assert [yaml.safe_load(before[name].content)["security"] for name in before] == [[], []]
    assert [yaml.safe_load(after[name].content)["security"] for name in after] == [[{"ApiKey": []}]] * 2
    assert after["yaml"].text == contract.PATH.read_text()
    assert client.get("/api/tasks", headers=bearer(key)).status_code == 200


def test_revoked_key_is_refused_within_a_second_everywhere(start: Start, store: Store, tmp_path: Path) -> None:
    """On both workers of one node, and on another node; and without keys that are valid the service does not open."""
    keys = [make_key(store, tmp_path, name) for name in ("old", "new")]
    nodes = [start("--workers", "2"), start()]
    # Each connection stays with the worker that it came to.
    clients = [httpx.Client(base_url=node.url) for node in nodes for _ in range(8)]
    for client in clients:
        assert client.get("/api/tasks", headers=bearer(keys[0])).status_code == 200

    revoke_key(store, tmp_path, "old")
    sleep(SECOND)
    refusals = [client.get("/api/tasks", headers=bearer(keys[0])).status_code for client in clients]
    answers = [client.get("/api/tasks", headers=bearer(keys[1])).status_code for client in clients]
    revoke_key(store, tmp_path, "new")
    sleep(SECOND)
    for client in clients:
        assert client.get("/api/tasks", headers=bearer(keys[1])).status_code == 401
        client.close()

    assert set(refusals) == {401}
    assert set(answers) == {200}
    assert {node.client.get("/api/tasks").status_code for node in nodes} == {401}
    assert start().client.get("/api/tasks").status_code == 401


def test_key_that_may_have_been_revoked_is_not_let_in(start: Start, store: Store, tmp_path: Path) -> None:
    """With the database out of reach nobody can tell, and the documents stay what they were."""
    key = make_key(store, tmp_path)
    client = start().client
    assert client.get("/api/tasks", headers=bearer(key)).status_code == 200
    store.lose()

    # With it and without.
    wait_for(client, 503, headers=bearer(key))
    wait_for(client, 503)
    assert client.get("/nowhere").status_code == 503
    assert client.get("/openapi.json").json()["security"] == [{"ApiKey": []}]

    store.find_again()
    wait_for(client, 200, headers=bearer(key))


def test_key_is_long_and_shown_once(store: Store, tmp_path: Path) -> None:
    made = run(tmp_path, "key", "new", "app", variables={"DATABASE_URL": store.url})
    key = made.stdout.strip()
    listed = run(tmp_path, "key", "list", variables={"DATABASE_URL": store.url})

    assert BYTES * 8 == 256
    assert re.fullmatch(PREFIX + "[A-Za-z0-9_-]{43}", key)
    assert made.stderr == "Send it in the header Authorization: Bearer ...; it is not shown again.\n"
    assert re.fullmatch(r"app  made \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\n", listed.stdout)
    ((name, kept, revoked),) = store.execute("SELECT name, hash, revoked_at FROM api_key")
    assert (name, len(bytes(kept)), revoked) == ("app", 32, None)
    assert key.encode() not in bytes(kept) and key.removeprefix(PREFIX).encode() not in bytes(kept)
    assert make_key(store, tmp_path, "other") != key


def test_name_is_given_again_once_its_key_was_revoked(store: Store, tmp_path: Path, start: Start) -> None:
    old = make_key(store, tmp_path)
    again = run(tmp_path, "key", "new", "app", variables={"DATABASE_URL": store.url})
    revoke_key(store, tmp_path)
    listed = run(tmp_path, "key", "list", variables={"DATABASE_URL": store.url}).stdout
    new = make_key(store, tmp_path)

    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "There is a key app: revoke it first, or choose another name.\n"
    assert re.fullmatch(r"app  made \S+Z, revoked \S+Z\n", listed)
    client = start().client
    assert [client.get("/api/tasks", headers=bearer(key)).status_code for key in (old, new)] == [401, 200]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("revoke", "app"), "There is no key app to revoke: tasks-api key list shows all."),
        (("new", "a b"), "Name a key with 1 to 64 letters, digits, dots, underscores and hyphens."),
        (("new", "a" * 65), "Name a key with 1 to 64 letters, digits, dots, underscores and hyphens."),
    ],
)
def test_command_says_what_is_wrong(store: Store, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    ended = run(tmp_path, "key", *arguments, variables={"DATABASE_URL": store.url})

    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{sentence}\n")


def test_command_says_what_it_takes(tmp_path: Path) -> None:
    assert "{new,list,revoke}" in run(tmp_path, "key").stdout


def test_first_key_may_be_made_before_the_service_was_started(tmp_path: Path) -> None:
    assert run(tmp_path, "key", "new", "app").returncode == 0

    with sqlite3.connect(tmp_path / "tasks.db") as connection:
        assert connection.execute("SELECT name FROM api_key").fetchall() == [("app",)]


def test_keys_move_to_a_server() -> None:
    """tests/models/transfer/test_copy.py compares every table; that of the keys is among them."""
    assert "api_key" in {table._meta.table_name for table in TABLES}


def test_keys_of_idempotency_belong_to_the_key(start: Start, store: Store, tmp_path: Path) -> None:
    """However the credentials are written, and after the key was made anew, but not for another one."""
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


class Keys(SqliteFile):
    """A table of keys that a test sets: the name, the key and the time of revocation of each."""

    def __init__(self) -> None:
        super().__init__(Path("never-opened.db"))
        self.rows: list[tuple[str, bytes, str | None]] = []

    async def read(self, *_: object) -> Rows:
        return [(name, sha256(key).digest(), revoked) for name, key, revoked in self.rows]


def test_ring_that_had_keys_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they were revoked before the service started or since, and also if the table was emptied."""
    table = Keys()
    monkeypatch.setattr(database, "obj", table)

    def refreshed(ring: KeyRing, *rows: tuple[str, bytes, str | None]) -> KeyRing:
        table.rows = [*rows]
        ring.fresh_until = -1.0
        asyncio.run(ring.refresh())
        return ring

    valid, revoked = ("app", b"key", None), ("app", b"key", "2026-01-01T00:00:00.000Z")
    assert KeyRing().required
    assert not refreshed(KeyRing()).required
    for histories in ([valid], [revoked], [valid, revoked], [revoked, valid], [valid, None], [revoked, None]):
        ring = refreshed(KeyRing())
        for row in histories:
            refreshed(ring, *([row] if row else []))
            assert ring.required
            assert ring.name_of(b"key") == ("app" if row is valid else None)
    both = refreshed(KeyRing(), ("old", b"old", revoked[2]), valid)
    assert (both.required, both.name_of(b"key"), both.name_of(b"old")) == (True, "app", None)


class SlowDatabase(SqliteFile):
    """Reads for longer than the keys are cached, and fails at some of the reads.

    Args:
        failing: The numbers of these reads, from 1.
    """

    def __init__(self, *failing: int) -> None:
        super().__init__(Path("never-opened.db"))
        self.reads = 0
        self._failing = failing

    async def read(self, *_: object) -> Rows:
        self.reads += 1
        number = self.reads
        await asyncio.sleep(0.6)
        if number in self._failing:
            raise UnavailableError("busy")
        return []


@pytest.mark.parametrize(("failing", "failed"), [((), 0), ((1,), 600)])
def test_callers_of_a_slow_refresh_get_its_result(
    monkeypatch: pytest.MonkeyPatch, failing: tuple[int, ...], failed: int
) -> None:
    """Also those that go on after others have begun the next refresh, as each request asks twice."""
    slow, ring = SlowDatabase(*failing), KeyRing()
    monkeypatch.setattr(database, "obj", slow)

    async def request() -> None:
        await ring.refresh()
        await ring.refresh()

    async def requests() -> list[BaseException | None]:
        return await asyncio.gather(*(request() for _ in range(600)), return_exceptions=True)

    errors = [error for error in asyncio.run(requests()) if error]
    assert [type(error) for error in errors] == [UnavailableError] * failed
    assert ring.required == bool(failed)
    assert slow.reads == 2 - len(failing), "callers that wait share a read"
