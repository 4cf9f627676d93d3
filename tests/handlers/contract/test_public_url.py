"""The public URL replaces the scheme and host of the request in every URL of a response, and adds its prefix."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.database.migrate import migrate
from tests.support.application import Answer, Application, other_contract

HANDLERS = """
from starlette.responses import RedirectResponse

from handlers.contract.document import path_for
from handlers.contract.reply import Reply

LINK = '<{0}>; rel="a"; title="</b>", </e>; rel="b", <https://h/c>; rel="c", <//h/c>; rel="d", <d>; rel="e"'


async def get_toy(name: str):
    url = path_for("getToy", name=name)
    return Reply({}, {"Link": LINK.format(url), "Content-Location": url, "X-Path": url})


async def get_latest_toy(): return RedirectResponse(path_for("getToy", name="bear"), 303)


async def get_other_site(): return Reply(None, {"Location": "//h/c"})
"""
RESPONSES = {"200": {"description": "The toy.", "content": {"application/json": {}}}}
REDIRECT = {"303": {"description": "The latest toy."}}
TOYS: dict[str, Any] = {
    "openapi": "3.0.3",
    "paths": {
        "/toys/latest": {"get": {"operationId": "getLatestToy", "responses": REDIRECT}},
        "/toys/elsewhere": {"get": {"operationId": "getOtherSite", "responses": REDIRECT}},
        "/toys/{name}": {
            "get": {
                "operationId": "getToy",
                "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
                "responses": RESPONSES,
            }
        },
    },
}
SERVER = {"url": "https://{host}/{version}/", "variables": {"host": {"default": "a"}, "version": {"default": "v1"}}}


def answers(folder: Path, *urls: str, host: str = "localhost", **settings: Any) -> list[Answer]:
    """Send GET requests to an application."""
    address = f"sqlite:///{folder}/unused.db"
    migrate(address)

    async def send() -> list[Answer]:
        async with Application(address, **settings) as app:
            return [await app.call("GET", url, headers={"host": host}) for url in urls]

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("", ""),
        ("https://tasks.example.com/tasks-service", "https://tasks.example.com/tasks-service"),
        ("HTTPS://Tasks.Example.com:8443/a/b//", "https://tasks.example.com:8443/a/b"),
        ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443"),
        ("https://bücher.example/ä{b}", "https://xn--bcher-kva.example/%C3%A4%7Bb%7D"),
        (f"https://tasks.example.com/{'a' * 2000}", f"https://tasks.example.com/{'a' * 2000}"),
    ],
)
def test_public_url_is_in_every_url_of_a_response(tmp_path: Path, setting: str, url: str) -> None:
    """The responses are also valid, and a response that is replayed has the public URL of now."""
    address = f"sqlite:///{tmp_path}/tasks.db"
    migrate(address)

    async def send(**settings: Any) -> list[Answer]:
        async with Application(address, validate_responses=True, **settings) as app:
            created = [await app.call("POST", "/api/tasks", {"title": "a"}, {"idempotency-key": key}) for key in "ab"]
            return [*created, await app.call("GET", "/api/tasks?limit=1"), await app.call("GET", "/openapi.json")]

    asyncio.run(send(public_url="https://former.example.com"))
    first, second, page, contract = asyncio.run(send(public_url=setting))

    assert first.headers["idempotency-replayed"] == "true"
    assert [first.headers["location"], second.headers["location"]] == [f"{url}/api/tasks/1", f"{url}/api/tasks/2"]
    assert page.headers["link"] == f'<{url or "http://localhost"}/api/tasks?limit=1&after=1>; rel="next"'
    assert contract.json()["servers"][0]["url"] == (url or "http://localhost")


def test_every_header_field_with_a_path_is_completed(tmp_path: Path) -> None:
    with other_contract(tmp_path, TOYS | {"servers": [{"url": "/v1"}]}, operations=HANDLERS):
        plain = answers(tmp_path, "/v1/toys/bear", "/v1/toys/latest")
        toy, redirect, elsewhere = answers(
            tmp_path, "/v1/toys/bear", "/v1/toys/latest", "/v1/toys/elsewhere", public_url="https://h/p"
        )

    assert [answer.headers.get("location") for answer in plain] == [None, "/v1/toys/bear"]
    assert redirect.headers["location"] == toy.headers["content-location"] == "https://h/p/v1/toys/bear"
    assert elsewhere.headers["location"] == "//h/c"
    assert toy.headers["x-path"] == "/v1/toys/bear"
    assert toy.headers["link"] == plain[0].headers["link"].replace("</v1", "<https://h/p/v1").replace(
        "</e", "<https://h/p/e"
    )


@pytest.mark.parametrize(
    ("servers", "base_path"),
    [
        (None, ""),
        ([{"url": "/"}, {"url": "https://other.example", "description": "Another"}], ""),
        ([{"url": "/v1", "description": "This"}], "/v1"),
        ([{"url": "https://api.example.com/v1/"}], "/v1"),
        ([SERVER, SERVER], "/v1"),
    ],
)
def test_first_published_server_is_the_one_that_publishes(
    tmp_path: Path, servers: list[dict[str, Any]] | None, base_path: str
) -> None:
    contract = TOYS | ({"servers": servers} if servers else {})
    with other_contract(tmp_path, contract, operations=HANDLERS):
        (asked,) = answers(tmp_path, "/openapi.json", host="toys.example:8000")
        (public,) = answers(tmp_path, "/openapi.json", public_url="https://h/p")
        (unknown,) = answers(tmp_path, "/openapi.json", host="")

    first, *others = servers or [{}]
    for answer, url in ((asked, "http://toys.example:8000"), (public, "https://h/p"), (unknown, "")):
        kept = {name: value for name, value in first.items() if name != "variables"}
        assert answer.json()["servers"] == [kept | {"url": url + base_path or "/"}, *others]


def test_published_contract_is_valid_for_every_host(tmp_path: Path) -> None:
    hosts = ["a", "a:8000", "[::1]:8000", "!$&'()*+,;=%~", "%0a-_", "0x10", "null", "*a", "&a", "'a'", "- a: b #"]
    tags = set()
    for host in hosts:
        as_json, as_yaml = answers(tmp_path, "/openapi.json", "/openapi.yaml", host=host)
        assert json.loads(as_json.body) == yaml.safe_load(as_yaml.body)
        assert as_json.json()["servers"][0]["url"] == f"http://{host}"
        tags |= {as_json.headers["etag"], as_yaml.headers["etag"]}

    assert len(tags) == 2 * len(hosts)
