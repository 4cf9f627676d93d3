"""Large responses are compressed if the contract declares it and the client accepts gzip."""

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest

from models.database.migrate import migrate
from tests.support.application import Answer, Application, other_contract
from tests.support.calls import bearer, make_key
from tests.support.service import Start
from tests.support.stores import Store

SIGNIFICANT = ("etag", "content-length", "content-encoding", "vary")
PATH = "/api/tasks?limit=1000"
DECLARED = {"Content-Encoding": {"schema": {"type": "string"}}}
HANDLER = """
from starlette.responses import Response, StreamingResponse
from handlers.contract.reply import Reply
async def answer(): return {expression}
"""


def answers(folder: Path, *requests: tuple[str, str, str], tasks: int = 20, **settings: Any) -> list[Answer]:
    """Create tasks, then send requests with a method, a path and an Accept-Encoding, which is omitted if empty."""

    url = f"sqlite:///{folder}/tasks.db"
    migrate(url)

    async def send() -> list[Answer]:
        async with Application(url, **settings) as application:
            for number in range(tasks):
                body = {"title": f"Task {number}", "description": "Water the plants. " * 20}
                await application.call("POST", "/api/tasks", body)
            found = []
            for method, path, accepted in requests:
                headers = {"accept-encoding": accepted} if accepted else {}
                found.append(await application.call(method, path, headers=headers))
            return found

    return asyncio.run(send())


def test_large_list_is_compressed_for_clients_that_accept_gzip(tmp_path: Path) -> None:
    plain, packed, head = answers(tmp_path, ("GET", PATH, ""), ("GET", PATH, "gzip"), ("HEAD", PATH, "gzip"))

    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 4
    assert plain.headers["etag"] == packed.headers["etag"].replace('-gzip"', '"') != packed.headers["etag"]
    expected = {"content-encoding": "gzip", "content-length": str(len(packed.body)), "etag": packed.headers["etag"]}
    assert packed.headers == {**plain.headers, **expected}
    assert packed.headers["vary"] == "Accept-Encoding"
    assert head.headers == packed.headers


ACCEPTED = [
    "gzip",
    "GZIP",
    "x-gzip",
    "*",
    "gzip;q=0.5",
    "deflate, gzip;q=1.0, *;q=0.5",
    "br, gzip",
    "identity;q=0.5, gzip",
]
REFUSED = [
    "",
    "identity",
    "br, zstd",
    "gzip;q=0",
    "gzip; q=0.000",
    "gzip;q=0, *",
    "*;q=0",
    "identity, gzip;q=0.5",
    "gzip;q=a",
]
REFUSED += ["notgzip", "\xff\x00", ";" * 9000, "gzip;q=-1"]


@pytest.mark.parametrize(("accepted", "is_compressed"), [(ACCEPTED, True), (REFUSED, False)])
def test_accept_encoding_decides(tmp_path: Path, accepted: list[str], is_compressed: bool) -> None:
    found = answers(tmp_path, *(("GET", PATH, value) for value in accepted))

    assert [answer.status for answer in found] == [200] * len(accepted)
    assert [value for value, answer in zip(accepted, found, strict=True) if "content-encoding" in answer.headers] == (
        accepted if is_compressed else []
    )


def test_size_decides(tmp_path: Path) -> None:
    (answer,) = answers(tmp_path, ("GET", PATH, "gzip"), tasks=1)
    size = len(answer.body)
    assert "content-encoding" not in answer.headers
    for minimum, is_compressed in ((size, True), (size + 1, False), (1, True), (0, False)):
        (answer,) = answers(tmp_path, ("GET", PATH, "gzip"), tasks=0, gzip_min_size=minimum)
        assert ("content-encoding" in answer.headers) == is_compressed
        assert answer.headers["vary"] == "Accept-Encoding"


