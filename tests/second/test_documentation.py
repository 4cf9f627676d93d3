"""The published document is the contract, with the parts that the engine adds."""

from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.service import Service

pytestmark = pytest.mark.slow

WRITTEN = yaml.safe_load(Path(__file__).with_name("openapi.yaml").read_text("utf-8"))


@pytest.fixture
def root(library: tuple[Service, str]) -> str:
    """Return the URL of the service without the base path."""
    return library[0].url


def test_published_document_declares_what_the_engine_answers(root: str) -> None:
    document = httpx.get(f"{root}/openapi.json").json()

    assert document == yaml.safe_load(httpx.get(f"{root}/openapi.yaml").text)
    assert document["info"] == WRITTEN["info"]
    assert document["paths"].keys() == WRITTEN["paths"].keys()
    responses = document["paths"]["/members/{memberId}"]["patch"]["responses"]
    assert {"200", "400", "404", "413", "415", "500"} <= responses.keys()
    # Only operations with security requirements answer 401.
    assert "401" not in responses
    assert "401" in document["paths"]["/rooms/badge"]["get"]["responses"]


def test_page_is_served(root: str) -> None:
    page = httpx.get(f"{root}/docs")

    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
