"""The published contract, and the documentation page that shows the contract."""

import json
import re

import httpx
import pytest
import yaml

from handlers.contract import document
from tests.support.project import ROOT
from tests.support.service import Start
from tests.support.wire import exchange


@pytest.mark.parametrize(("path", "location"), [("/", "docs"), ("/docs/", "../docs")])
def test_redirects_to_the_documentation_are_relative(shared_client: httpx.Client, path: str, location: str) -> None:
    response = shared_client.get(path)

    assert response.is_redirect
    assert response.headers["location"] == location


def test_contract_is_published_without_security_if_no_key_exists(shared_client: httpx.Client) -> None:
    as_yaml, as_json = shared_client.get("/openapi.yaml"), shared_client.get("/openapi.json")

    servers = [{**document.raw()["servers"][0], "url": str(shared_client.base_url).rstrip("/")}]
    assert as_json.json() == {**document.raw(), "security": [], "servers": servers}
    assert as_yaml.headers["content-type"] == "application/yaml"
    assert as_json.json() == yaml.safe_load(as_yaml.content)
    assert as_json.headers["content-type"] == "application/json"


def test_public_url_is_published(start: Start) -> None:
    client = start("--public-url", "https://tasks.example.com/").client

    for name, read in (("yaml", yaml.safe_load), ("json", json.loads)):
        published = read(client.get(f"/openapi.{name}").text)
        assert published["servers"][0]["url"] == "https://tasks.example.com"
        assert {**published, "servers": 0} == {**document.raw(), "security": [], "servers": 0}


def test_contract_names_no_host_if_the_request_names_none(shared_client: httpx.Client) -> None:
    (response,) = exchange(str(shared_client.base_url), b"GET /openapi.json HTTP/1.0\r\n\r\n")

    assert response.json()["servers"] == document.raw()["servers"]


@pytest.mark.parametrize("name", ["checks.py", "schemathesis.toml"])
def test_contract_tests_are_published(shared_client: httpx.Client, name: str) -> None:
    published = shared_client.get(f"/docs/contract/{name}")

    assert published.content == (ROOT / "tests/contract" / name).read_bytes()
    assert published.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/docs", "/docs/contract/checks.py", "/openapi.yaml", "/openapi.json"])
def test_if_none_match_gets_304(shared_client: httpx.Client, path: str) -> None:
    first = shared_client.get(path)
    tag = first.headers["etag"]
    again = [
        shared_client.get(path, headers={"If-None-Match": entity_tags})
        for entity_tags in (tag, f'"other", W/{tag}', '"other"')
    ]

    def stable_headers(response: httpx.Response, *others: str) -> dict[str, str]:
        return {
            name: value for name, value in response.headers.items() if name not in ("date", "x-request-id", *others)
        }

    assert first.headers["cache-control"] == "no-cache"
    assert [response.status_code for response in again] == [304, 304, 200]
    assert [response.content for response in again] == [b"", b"", first.content]
    # A 304 response lacks only the body and the header fields that describe the body.
    for response in again[:2]:
        assert stable_headers(response) == stable_headers(first, "content-type", "content-length")
    assert stable_headers(again[2]) == stable_headers(first)
    head = shared_client.head(path)
    assert (head.content, stable_headers(head)) == (b"", stable_headers(first))
    assert head.headers["content-length"] == str(len(first.content))


def test_page_loads_only_its_own_assets(shared_client: httpx.Client) -> None:
    page = shared_client.get("/docs")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    urls = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(urls) == 5
    for url in urls:
        assert url.startswith("docs/assets/")
        assert shared_client.get(f"/{url}").status_code == 200