def test_only_declared_responses_are_compressed(tmp_path: Path) -> None:
    task, problem = answers(
        tmp_path, ("GET", "/api/tasks/1", "gzip"), ("GET", "/api/tasks?limit=0", "gzip"), tasks=1, gzip_min_size=1
    )

    assert (task.status, problem.status) == (200, 400)
    assert task.json()
    assert problem.json()
    assert not {"content-encoding", "vary"} & {*task.headers, *problem.headers}


def answers_of(folder: Path, expression: str, headers: dict[str, Any]) -> list[Answer]:
    """Return the answers of an API whose only operation returns the value of an expression, without and with gzip."""
    described = {"description": "Text.", "headers": headers, "content": {"application/json": {}}}
    responses = {"200": described, "201": {**described, "headers": {}}}
    contract = {"openapi": "3.0.3", "paths": {"/a": {"get": {"operationId": "answer", "responses": responses}}}}

    async def send() -> list[Answer]:
        application = Application(f"sqlite:///{folder}/unused.db")
        return [await application.call("GET", "/a", headers={"accept-encoding": value}) for value in ("br", "gzip")]

    with other_contract(folder, contract, operations=HANDLER.format(expression=expression)):
        return asyncio.run(send())


@pytest.mark.parametrize("size", [5000, 100_000])
@pytest.mark.parametrize(
    ("expression", "headers", "tag"),
    [
        ("['a' * {size}]", DECLARED, None),
        ("Reply(['a' * {size}], {{'etag': '\"1\"'}})", DECLARED, '"1-gzip"'),
        ("Response('a' * {size}, headers={{'etag': '\"1\"'}})", {"content-encoding": {"schema": {}}}, '"1-gzip"'),
    ],
)
def test_any_contract_can_declare_compression(
    tmp_path: Path, expression: str, headers: dict[str, Any], tag: str | None, size: int
) -> None:
    plain, packed = answers_of(tmp_path, expression.format(size=size), headers)

    assert gzip.decompress(packed.body) == plain.body
    assert (packed.headers["content-encoding"], packed.headers.get("etag")) == ("gzip", tag)


@pytest.mark.parametrize(
    ("expression", "headers"),
    [
        ("['a' * 9000]", {}),
        ("Reply(['a' * 9000], status=201)", DECLARED),
        ("Response(b'a' * 9000, headers={'Content-Encoding': 'br'})", DECLARED),
        ("StreamingResponse(iter([b'a' * 9000, b'b']))", DECLARED),
        ("StreamingResponse(iter([]))", DECLARED),
    ],
)
def test_other_responses_stay_as_they_are(tmp_path: Path, expression: str, headers: dict[str, Any]) -> None:
    plain, answer = answers_of(tmp_path, expression, headers)

    assert answer == plain


def test_responses_over_http(start: Start, store: Store, tmp_path: Path) -> None:
    """Compression works with API keys, rate limits, CORS, the access log and the validation of responses."""
    key = make_key(store, tmp_path)
    origin = "https://app.example.com"
    service = start("--rate-limit", "1000/second", "--allowed-origins", origin, "--access-log")
    client = service.client
    client.headers.update({**bearer(key), "Origin": origin})
    for number in range(100):
        client.post("/api/tasks", json={"title": f"Task {number}"})
    plain = client.get(PATH, headers={"Accept-Encoding": "identity"})
    packed = client.get(PATH)
    head = client.head(PATH)
    unchanged = client.get(PATH, headers={"If-None-Match": packed.headers["etag"]})
    also_unchanged = client.get(PATH, headers={"If-None-Match": plain.headers["etag"]})

    assert packed.json() == plain.json()
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "Accept-Encoding, Origin")
    assert plain.headers["vary"] == "Accept-Encoding, Origin"
    assert packed.headers["ratelimit"]
    assert [head.headers[name] for name in SIGNIFICANT] == [packed.headers[name] for name in SIGNIFICANT]
    for response, known in ((unchanged, packed), (also_unchanged, plain)):
        assert (response.status_code, response.headers["etag"]) == (304, known.headers["etag"])
        assert response.headers["vary"] == "Accept-Encoding, Origin"
        assert "content-encoding" not in response.headers
