"""A plain document is served unchanged, with a few lines of handlers, and publishes every response that it sends."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from jsonschema_rs import Draft4Validator
from playwright.sync_api import Browser

from tests.support.other_api import make_project
from tests.support.project import RUN_FROM_SOURCE
from tests.support.service import Service

pytestmark = pytest.mark.slow

PLAIN = Path(__file__).with_name("plain")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Yield the service of the plain document."""
    folder = tmp_path_factory.mktemp("plain")
    project = make_project(folder, PLAIN / "openapi.yaml", PLAIN / "operations.py")
    service = Service(project, "--validate-responses", command=RUN_FROM_SOURCE)
    yield service
    assert service.stop() == 0
    assert service.log() == ""


@pytest.mark.parametrize(
    ("request_line", "options", "status", "detail"),
    [
        ("GET /dogs", {}, 200, None),
        ("GET /dogs?tags=a&tags=b&limit=1", {}, 200, None),
        ("GET /dogs?limit=x", {}, 400, "limit must be an integer, such as 10"),
        ("GET /dogs?page=1", {}, 400, "page is not a parameter of this operation"),
        ("POST /dogs", {"json": {"name": "Rex", "tag": "a", "age": 3}}, 200, None),
        ("POST /dogs", {"json": {"tag": 1}}, 400, "name is required"),
        ("POST /dogs", {"content": "{"}, 415, "application/json"),
        ("POST /dogs", {"content": "{", "headers": {"Content-Type": "application/json"}}, 400, "JSON"),
        ("GET /dogs/1", {}, 200, None),
        ("GET /dogs/99", {}, 404, ""),
        ("GET /dogs/x", {}, 404, ""),
        ("DELETE /dogs/99", {}, 204, None),
        ("PUT /dogs/1", {}, 405, "Allow"),
        ("GET /cats", {}, 404, "/openapi.yaml"),
    ],
)
def test_response_is_what_the_published_document_says(
    service: Service, request_line: str, options: dict[str, object], status: int, detail: str | None
) -> None:
    method, path = request_line.split()
    document = service.client.get("/openapi.json").json()
    service.client.post("/v1/dogs", json={"name": "First"})

    response = service.client.request(method, f"/v1{path}", **options)  # type: ignore[arg-type]

    assert response.status_code == status, response.text
    if detail is not None:
        assert response.headers["content-type"] == "application/problem+json"
        assert detail in response.json()["detail"]
    template = "/dogs" if path.partition("?")[0] == "/dogs" else "/dogs/{id}"
    declared = document["paths"][template].get(method.lower(), {}).get("responses", {})
    declared = declared if path.startswith("/dogs") and declared else document["x-responses"]
    described = declared[str(status)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    if status == 204:
        assert "content" not in described
        return
    schema = described["content"][response.headers["content-type"]]["schema"]
    assert Draft4Validator({**schema, "components": document["components"]}).is_valid(response.json())


def test_properties_that_the_document_does_not_forbid_are_kept(service: Service) -> None:
    dog = service.client.post("/v1/dogs", json={"name": "Rex", "age": 3}).json()

    assert dog == {"name": "Rex", "age": 3, "id": dog["id"]}
    assert httpx.get(f"{service.url}/v1/dogs/{dog['id']}").json() == dog


def test_page_shows_the_operations(service: Service, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{service.url}/docs")

    page.get_by_text("/dogs/{id}").first.wait_for()
    assert page.title() == service.client.get("/openapi.json").json()["info"]["title"]
