"""What is published: the contract, and the page that shows it."""

import re

import httpx
import yaml

from handlers import contract


def test_root_leads_to_the_documentation(shared_client: httpx.Client) -> None:
    answer = shared_client.get("/")

    assert answer.is_redirect
    assert answer.headers["location"] == "/docs"


def test_contract_is_published_as_it_is(shared_client: httpx.Client) -> None:
    as_yaml, as_json = shared_client.get("/openapi.yaml"), shared_client.get("/openapi.json")

    assert as_yaml.content == contract.PATH.read_bytes()
    assert as_yaml.headers["content-type"] == "application/yaml"
    assert as_json.json() == yaml.safe_load(as_yaml.content)
    assert as_json.headers["content-type"] == "application/json"


def test_page_loads_nothing_from_elsewhere(shared_client: httpx.Client) -> None:
    page = shared_client.get("/docs")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 4
    for address in addresses:
        assert address.startswith("/docs/assets/")
        assert shared_client.get(address).status_code == 200
