"""The liveness and readiness probes."""

from pathlib import Path

import httpx
import pytest

from tests.support.calls import assert_is_problem, make_key, wait_for
from tests.support.service import Start
from tests.support.stores import Store
from tests.support.wire import exchange


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each implements readiness in its own way."""
    return str(request.param)


PATHS = ["/health/live", "/health/ready"]


@pytest.mark.parametrize("path", PATHS)
def test_running_service_is_live_and_ready(shared_client: httpx.Client, path: str) -> None:
    response = shared_client.get(path)

    assert (response.status_code, response.json()) == (200, {"status": path.removeprefix("/health/")})
    assert response.headers["cache-control"] == "no-store"
    assert shared_client.head(path).status_code == 200
    refused = shared_client.post(path)
    assert_is_problem(405, refused)
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_options_needs_neither_host_nor_key(start: Start, store: Store, tmp_path: Path) -> None:
    """HAProxy checks servers with OPTIONS and HTTP/1.0 by default."""
    make_key(store, tmp_path)
    service = start()

    for target in (*PATHS, "/", "*", "/docs", "/openapi.yaml"):
        (response,) = exchange(service.url, f"OPTIONS {target} HTTP/1.0\r\n\r\n".encode())
        assert (response.status, response.body) == (204, b""), target
        assert response.headers["allow"] == "GET, HEAD, OPTIONS"
        assert response.headers["cache-control"] == "no-store"
    (other,) = exchange(service.url, b"GET * HTTP/1.0\r\n\r\n")
    assert other.status == 401


def test_options_on_probes_has_no_rate_limit(start: Start) -> None:
    client = start("--rate-limit", "1/day").client
    assert [client.get("/openapi.yaml").status_code for _ in range(2)] == [200, 429]

    assert [client.options(path).status_code for path in PATHS] == [204, 204]


def test_service_without_its_database_is_live_but_not_ready(start: Start, store: Store) -> None:
    client = start().client
    assert client.get("/health/ready").status_code == 200
    store.make_unreachable()

    unready = client.get("/health/ready")
    assert_is_problem(503, unready)
    assert unready.json()["detail"] == "The service is not ready; retry in a moment"
    assert client.get("/health/live").status_code == 200
    assert [client.options(path).status_code for path in PATHS] == [204, 503]

    store.make_reachable()
    wait_for(client, 200, "/health/ready")


def test_service_with_an_older_schema_is_not_ready(start: Start, store: Store) -> None:
    service = start()
    assert service.client.get("/health/ready").status_code == 200

    for change in ("DELETE FROM schema_migration WHERE name LIKE '0004%'", "DROP TABLE schema_migration"):
        store.execute(change)
        assert_is_problem(503, service.client.get("/health/ready"))

    assert service.log().count("not ready: ") == 2
    assert "Traceback" not in service.log()


def test_service_with_a_newer_schema_is_ready(start: Start, store: Store) -> None:
    """This is necessary during a rolling update, when nodes of the old release use the new schema."""
    client = start().client
    store.execute("INSERT INTO schema_migration (id, name, applied) VALUES (999, '9999_later', '2026-05-12 10:32:14')")

    assert client.get("/health/ready").status_code == 200
