"""API keys: once a key has been created, every operation requires a valid key."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.contract import document
from tests.support import wire
from tests.support.calls import UNKNOWN_METHOD, assert_is_problem, bearer, make_key, methods, revoke_key, wait_for
from tests.support.inside import run
from tests.support.service import Service, Start, running
from tests.support.stores import Store, open_store

pytestmark = pytest.mark.slow

CALLS = [
    *((method, path.replace("{id}", "1")) for path in document.raw()["paths"] for method in methods(path)),
    # These requests match no operation.
    (UNKNOWN_METHOD, "/api/tasks/1"),
    ("GET", "/api/tasks/a%2Fb"),
    ("GET", "/api"),
    ("GET", "/nowhere"),
    ("GET", "/docsnot"),
    ("GET", "/health"),
    ("GET", "/health/liver"),
    ("GET", "/openapi.yaml/"),
]
PUBLIC_PATHS = [
    "/docs",
    "/docs/assets/theme.css",
    "/docs/contract/checks.py",
    "/openapi.yaml",
    "/openapi.json",
    "/health/live",
]


@pytest.fixture(scope="module")
def protected(
    backend: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Service, str]]:
    """Yield a service that requires an API key, and the key."""
    folder = tmp_path_factory.mktemp("protected")
    with open_store(backend, folder, request) as store:
        key = make_key(store, folder)
        with running(backend, folder, variables={"DATABASE_URL": store.url}) as service:
            yield service, key


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_nothing_is_answered_without_a_key(protected: tuple[Service, str], method: str, path: str) -> None:
    service, key = protected
    body = {"json": {"title": "a"}} if method in ("POST", "PUT", "PATCH") else {}

    refused = service.client.request(method, path, **body)  # type: ignore[arg-type]
    accepted = service.client.request(method, path, headers=bearer(key), **body)  # type: ignore[arg-type]

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="tasks"'
    if method != "HEAD":
        assert_is_problem(401, refused)
    assert accepted.status_code != 401


def test_nothing_changes_without_a_key(protected: tuple[Service, str]) -> None:
    service, key = protected
    task = service.client.post("/api/tasks", json={"title": "Kept"}, headers=bearer(key))
    before = service.client.get("/api/tasks", headers=bearer(key)).content

    for method, path in (
        ("POST", "/api/tasks"),
        ("PUT", task.headers["location"]),
        ("DELETE", task.headers["location"]),
    ):
        assert service.client.request(method, path, json={"title": "Not to be"}).status_code == 401

    assert service.client.get("/api/tasks", headers=bearer(key)).content == before


@pytest.mark.parametrize("path", PUBLIC_PATHS)
def test_documentation_and_health_need_no_key(protected: tuple[Service, str], path: str) -> None:
    service, _ = protected

    assert service.client.get(path).status_code == 200
    assert service.client.head(path).status_code == 200


def test_401_does_not_reveal_why_a_key_is_invalid(protected: tuple[Service, str]) -> None:
    """The response to a request with an almost valid key equals the response to a request without a key."""
    service, key = protected
    invalid_credentials = [
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
        f"Bearer {document.NAME}_{'A' * 43}",
    ]
    responses = [service.client.get("/api/tasks")]
    for credentials in invalid_credentials:
        responses.append(service.client.get("/api/tasks", headers=[(b"Authorization", credentials.encode("latin-1"))]))

    distinct = {
        (
            response.status_code,
            response.content,
            tuple(h for h in response.headers.items() if h[0] not in ("date", "x-request-id")),
        )
        for response in responses
    }
    assert len(distinct) == 1
    assert responses[0].status_code == 401


@pytest.mark.parametrize("credentials", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}"])
def test_scheme_is_case_insensitive(protected: tuple[Service, str], credentials: str) -> None:
    service, key = protected

    assert service.client.get("/api/tasks", headers={"Authorization": credentials.format(key)}).status_code == 200


def test_two_authorization_headers_get_401(protected: tuple[Service, str]) -> None:
    service, key = protected
    request = f"GET /api/tasks HTTP/1.1\r\nHost: a\r\n{{}}Authorization: Bearer {key}\r\n\r\n"

    (once,) = wire.exchange(service.url, request.format("").encode())
    (twice,) = wire.exchange(service.url, request.format("Authorization: Bearer x\r\n").encode())

    assert (once.status, twice.status) == (200, 401)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_open_service_listens_on_loopback_only(store: Store, tmp_path: Path, host: str) -> None:
    refused = run(tmp_path, "serve", "--port", "0", "--host", host, variables={"DATABASE_URL": store.url})

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"Anyone who reaches {host} could read and change everything: create an API key with"
        f" {document.COMMAND} key new NAME, or allow that with --insecure-open.\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "::1"])
def test_open_service_listens_on_every_loopback_address(start: Start, host: str) -> None:
    assert start("--host", host).process.poll() is None


def test_service_listens_elsewhere_with_a_key_or_insecure_open(start: Start, store: Store, tmp_path: Path) -> None:
    insecure = start("--host", "0.0.0.0", "--insecure-open")
    assert insecure.client.get("/api/tasks").status_code == 200
    make_key(store, tmp_path)

    assert start("--host", "0.0.0.0").client.get("/api/tasks").status_code == 401


@pytest.mark.parametrize(("host", "flags"), [("0.0.0.0", ()), ("::", ()), ("0.0.0.0", ("--workers", "2"))])
def test_service_stays_closed_once_all_keys_are_revoked(
    start: Start, store: Store, tmp_path: Path, host: str, flags: tuple[str, ...]
) -> None:
    """A service without valid keys may listen on any address, refuses all requests, and accepts a key created later."""
    old = [make_key(store, tmp_path, name) for name in ("first", "second")]
    for name in ("first", "second"):
        revoke_key(store, tmp_path, name)
    service = start("--host", host, *flags)
    request = wire.request("GET", "/api/tasks")

    # Each pair of requests uses its own connection, so that any worker may receive the pair.
    responses = [wire.exchange(service.url, request * 2) for _ in range(8)]
    assert {response.status for pair in responses for response in pair} == {401}
    for key in old:
        assert service.client.get("/api/tasks", headers=bearer(key)).status_code == 401
    assert service.client.post("/api/tasks", json={"title": "Not to be"}).status_code == 401
    assert service.client.get("/openapi.json").json()["security"] == [{"ApiKey": []}]

    new = make_key(store, tmp_path, "third")
    wait_for(service.client, 200, headers=bearer(new))
    assert service.client.get("/api/tasks", headers=bearer(new)).json() == []
    revoke_key(store, tmp_path, "third")
    wait_for(service.client, 401, headers=bearer(new))
    assert service.client.get("/api/tasks").status_code == 401
