"""The five operations on tasks, called over HTTP."""

import httpx
import pytest

from tests.support.calls import create, walk
from tests.support.service import Service
from tests.support.wire import exchange


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "two nodes"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn; two nodes that share a PostgreSQL database must behave like a single node."""
    return str(request.param)


@pytest.mark.parametrize(
    ("query", "pages"),
    [
        ("", [[1, 2, 3, 4, 5]]),
        ("?limit=2", [[1, 2], [3, 4], [5]]),
        ("?limit=5", [[1, 2, 3, 4, 5]]),
        ("?limit=2&after=1", [[2, 3], [4, 5]]),
        ("?after=5", [[]]),
        ("?after=9007199254740991", [[]]),
        ("?completed=true", [[2, 4]]),
        ("?completed=false&limit=2", [[1, 3], [5]]),
        ("?completed=true&limit=1&after=1", [[2], [4]]),
    ],
)
def test_list_is_filtered_and_paginated(client: httpx.Client, query: str, pages: list[list[int]]) -> None:
    assert create(client, 5) == [1, 2, 3, 4, 5]

    assert walk(client, f"/api/tasks{query}") == pages


def test_page_has_100_tasks_by_default(client: httpx.Client) -> None:
    create(client, 101)

    assert [len(page) for page in walk(client, "/api/tasks")] == [100, 1]
    assert [len(page) for page in walk(client, "/api/tasks?limit=1000")] == [101]


@pytest.mark.parametrize(
    ("query", "kept_parameters"),
    [
        ("limit=1", "limit=1&"),
        ("completed=false&limit=1", "completed=false&limit=1&"),
        ("limit=1&after=0&completed=false", "limit=1&completed=false&"),
        ("l%69mit=1&%61fter=1", "limit=1&"),
        ("limit=1&&", "limit=1&"),
    ],
)
def test_link_is_absolute_and_keeps_the_other_parameters(
    client: httpx.Client, query: str, kept_parameters: str
) -> None:
    create(client, 5)
    after = 2 if "fter=1" in query else 1

    for method in ("GET", "HEAD"):
        page = client.request(method, f"/api/tasks?{query}")

        url = client.base_url.join("/api/tasks")
        assert page.headers["link"] == f'<{url}?{kept_parameters}after={after}>; rel="next"'


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("tasks.example.com", "http://tasks.example.com"),
        ("TASKS.example.com:8080", "http://TASKS.example.com:8080"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("", ""),
        (None, ""),
    ],
)
def test_link_has_the_host_of_the_request(service: Service, host: str | None, origin: str) -> None:
    create(service.client, 2)
    version, field = ("1.1", f"Host: {host}\r\n") if host is not None else ("1.0", "")

    (response,) = exchange(service.url, f"GET /api/tasks?limit=1 HTTP/{version}\r\n{field}\r\n".encode())

    assert response.headers["link"] == f'<{origin}/api/tasks?limit=1&after=1>; rel="next"'


def test_location_leads_to_the_task(client: httpx.Client) -> None:
    create(client, 1)
    created = client.post("/api/tasks", json={"title": "a"})

    assert created.json()["id"] == 2
    assert client.get(created.headers["location"]).json() == created.json()


def test_put_replaces_all_but_id_and_time(client: httpx.Client) -> None:
    created = client.post("/api/tasks", json={"title": "a", "description": "b", "completed": True}).json()

    replaced = client.put("/api/tasks/1", json={"title": "c"}).json()

    assert replaced == {**created, "title": "c", "description": None, "completed": False}
    assert client.get("/api/tasks/1").json() == replaced


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "id",
    [
        "9999",
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e0",
        "1_0",
        "%201",
        "1%20",
        "１",
        "one",
        "9007199254740991",
        "9007199254740992",
        "9223372036854775807",
        "9223372036854775808",
        "9" * 5000,
        "%FF",
        "{id}",
        "1;",
        "true",
    ],
)
def test_invalid_or_unknown_id_gets_404(shared_client: httpx.Client, method: str, id: str) -> None:
    response = shared_client.request(method, f"/api/tasks/{id}", json={"title": "a"} if method == "PUT" else None)

    assert response.status_code == 404
    assert response.json()["detail"] == "Task not found"


def test_deleted_task_is_gone(client: httpx.Client) -> None:
    create(client, 2)
    assert client.delete("/api/tasks/1").status_code == 200

    assert client.delete("/api/tasks/1").status_code == 404
    assert client.get("/api/tasks/1").status_code == 404
    assert client.put("/api/tasks/1", json={"title": "a"}).status_code == 404
    assert walk(client, "/api/tasks") == [[2]]


def test_id_of_a_deleted_task_is_not_reused(client: httpx.Client) -> None:
    create(client, 2)
    client.delete("/api/tasks/2")

    assert create(client, 1) == [3]


@pytest.mark.parametrize(
    "text",
    [
        "Zażółć gęślą jaźń",
        "写教程 🚀",
        "é \u200d",
        "'; DROP TABLE task; --",
        "<script>alert(1)</script>",
        "$(reboot) `id`",
        '\x01\t\n\\"/',
        "null",
        "\U0010ffff",
        "a\u2028",
    ],
)
def test_text_comes_back_as_it_was_sent(shared_client: httpx.Client, text: str) -> None:
    created = shared_client.post("/api/tasks", json={"title": text, "description": text}).json()
    kept = shared_client.get(f"/api/tasks/{created['id']}").json()

    assert (kept["title"], kept["description"]) == (text, text)
    assert created == kept
