"""The liveness and readiness probes."""

import httpx
import pytest

from tests.support.calls import assert_is_problem, wait_for
from tests.support.service import Start
from tests.support.stores import Store


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
    assert_is_problem(405, shared_client.post(path))


def test_service_without_its_database_is_live_but_not_ready(start: Start, store: Store) -> None:
    client = start().client
    assert client.get("/health/ready").status_code == 200
    store.make_unreachable()

    unready = client.get("/health/ready")
    assert_is_problem(503, unready)
    assert unready.json()["detail"] == "The service is not ready; retry in a moment"
    assert client.get("/health/live").status_code == 200

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
