"""A document of OpenAPI 3.1 is served, and its schemas are JSON Schema 2020-12."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.other_api import make_project
from tests.support.project import RUN_FROM_SOURCE
from tests.support.service import Service

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).with_name("openapi_3_1")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Yield a client of the service of the document."""
    folder = tmp_path_factory.mktemp("openapi_3_1")
    project = make_project(folder, FOLDER / "openapi.yaml", FOLDER / "measurements.py")
    service = Service(project, "--validate-responses", command=RUN_FROM_SOURCE)
    yield service.client
    assert service.stop() == 0
    assert service.log() == ""


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"value": -273},
        {"comment": None},
        {"comment": "Cold"},
        {"place": [47.5, 19]},
        {"sensor": {"model": "A", "serial": "1", "other": 1}},
    ],
)
def test_valid_body_is_returned_as_sent(client: httpx.Client, properties: dict[str, Any]) -> None:
    sent = {"kind": "temperature", "value": 20.5, **properties}

    response = client.post("/measurements", json=sent)

    assert (response.status_code, response.json()) == (201, sent)


@pytest.mark.parametrize(
    ("properties", "pointer"),
    [
        ({"kind": "pressure"}, "/kind"),
        ({"value": -273.15}, "/value"),
        ({"comment": 1}, "/comment"),
        ({"place": [91, 0]}, "/place/0"),
        ({"place": [1, 2, 3]}, "/place/2"),
        ({"sensor": {"serial": "1"}}, "/sensor/model"),
        ({"other": 1}, "/other"),
    ],
)
def test_violation_names_its_place(client: httpx.Client, properties: dict[str, Any], pointer: str) -> None:
    response = client.post("/measurements", json={"kind": "temperature", "value": 20.5, **properties})

    assert response.status_code == 400, response.text
    assert {error["pointer"] for error in response.json()["errors"]} == {pointer}


@pytest.mark.parametrize(
    ("query", "status"), [("above=-99.5", 200), ("above=-100", 400), ("unit=C", 200), ("unit=K", 400)]
)
def test_parameters(client: httpx.Client, query: str, status: int) -> None:
    assert client.get(f"/measurements?{query}").status_code == status


def test_content_without_schema_is_binary(client: httpx.Client) -> None:
    response = client.put("/picture", content=b"\x89PNG", headers={"Content-Type": "image/png"})

    assert response.status_code == 204, response.text


def test_published_document_keeps_its_version_and_webhooks(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()

    assert (document["openapi"], list(document["webhooks"])) == ("3.1.0", ["storm"])
