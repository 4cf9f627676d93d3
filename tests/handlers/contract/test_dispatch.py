"""The result of a handler becomes the response that the contract declares."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.application import Answer, Application, other_contract

HANDLERS = """
from pathlib import Path

from pydantic import BaseModel, RootModel
from starlette.responses import FileResponse, StreamingResponse

from handlers.contract.dispatch import RequestContext
from handlers.contract.problems import Refusal
from handlers.contract.reply import Reply
from models.database.errors import ChangedError, DuplicateError, ForeignKeyError


def fail(error): raise error


class Toy(BaseModel, extra="allow"):
    name: str
    size: int | None
    colour: str | None = None


async def answer(): return {expression}
"""
CONFLICT = {"description": "No.", "x-problems": {"InUse": "It is in use", "NameTaken": "The name is taken"}}


def answered(folder: Path, expression: str, responses: dict[str, Any], **fields: Any) -> Answer:
    """Send one request to an API whose only operation answers with the value of an expression."""
    operation = {"operationId": "answer", "responses": responses, **fields}
    described = {"openapi": "3.0.3", "paths": {"/answers": {"get": operation}}}

    async def send() -> Answer:
        return await Application(f"sqlite:///{folder}/unused.db").call("GET", "/answers")

    with other_contract(folder, described, operations=HANDLERS.replace("{expression}", expression)):
        return asyncio.run(send())


def response(media_type: str = "application/json", **fields: Any) -> dict[str, Any]:
    return {"description": "The answer.", "content": {media_type: {}}, **fields}


@pytest.mark.parametrize(
    ("expression", "media_type", "body"),
    [
        ("[1, None]", "application/json", b"[1,null]"),
        ("None", "application/json", b"null"),
        ("'a'", "application/json", b'"a"'),
        ("b'{}'", "application/json", b"{}"),
        ("Toy(name='a', size=None)", "application/json", b'{"name":"a","size":null}'),
        (
            "{'toys': [Toy(name='a', size=1, wheels=4)]}",
            "application/vnd.toys+json",
            b'{"toys":[{"name":"a","size":1,"wheels":4}]}',
        ),
        ("RootModel[list[Toy]]([Toy(name='a', size=1)])", "application/json", b'[{"name":"a","size":1}]'),
        ("'naïve'", "text/plain; charset=utf-8", "naïve".encode()),
        ("b'1,2'", "text/csv", b"1,2"),
        ("StreamingResponse(iter([b'a', b'b']), media_type='text/csv')", "text/csv; charset=utf-8", b"ab"),
    ],
)
def test_body_is_encoded_as_declared(expression: str, media_type: str, body: bytes, tmp_path: Path) -> None:
    answer = answered(tmp_path, expression, {"200": response(media_type)})

    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, body, media_type)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("expression", "responses", "status"),
    [
        ("None", {"204": {"description": "Done."}}, 204),
        ("{'a': 1}", {"204": response()}, 204),
        ("Reply(None, {'Location': '/a'})", {"302": {"description": "Elsewhere."}}, 302),
        ("Reply('a', status=201)", {"200": response(), "201": response()}, 201),
        ("Reply('a', status=202)", {"2XX": response()}, 202),
        ("{}", {"2XX": response()}, 200),
        ("{}", {"default": response()}, 200),
    ],
)
def test_status_is_a_declared_one(expression: str, responses: dict[str, Any], status: int, tmp_path: Path) -> None:
    assert answered(tmp_path, expression, responses).status == status


def test_header_of_a_handler_replaces_a_constant_one(tmp_path: Path) -> None:
    headers = {"X-Kind": {"schema": {"type": "string", "default": "usual"}}}
    for expression, kind in (("{}", "usual"), ("Reply({}, {'x-kind': 'other'})", "other")):
        assert answered(tmp_path, expression, {"200": response(headers=headers)}).headers["x-kind"] == kind


def test_file_is_sent(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")

    answer = answered(tmp_path, f"FileResponse({str(tmp_path / 'photo.png')!r})", {"200": response("image/*")})

    assert (answer.body, answer.headers["content-type"]) == (b"\x89PNG", "image/png")


@pytest.mark.parametrize(
    ("error", "responses", "status", "detail"),
    [
        ("Refusal(409, 'NameTaken')", {"409": CONFLICT}, 409, "The name is taken"),
        ("Refusal(409)", {"409": CONFLICT}, 409, "It is in use"),
        ("Refusal(409)", {"409": {"description": "It is locked."}}, 409, "It is locked."),
        ("Refusal(409)", {"4XX": {"description": "No."}}, 409, "Conflict"),
        ("Refusal(418)", {"default": response()}, 418, "I'm a Teapot"),
        ("Refusal(499)", {"499": {"description": "The client has gone."}}, 499, "The client has gone."),
        ("Refusal(int('409'))", {}, 500, "The service failed"),
        ("DuplicateError('secret')", {"409": CONFLICT}, 409, "It is in use"),
        ("ForeignKeyError('secret')", {}, 500, "The service failed"),
        ("ChangedError('secret')", {}, 500, "The service failed"),
        ("KeyError('secret')", {}, 500, "The service failed"),
    ],
)
def test_error_becomes_a_declared_problem(
    error: str, responses: dict[str, Any], status: int, detail: str, tmp_path: Path
) -> None:
    answer = answered(tmp_path, f"fail({error})", {"200": response(), **responses})

    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json()["status"], answer.json()["detail"]) == (status, detail)
    assert b"secret" not in answer.body


def test_undeclared_status_is_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answer = answered(tmp_path, "Reply({}, status=202)", {"200": response()})

    assert answer.status == 500
    assert "The contract declares no response 202 of answer." in caplog.text


def test_response_without_content_has_no_body(tmp_path: Path) -> None:
    """A body after a 204 would be read as the start of the next response on the connection."""
    answer = answered(tmp_path, "{'a': 1}", {"204": response()})

    assert (answer.status, answer.body) == (204, b"")
    assert not {"content-length", "content-type"} & answer.headers.keys()
