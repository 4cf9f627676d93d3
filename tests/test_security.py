"""Keys: who has one is let in, and nobody else, as soon as there is one."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import httpx
import pytest
import yaml

from handlers import contract
from models.copy import TABLES
from models.keys import BYTES, PREFIX
from tests import wire
from tests.conftest import UNMEASURED, Service, Start, opened, run, running
from tests.stores import Store
from tests.test_contract_testing import calls, finish
from tests.test_contract_testing import make as command
from tests.test_problems import assert_is_problem

CALLS = [
    ("GET", "/api/tasks"),
    ("HEAD", "/api/tasks"),
    ("POST", "/api/tasks"),
    ("GET", "/api/tasks/1"),
    ("PUT", "/api/tasks/1"),
    ("DELETE", "/api/tasks/1"),
    # What leads to no operation.
    ("OPTIONS", "/api/tasks"),
    ("PATCH", "/api/tasks/1"),
    ("GET", "/api/tasks/a%2Fb"),
    ("GET", "/api"),
    ("GET", "/nowhere"),
    ("GET", "/docsnot"),
    ("GET", "/health"),
    ("GET", "/health/liver"),
    ("GET", "/openapi.yaml/"),
]
OPEN = ["/docs", "/docs/assets/theme.css", "/docs/contract/checks.py", "/openapi.yaml", "/openapi.json", "/health/live"]


def make(store: Store, folder: Path, name: str = "app") -> str:
    """Make a key with the command, and return it."""
    made = run(folder, "key", "new", name, variables={"DATABASE_URL": store.url})
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def revoke(store: Store, folder: Path, name: str = "app") -> None:
    """Revoke a key with the command."""
    assert run(folder, "key", "revoke", name, variables={"DATABASE_URL": store.url}).returncode == 0


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def wait_for(client: httpx.Client, status: int, path: str = "/api/tasks", **options: object) -> float:
    """Ask until the answer has a status, and return how many seconds that took."""
    start = monotonic()
    while client.get(path, **options).status_code != status:  # type: ignore[arg-type]
        assert monotonic() - start < 30
    return monotonic() - start


@pytest.fixture(scope="module")
def closed(
    backend: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Service, str]]:
    """A service with a key, and the key."""
    folder = tmp_path_factory.mktemp("closed")
    with opened(backend, folder, request) as store:
        key = make(store, folder)
        with running(backend, folder, variables={"DATABASE_URL": store.url}) as service:
            yield service, key


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_nothing_is_answered_without_a_key(closed: tuple[Service, str], method: str, path: str) -> None:
    service, key = closed
    body = {"json": {"title": "a"}} if method in ("POST", "PUT") else {}

    refused = service.client.request(method, path, **body)  # type: ignore[arg-type]
    let_in = service.client.request(method, path, headers=bearer(key), **body)  # type: ignore[arg-type]

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="tasks"'
    if method != "HEAD":
        assert_is_problem(401, refused)
    assert let_in.status_code != 401


def test_nothing_is_done_without_a_key(closed: tuple[Service, str]) -> None:
    service, key = closed
    task = service.client.post("/api/tasks", json={"title": "Kept"}, headers=bearer(key))
    before = service.client.get("/api/tasks", headers=bearer(key)).content

    for method, path in (
        ("POST", "/api/tasks"),
        ("PUT", task.headers["location"]),
        ("DELETE", task.headers["location"]),
    ):
        assert service.client.request(method, path, json={"title": "Not to be"}).status_code == 401

    assert service.client.get("/api/tasks", headers=bearer(key)).content == before


@pytest.mark.parametrize("path", OPEN)
def test_documentation_and_health_need_no_key(closed: tuple[Service, str], path: str) -> None:
    service, _ = closed

    assert service.client.get(path).status_code == 200
    assert service.client.head(path).status_code == 200


def test_refusal_does_not_say_what_was_wrong(closed: tuple[Service, str]) -> None:
    """Neither to a caller who has a part of a key, nor to one who has none."""
    service, key = closed
    credentials = [
        "",
        "Bearer",
        f"Bearer {key[:-1]}",
        f"Bearer {key}x",
        f"Bearer {key} {key}",
        f"Bearer {key.upper()}",
        f"Basic {key}",
        f"Token {key}",
        key,
        f"Bearer{key}",
        f"Bearer\t{key}",
        "Bearer " + "\xff" * 60,
        f'Bearer "{key}"',
        f"Bearer {PREFIX}{'A' * 43}",
    ]
    answers = [service.client.get("/api/tasks")]
    for given in credentials:
        answers.append(service.client.get("/api/tasks", headers=[(b"Authorization", given.encode("latin-1"))]))

    said = {
        (
            answer.status_code,
            answer.content,
            tuple(h for h in answer.headers.items() if h[0] not in ("date", "x-request-id")),
        )
        for answer in answers
    }
    assert len(said) == 1
    assert answers[0].status_code == 401


@pytest.mark.parametrize("given", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}"])
def test_scheme_is_written_in_any_case(closed: tuple[Service, str], given: str) -> None:
    service, key = closed

    assert service.client.get("/api/tasks", headers={"Authorization": given.format(key)}).status_code == 200


def test_two_credentials_are_none(closed: tuple[Service, str]) -> None:
    service, key = closed
    request = f"GET /api/tasks HTTP/1.1\r\nHost: a\r\n{{}}Authorization: Bearer {key}\r\n\r\n"

    (once,) = wire.exchange(service.url, request.format("").encode())
    (twice,) = wire.exchange(service.url, request.format("Authorization: Bearer x\r\n").encode())

    assert (once.status, twice.status) == (200, 401)


def test_document_says_what_the_service_does(start: Start, store: Store, tmp_path: Path) -> None:
    """Without a key, and, without a restart, with one; readers who have the old document get the new one."""
    client = start().client
    before = {name: client.get(f"/openapi.{name}") for name in ("yaml", "json")}
    assert client.get("/api/tasks").status_code == 200
    key = make(store, tmp_path)
    assert wait_for(client, 401) < 1

    after = {
        name: client.get(f"/openapi.{name}", headers={"If-None-Match": before[name].headers["etag"]}) for name in before
    }

    assert [yaml.safe_load(before[name].content)["security"] for name in before] == [[], []]
    assert [yaml.safe_load(after[name].content)["security"] for name in after] == [[{"ApiKey": []}]] * 2
    assert after["yaml"].text == contract.PATH.read_text()
    assert client.get("/api/tasks", headers=bearer(key)).status_code == 200


def test_revoked_key_is_refused_within_a_second_everywhere(start: Start, store: Store, tmp_path: Path) -> None:
    """On both workers of one node, and on another node; and without keys that are valid the service does not open."""
    keys = [make(store, tmp_path, name) for name in ("old", "new")]
    nodes = [start("--workers", "2", variables=UNMEASURED), start(variables=UNMEASURED)]
    # Each connection stays with the worker that it came to.
    clients = [httpx.Client(base_url=node.url) for node in nodes for _ in range(8)]
    for client in clients:
        assert client.get("/api/tasks", headers=bearer(keys[0])).status_code == 200

    revoke(store, tmp_path, "old")
    revoked = monotonic()
    for client in clients:
        wait_for(client, 401, headers=bearer(keys[0]))
    waited = monotonic() - revoked
    answers = [client.get("/api/tasks", headers=bearer(keys[1])).status_code for client in clients]
    revoke(store, tmp_path, "new")
    for client in clients:
        wait_for(client, 401, headers=bearer(keys[1]))
        client.close()

    assert waited < 1
    assert set(answers) == {200}
    assert {node.client.get("/api/tasks").status_code for node in nodes} == {401}
    assert start().client.get("/api/tasks").status_code == 401


def test_key_that_may_have_been_revoked_is_not_let_in(start: Start, store: Store, tmp_path: Path) -> None:
    """With the database out of reach nobody can tell, and the documents stay what they were."""
    key = make(store, tmp_path)
    client = start().client
    assert client.get("/api/tasks", headers=bearer(key)).status_code == 200
    store.lose()

    # With it and without.
    assert wait_for(client, 503, headers=bearer(key)) < 10
    assert wait_for(client, 503) < 10
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
    assert make(store, tmp_path, "other") != key


def test_name_is_given_again_once_its_key_was_revoked(store: Store, tmp_path: Path, start: Start) -> None:
    old = make(store, tmp_path)
    again = run(tmp_path, "key", "new", "app", variables={"DATABASE_URL": store.url})
    revoke(store, tmp_path)
    listed = run(tmp_path, "key", "list", variables={"DATABASE_URL": store.url}).stdout
    new = make(store, tmp_path)

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


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_open_service_listens_on_loopback_only(store: Store, tmp_path: Path, host: str) -> None:
    refused = run(tmp_path, "serve", "--port", "0", "--host", host, variables={"DATABASE_URL": store.url})

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"Whoever reaches {host or '0.0.0.0'} could read and change every task: make a key with"
        " tasks-api key new NAME, or say --insecure-open.\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "::1"])
def test_open_service_listens_on_every_loopback_address(start: Start, host: str) -> None:
    assert start("--host", host, variables=UNMEASURED).process.poll() is None


def test_service_listens_elsewhere_with_a_key_or_when_told(start: Start, store: Store, tmp_path: Path) -> None:
    told = start("--host", "0.0.0.0", "--insecure-open")
    assert told.client.get("/api/tasks").status_code == 200
    make(store, tmp_path)

    assert start("--host", "0.0.0.0").client.get("/api/tasks").status_code == 401


def test_keys_move_to_a_server() -> None:
    """tests/test_copy.py compares every table; that of the keys is among them."""
    assert "api_key" in {table._meta.table_name for table in TABLES}


def test_keys_of_idempotency_belong_to_the_key(start: Start, store: Store, tmp_path: Path) -> None:
    """However the credentials are written, and after the key was made anew, but not for another one."""
    first, other = make(store, tmp_path, "first"), make(store, tmp_path, "other")
    client = start().client

    def post(authorization: str) -> str:
        headers = {"Authorization": authorization, "Idempotency-Key": "once"}
        return client.post("/api/tasks", json={"title": "a"}, headers=headers).headers["location"]

    assert post(f"Bearer {first}") == post(f"bearer  {first}") == "/api/tasks/1"
    assert post(f"Bearer {other}") == "/api/tasks/2"
    revoke(store, tmp_path, "first")
    renewed = make(store, tmp_path, "first")
    wait_for(client, 200, headers=bearer(renewed))
    assert post(f"Bearer {renewed}") == "/api/tasks/1"


def test_schemathesis_finds_no_fault_with_a_key(closed: tuple[Service, str], tmp_path: Path) -> None:
    """Neither with the key nor without: it sees for itself that each operation refuses who has none."""
    service, key = closed
    run = finish(command(tmp_path, service.url, f"KEY={key}", "EXAMPLES=25"))

    assert run.returncode == 0, run.stdout
    assert {200, 201, 401} <= {call["response"]["status"] for call in calls(tmp_path / "har.json")}
    assert key not in run.stdout + (tmp_path / "har.json").read_text() + (tmp_path / "junit.xml").read_text()
