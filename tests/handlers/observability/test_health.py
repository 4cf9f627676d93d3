"""What a load balancer and a supervisor are told."""

import httpx
import pytest

from tests.support.calls import assert_is_problem, wait_for
from tests.support.service import Start
from tests.support.stores import Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each keeps what is promised in a way of its own."""
    return str(request.param)


PATHS = ["/health/live", "/health/ready"]


@pytest.mark.parametrize("path", PATHS)
def test_service_lives_and_is_ready(shared_client: httpx.Client, path: str) -> None:
    answer = shared_client.get(path)

    assert (answer.status_code, answer.json()) == (200, {"status": path.removeprefix("/health/")})
    assert answer.headers["cache-control"] == "no-store"
    assert shared_client.head(path).status_code == 200
    assert_is_problem(405, shared_client.post(path))


def test_service_without_its_database_lives_and_is_not_ready(start: Start, store: Store) -> None:
    client = start().client
    assert client.get("/health/ready").status_code == 200
    store.lose()

    unready = client.get("/health/ready")
    assert_is_problem(503, unready)
    assert unready.json()["detail"] == "The service is not ready; retry in a moment"
    assert client.get("/health/live").status_code == 200

    store.find_again()
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
    """As each node is while a new release takes the place of the old one."""
    client = start().client
    store.execute("INSERT INTO schema_migration (id, name, applied) VALUES (999, '9999_later', '2026-05-12 10:32:14')")

    assert client.get("/health/ready").status_code == 200
