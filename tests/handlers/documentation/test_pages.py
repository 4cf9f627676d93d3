"""What is published: the contract, and the page that shows it."""

import json
import re

import httpx
import pytest
import yaml

from handlers.contract import document as contract
from tests.support.project import ROOT
from tests.support.service import Start


def test_root_leads_to_the_documentation(shared_client: httpx.Client) -> None:
    answer = shared_client.get("/")

    assert answer.is_redirect
    assert answer.headers["location"] == "/docs"


def test_contract_is_published_but_for_the_keys_that_are_not_asked_for(shared_client: httpx.Client) -> None:
    as_yaml, as_json = shared_client.get("/openapi.yaml"), shared_client.get("/openapi.json")

    assert as_yaml.text == contract.PATH.read_text().replace("\nsecurity:\n  - ApiKey: []\n", "\nsecurity:\n  []\n")
    assert as_json.json()["security"] == []
    assert as_yaml.headers["content-type"] == "application/yaml"
    assert as_json.json() == yaml.safe_load(as_yaml.content)
    assert as_json.headers["content-type"] == "application/json"


def test_address_of_the_service_is_published(start: Start) -> None:
    client = start("--public-url", "https://tasks.example.com/").client

    for name, read in (("yaml", yaml.safe_load), ("json", json.loads)):
        published = read(client.get(f"/openapi.{name}").text)
        assert published["servers"][0]["url"] == "https://tasks.example.com"
        assert {**published, "servers": 0} == {**contract.document(), "security": [], "servers": 0}


@pytest.mark.parametrize("name", ["checks.py", "schemathesis.toml"])
def test_tests_of_the_contract_are_published(shared_client: httpx.Client, name: str) -> None:
    published = shared_client.get(f"/docs/contract/{name}")

    assert published.content == (ROOT / "tests/contract" / name).read_bytes()
    assert published.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/docs", "/docs/contract/checks.py", "/openapi.yaml", "/openapi.json"])
def test_what_a_reader_has_is_not_sent_again(shared_client: httpx.Client, path: str) -> None:
    first = shared_client.get(path)
    tag = first.headers["etag"]
    again = [
        shared_client.get(path, headers={"If-None-Match": known}) for known in (tag, f'"other", W/{tag}', '"other"')
    ]

    def lasting(answer: httpx.Response, *others: str) -> dict[str, str]:
        return {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id", *others)}

    assert first.headers["cache-control"] == "no-cache"
    assert [answer.status_code for answer in again] == [304, 304, 200]
    assert [answer.content for answer in again] == [b"", b"", first.content]
    # Of a response that is known, only the body is missing, and the fields that describe it.
    for answer in again[:2]:
        assert lasting(answer) == lasting(first, "content-type", "content-length")
    assert lasting(again[2]) == lasting(first)
    head = shared_client.head(path)
    assert (head.content, lasting(head)) == (b"", lasting(first))
    assert head.headers["content-length"] == str(len(first.content))


def test_page_loads_nothing_from_elsewhere(shared_client: httpx.Client) -> None:
    page = shared_client.get("/docs")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 5
    for address in addresses:
        assert address.startswith("/docs/assets/")
        assert shared_client.get(address).status_code == 200
