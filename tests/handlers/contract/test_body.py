"""Request bodies of every media type, read without a server."""

import asyncio
import datetime
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Message

from handlers.contract import document
from handlers.contract.body import RequestBody
from handlers.contract.faults import FaultError
from handlers.contract.forms import MAX_FIELDS, File
from handlers.contract.problems import Refusal

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
STRING = {"type": "string"}
BINARY = {"type": "string", "format": "binary"}

MAX_BYTES: int = document.raw()["x-max-bytes"]


def body(content: dict[str, Any], hint: Any = Any, **description: Any) -> RequestBody:
    """Return a request body with these schemas by media type."""
    media = {name: {"schema": schema} for name, schema in content.items()}
    return RequestBody({"required": True, "content": media, **description}, hint, "body")


def form(properties: dict[str, Any], encoding: Any = None, media_type: str = FORM, hint: Any = Any) -> RequestBody:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    content = {media_type: {"schema": schema, "encoding": encoding or {}}}
    return RequestBody({"required": True, "content": content}, hint, "body")


def multipart(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    """Return a multipart form. Each part has the parameters of its Content-Disposition, with more headers or not."""
    lines = [
        b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    ]
    return b"".join(lines) + end


def read(
    body: RequestBody,
    content: bytes | Iterable[bytes],
    content_type: str | None = None,
    headers: dict[str, str] | None = None,
) -> Any:
    """Read a body: bytes with a Content-Length, and others in chunks, after which the client disconnects."""
    chunks = [content] if isinstance(content, bytes) else list(content)
    fields = {"content-length": str(len(content))} if isinstance(content, bytes) else {"transfer-encoding": "chunked"}
    if content_type is not None:
        fields["content-type"] = content_type
    raw = [(name.encode(), value.encode("latin-1")) for name, value in {**fields, **(headers or {})}.items()]
    events: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if isinstance(content, bytes):
        events[-1]["more_body"] = False
    remaining = iter(events)

    async def receive() -> Message:
        return next(remaining, {"type": "http.disconnect"})

    return asyncio.run(body.read({"type": "http", "headers": raw}, receive))


def refused(status: int, call: Callable[[], Any]) -> list[tuple[str | None, str]]:
    with pytest.raises(Refusal) as refusal:
        call()
    assert refusal.value.status_code == status
    return [(violation.pointer, violation.detail) for violation in refusal.value.violations]


@pytest.mark.parametrize(
    ("accepted", "sent", "content", "value"),
    [
        ({JSON: {"type": "object"}}, JSON, b'{"a": 1}', {"a": 1}),
        ({"Application/JSON; charset=utf-8": {}}, 'APPLICATION/json ; Charset="UTF-8"', b"[1]", [1]),
        ({JSON: {}}, "application/json;odata=verbose", b"null", None),
        ({JSON: {}}, 'application/json; profile="a;charset=latin1;b"; charset=utf8', b"1", 1),
        ({JSON: {}}, 'application/json; profile="\\"; charset=latin1"', b"1", 1),
        ({JSON: {}}, "application/json; x-charset=latin1; charset*=latin1", b"1", 1),
        ({JSON: {}}, "application/json;;\tCHARSET = Utf-8 ; charset", b"1", 1),
        ({JSON: {}}, "application/json;", b"\xef\xbb\xbf1", 1),
        ({"application/merge-patch+json": {}}, "application/merge-patch+json", b"\xef\xbb\xbf{}", {}),
        ({"text/plain": STRING}, "text/plain", b"\xef\xbb\xbfa", "\ufeffa"),
        ({FORM: {}}, FORM, "a=b+c%C3%A9&d=&d=ü".encode(), {"a": "b cé", "d": ["", "ü"]}),
        ({"text/plain": STRING}, "text/plain", "aé\0".encode(), "aé\0"),
        ({"text/plain": STRING}, "text/plain; charset=US-ASCII", b"a", "a"),
        ({"text/*": {}}, "text/csv", b"a,b", "a,b"),
        ({"application/octet-stream": BINARY}, "application/octet-stream", b"\xff\0", b"\xff\0"),
        ({"image/*": {}}, "image/png", b"\x89PNG", b"\x89PNG"),
        ({"application/xml": STRING}, "application/xml", b"<a/>", b"<a/>"),
        ({"*/*": {}}, "video/mp4; charset=none", b"", b""),
        # The most specific media type applies.
        ({"*/*": {}, "text/*": {}, "text/csv": {}}, "text/csv", b"a", "a"),
        ({"*/*": {}, JSON: {}}, JSON, b"1", 1),
        ({"*/*": {}, "text/*": {}}, JSON, b"1", b"1"),
    ],
)
def test_media_type_decides_how_the_body_is_read(
    accepted: dict[str, Any], sent: str, content: bytes, value: Any
) -> None:
    assert read(body(accepted), content, sent) == value


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        (JSON, None),
        (JSON, "text/json"),
        (JSON, "application/problem+json"),
        (JSON, "application/json; charset=utf-8; charset=latin-1"),
        (JSON, 'application/json; profile=";"; charset=latin-1'),
        (JSON, "application/json; Charset = UTF-16"),
        (JSON, "application/json" + ";" * 10_000),
        ("application/problem+json", "application/problem+json; charset=utf-16"),
        (FORM, FORM + "; charset=latin-1"),
        ("text/plain", "text/plain; charset=ISO-8859-1"),
        ("*/*", "json"),
        ("image/*", "text/plain"),
    ],
)
def test_other_media_types_and_charsets_are_refused(accepted: str, sent: str | None) -> None:
    assert refused(415, lambda: read(body({accepted: {}}), b"1", sent)) == []


def test_compressed_body_is_refused() -> None:
    with pytest.raises(Refusal, match="415"):
        read(body({"*/*": {}}), b"1", "image/png", {"content-encoding": "gzip"})
    assert read(body({"*/*": {}}), b"1", "image/png", {"content-encoding": "Identity"}) == b"1"


def test_optional_body_may_be_absent() -> None:
    optional = RequestBody({"content": {JSON: {}}}, Any, "body")

    assert read(optional, b"") is None
    assert read(optional, b"", JSON) is None
    assert read(optional, b"1", JSON) == 1
    assert refused(415, lambda: read(optional, b"1")) == []
    assert refused(415, lambda: read(body({JSON: {}}), b"")) == []
    assert asyncio.run(optional.read({"headers": []}, lambda: pytest.fail("nothing to receive"))) is None
    with pytest.raises(ClientDisconnect):
        read(optional, [b"1"], JSON)


@pytest.mark.parametrize("media_type", [JSON, FORM, MULTIPART, "text/plain", "image/png"])
def test_size_is_limited_while_the_body_arrives(media_type: str) -> None:
    limited = body({media_type: {}}, **{"x-max-bytes": 10})

    assert refused(413, lambda: read(limited, b"1" * 11, media_type)) == []
    assert refused(413, lambda: read(limited, [b"1" * 6] * 2, media_type)) == []
    with pytest.raises(ClientDisconnect):
        read(limited, [b"1" * 5] * 2, media_type)


def test_size_has_a_default_limit() -> None:
    assert read(body({"*/*": {}}), b"1" * MAX_BYTES, "image/png") == b"1" * MAX_BYTES
    assert refused(413, lambda: read(body({"*/*": {}}), b"1" * (MAX_BYTES + 1), "image/png")) == []


@pytest.mark.parametrize(
    ("schema", "sent", "content", "violations"),
    [
        (STRING, "text/plain", b"\xff", [("", "The body is malformed: 'utf-8' codec can't decode byte 0xff")]),
        ({**STRING, "maxLength": 2}, "text/plain", "éàü".encode(), [("", "The body must have at most 2 characters")]),
        ({**BINARY, "maxLength": 2}, "image/png", "éà".encode(), [("", "The body must have at most 2 characters")]),
        (
            {},
            "application/a+json",
            b'{"a":1,"a":2}',
            [("", "The body must be a JSON document: Detected duplicate key")],
        ),
        ({}, FORM, b"a=%FF", [("", "The body is malformed: 'utf-8' codec")]),
        ({}, FORM, b"\xff", [("", "The body is malformed: 'utf-8' codec")]),
        ({}, FORM, b"a=1&" * (MAX_FIELDS + 1), [("", "The body is malformed: Max number of fields exceeded")]),
    ],
)
def test_invalid_content_is_refused(schema: Any, sent: str, content: bytes, violations: list[tuple[str, str]]) -> None:
    reported = refused(400, lambda: read(body({sent.partition(";")[0]: schema}), content, sent))

    assert len(reported) == len(violations)
    for (path, detail), (expected_path, start) in zip(reported, violations, strict=True):
        assert path == expected_path
        assert detail.startswith(start)


PROPERTIES: dict[str, Any] = {
    "name": STRING,
    "age": {"type": "integer"},
    "score": {"type": "number"},
    "ok": {"type": "boolean", "nullable": True},
    "tags": {"type": "array", "items": {"type": "integer"}},
    "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "any": {},
}


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([("name", "1"), ("age", "-2"), ("score", "1.5e1")], {"name": "1", "age": -2, "score": 15.0}),
        ([("ok", "true"), ("tags", "1")], {"ok": True, "tags": [1]}),
        ([("tags", "1"), ("tags", "2"), ("either", "3"), ("any", "4")], {"tags": [1, 2], "either": 3, "any": "4"}),
        ([("either", "x"), ("name", "")], {"either": "x", "name": ""}),
        ([], {}),
    ],
)
@pytest.mark.parametrize("media_type", [FORM, MULTIPART])
def test_form_fields_are_converted_by_their_types(media_type: str, fields: list[tuple[str, str]], value: Any) -> None:
    content = "&".join(f"{name}={text}" for name, text in fields).encode()
    if media_type is MULTIPART:
        content = multipart(*((f'name="{name}"', text.encode()) for name, text in fields))

    assert read(form(PROPERTIES, media_type=media_type.partition(";")[0]), content, media_type) == value


def test_every_violation_of_a_form_is_reported() -> None:
    checked = form({**PROPERTIES, "name": {"type": "string", "maxLength": 1}})

    assert set(refused(400, lambda: read(checked, b"age=1.0&score=NaN&ok=yes&name=ab&~=", FORM))) == {
        ("/age", "age must be an integer, such as 10"),
        ("/score", "score must be a number, such as 2.5"),
        ("/ok", "ok must be true or false"),
        ("/name", "name must have at most 1 characters"),
        ("/~0", "~ is not a property of this object"),
    }
    assert set(refused(400, lambda: read(checked, b"age=1&age=1&name=a&name=b&ok=true&ok=true", FORM))) == {
        ("/age", "age must be given only once"),
        ("/name", "name must be given only once"),
        ("/ok", "ok must be given only once"),
    }


@pytest.mark.parametrize("encoding", [{}, {"style": "form", "explode": True}, {"contentType": JSON}])
def test_encoding_of_arrays(encoding: Any) -> None:
    checked = form(PROPERTIES, {"tags": encoding})

    assert read(checked, b"tags=1&tags=2", FORM) == {"tags": [1, 2]}


def test_array_may_be_one_field_of_json() -> None:
    assert read(form(PROPERTIES, {"tags": {"contentType": JSON}}), b"tags=[1,2]", FORM) == {"tags": [1, 2]}


def test_additional_properties_of_forms_have_a_schema() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}

    assert read(body({FORM: schema}), b"a=1", FORM) == {"a": 1}
    assert refused(400, lambda: read(body({FORM: schema}), b"a=1&a=2", FORM)) == [("/a", "a must be given only once")]


FILES: dict[str, Any] = {
    "photo": {"type": "string", "format": "binary", "maxLength": 4},
    "photos": {"type": "array", "items": {"contentMediaType": "image/png"}, "maxItems": 2},
    "optional": {"anyOf": [BINARY, {"type": "string", "nullable": True}]},
    "pages": {"allOf": [{"type": "array", "items": {"type": "integer"}}]},
    "encoded": {"type": "string", "contentMediaType": "image/png", "contentEncoding": "base64"},
    "meta": {"properties": {"a": {"type": "integer"}}},
    "metas": {"type": "array", "items": {"type": "object"}},
    "title": STRING,
    "any": {},
}


@pytest.mark.parametrize(
    ("parts", "value"),
    [
        ([('name="photo"; filename="a.png"', b"\xff\r\n\0")], {"photo": b"\xff\r\n\0"}),
        ([('name="photo"', b"a")], {"photo": b"a"}),
        ([('name="photo"; filename=""', b"a")], {"photo": b"a"}),
        ([('name="photo"; filename="a"', b"")], {"photo": b""}),
        ([('name="title"' + ";" * 99, b"a")], {"title": "a"}),
        ([('name="photos"; filename="a"', b"a"), ('name="photos"; filename="b"', b"b")], {"photos": [b"a", b"b"]}),
        ([('name="optional"; filename="a"', b"\xff")], {"optional": b"\xff"}),
        ([('name="pages"', b"1")], {"pages": [1]}),
        ([('name="encoded"', b"/w==")], {"encoded": "/w=="}),
        ([('name="meta"\r\nContent-Type: application/json', b'{"a": 1}')], {"meta": {"a": 1}}),
        ([('name="meta"; filename="a.json"', b'\xef\xbb\xbf{"a": 1}')], {"meta": {"a": 1}}),
        ([('name="metas"', b"{}"), ('name="metas"', b'{"a": 1}')], {"metas": [{}, {"a": 1}]}),
        ([('name="metas"', b'[{}, {"a": 1}]')], {"metas": [{}, {"a": 1}]}),
        ([('name="metas"', b"{}")], {"metas": [{}]}),
        ([('name="title"; filename="a.txt"', "é".encode())], {"title": "é"}),
        ([('name="any"; filename="a"', b"\xff"), ('name="title"', b"t")], {"any": b"\xff", "title": "t"}),
        # A browser sends this if the user chose no file.
        ([('name="photo"; filename=""\r\nContent-Type: application/octet-stream', b"")], {}),
    ],
)
def test_parts_are_converted_by_their_types(parts: list[tuple[str, bytes]], value: Any) -> None:
    assert read(form(FILES, media_type="multipart/form-data"), multipart(*parts), MULTIPART) == value


def test_file_has_a_name_and_a_content_type() -> None:
    class Upload(BaseModel, arbitrary_types_allowed=True):
        photo: File
        title: str = ""

    class Generated(BaseModel):
        photo: bytes

    head = 'name="photo"; filename="ü.png"\r\nContent-Type: image/png'
    for hint in (Upload, Generated):
        upload = read(form(FILES, media_type="multipart/form-data", hint=hint), multipart((head, b"\xff")), MULTIPART)
        assert isinstance(upload, hint)
        assert upload.photo == b"\xff"
        assert isinstance(upload.photo, File)
        assert upload.photo.filename == "ü.png"
        assert upload.photo.content_type == "image/png"


def test_part_without_a_file_name_has_an_empty_one() -> None:
    value = read(form(FILES, media_type="multipart/form-data"), multipart(('name="photo"', b"a")), MULTIPART)

    assert (value["photo"].filename, value["photo"].content_type) == ("", "")


def test_only_the_body_limits_the_size_of_a_field() -> None:
    content = multipart(('name="a"', b"1" * MAX_BYTES))
    body = RequestBody({"x-max-bytes": len(content), "content": {"multipart/form-data": {}}}, Any, "body")

    assert read(body, content, MULTIPART + ";" * 99) == {"a": "1" * MAX_BYTES}


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\\\..\\\\a.txt", "a.txt"),
        ("C:\\\\a\\\\b.txt", "b.txt"),
        ("a\0\x1b[31m.txt", "a[31m.txt"),
        ("/", ""),
        ("a;b=c.txt", "a;b=c.txt"),
        ("a%00.txt", "a%00.txt"),
    ],
)
def test_file_name_is_no_path(sent: str, filename: str) -> None:
    value = read(
        form(FILES, media_type="multipart/form-data"),
        multipart((f'name="photo"; filename="{sent}"', b"a")),
        MULTIPART,
    )

    assert value["photo"].filename == filename


@pytest.mark.parametrize(
    ("parts", "violations"),
    [
        ([('name="photo"; filename="a"', b"12345")], [("/photo", "photo must have at most 4 characters")]),
        ([('name="other"; filename="a"', b"\xff")], [("/other", "other is not a property of this object")]),
        ([('name="meta"', b'{"a": "b"}')], [("/meta/a", "a must be of type integer")]),
        ([('name="photo"', b"1"), ('name="photo"', b"2")], [("/photo", "photo must be given only once")]),
        ([('name="metas"', b"[[]]")], [("/metas/0", "metas[0] must be of type object")]),
        (
            [('name="meta"', b"{")],
            [("", "The body is malformed: meta: EOF while parsing an object at line 1 column 1")],
        ),
        (
            [('name="title"', b"\xff")],
            [
                (
                    "",
                    "The body is malformed: title: 'utf-8' codec can't decode byte 0xff in position 0:"
                    " invalid start byte",
                )
            ],
        ),
    ],
)
def test_invalid_parts_are_refused(parts: list[tuple[str, bytes]], violations: list[tuple[str, str]]) -> None:
    body = form(FILES, media_type="multipart/form-data")

    assert refused(400, lambda: read(body, multipart(*parts), MULTIPART)) == violations


@pytest.mark.parametrize(
    ("allowed", "sent", "accepted"),
    [
        ("image/png, image/jpeg", "image/jpeg", True),
        ("Image/*", "IMAGE/png; a=b", True),
        ("*/*", "", True),
        ("image/png, image/jpeg", "image/gif", False),
        ("image/png", "", False),
    ],
)
def test_content_type_of_files_is_checked(allowed: str, sent: str, accepted: bool) -> None:
    body = form(FILES, {"photo": {"contentType": allowed}}, "multipart/form-data")
    content = multipart((f'name="photo"; filename="a"\r\nContent-Type: {sent}', b"a"))

    if accepted:
        assert read(body, content, MULTIPART) == {"photo": b"a"}
    else:
        sentence = f"The body is malformed: the Content-Type of photo must be {allowed.replace(', ', ' or ')}"
        assert refused(400, lambda: read(body, content, MULTIPART)) == [("", sentence)]


PART = ('name="title"', b"a")


@pytest.mark.parametrize(
    ("content", "content_type", "reason"),
    [
        (multipart(PART), "multipart/form-data", "Missing boundary in multipart."),
        (multipart(PART), "multipart/form-data; boundary=other", "Invalid multipart data."),
        (multipart(PART), "multipart/form-data; boundary=" + "b" * 10_000, "Invalid multipart data."),
        (multipart(PART), 'multipart/form-data; boundary="b', "Invalid multipart data."),
        (multipart(PART), 'Multipart/Form-Data; type="a;boundary=c"; Boundary="b"; charset=UTF-8;', None),
        (b"", MULTIPART, "The last boundary is missing."),
        (multipart(PART, end=b""), MULTIPART, "The last boundary is missing."),
        (multipart(PART)[:-20], MULTIPART, "The last boundary is missing."),
        (multipart(('name="photo"; filename="a"', b"a"))[:-12], MULTIPART, "The last boundary is missing."),
        (b"--b\r\n\r\na\r\n--b--\r\n", MULTIPART, 'The Content-Disposition header field "name" must be provided.'),
        (multipart(("filename=a", b"a")), MULTIPART, 'The Content-Disposition header field "name" must be provided.'),
        (multipart(('name="a"\r\nA B: c', b"a")), MULTIPART, "Invalid multipart data."),
        (multipart(('name="a"\r\n' + "A: b\r\n" * 1000, b"a")), MULTIPART, "Invalid multipart data."),
        (multipart(('name="a"\r\nA: ' + "b" * 100_000, b"a")), MULTIPART, "Invalid multipart data."),
        (
            multipart(('name="a"' + ";" * 101, b"a")),
            MULTIPART,
            "Too many parameters in Content-Disposition.",
        ),
        (multipart(PART) * 2, MULTIPART, None),
        (multipart(*[PART] * 10_000), MULTIPART, "Too many fields. Maximum number of fields is 1000."),
        (
            multipart(*[('name="a"; filename="a"', b"")] * 10_000),
            MULTIPART,
            "Too many files. Maximum number of files is 1000.",
        ),
    ],
)
def test_malformed_multipart_is_refused(
    content: bytes, content_type: str, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    body = form(FILES, media_type="multipart/form-data")

    if reason:
        assert refused(400, lambda: read(body, content, content_type)) == [("", f"The body is malformed: {reason}")]
    else:
        assert read(body, content, content_type) == {"title": "a"}
    assert caplog.records == []


@given(
    content=st.binary()
    | st.lists(
        st.sampled_from([b"--b", b"--", b"\r\n", b"\n", b"\xff", b"\0", b'"', b";"])
        | st.sampled_from(
            [b"Content-Disposition: form-data", b'; name="', b"; filename*=utf-8''%ff", b"; filename=", b":", b"a"]
        )
    ).map(b"".join)
)
@example(content=multipart(('name="\xff"', b"a")))
def test_no_bytes_break_a_form(content: bytes) -> None:
    for media_type in (MULTIPART, FORM):
        try:
            assert isinstance(read(body({media_type.partition(";")[0]: {}}), content, media_type), dict)
        except Refusal as refusal:
            assert refusal.status_code == 400
            assert len(refusal.violations) >= 1


def odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("it must be odd")
    return number


class Cat(BaseModel):
    meows: bool
    born: datetime.date | None = None


class Dog(BaseModel):
    barks: bool


@pytest.mark.parametrize(
    ("hint", "content", "value"),
    [
        (Cat, b'{"meows": true}', Cat(meows=True)),
        (Cat | Dog, b'{"barks": true}', Dog(barks=True)),
        (list[Dog], b'[{"barks": true}]', [Dog(barks=True)]),
        (dict[str, Any], b'{"a": null}', {"a": None}),
        (Cat | None, b"null", None),
        (Any, b"1", 1),
        (str, b'"a"', "a"),
    ],
)
def test_value_gets_the_type_of_the_handlers_argument(hint: Any, content: bytes, value: Any) -> None:
    assert read(body({JSON: {}}, hint), content, JSON) == value


def test_bytes_become_text_for_a_handler_that_takes_text() -> None:
    xml = body({"application/xml": STRING}, str)

    assert read(xml, "<é/>".encode(), "application/xml") == "<é/>"
    assert refused(400, lambda: read(xml, b"\xff", "application/xml")) == [
        ("", "The body: Input should be a valid string, unable to parse raw data as a unicode string")
    ]


@pytest.mark.parametrize(
    ("hint", "content", "violations"),
    [
        (
            list[Cat],
            b'[{"meows": true, "born": "0000-01-01"}]',
            [("/0/born", "born: Input should be a valid date in the format YYYY-MM-DD, year 0 is out of range")],
        ),
        (dict[str, Annotated[int, AfterValidator(odd)]], b'{"a/b": 2}', [("/a~1b", "a/b: it must be odd")]),
        (list[bool], b"[true, 2.5]", [("/1", "1: Input should be a valid boolean")]),
        (Dog | list[Dog], b"{}", [("", "The body: Field required"), ("", "The body: Input should be a valid list")]),
        (int, b'"a"', [("", "The body: Input should be a valid integer, unable to parse string as an integer")]),
    ],
)
def test_value_that_the_handlers_type_refuses_is_a_violation(
    hint: Any, content: bytes, violations: list[tuple[str, str]]
) -> None:
    assert refused(400, lambda: read(body({JSON: {}}, hint), content, JSON)) == violations


ONLY_STRINGS = ".schema: only a string is supported for this media type; use type: string, or application/json."
A = '.schema: the encoding of "a" is not supported; use'
ONLY_FORM = f'{A} style "form", explode: true and no headers.'
ONLY_JSON = f"{A} contentType: application/json."


@pytest.mark.parametrize(
    ("content", "encoding", "fault"),
    [
        ({"application/xml": {"type": "object"}}, {}, f".application/xml{ONLY_STRINGS}"),
        ({"text/plain": {"properties": {"a": {}}}}, {}, f".text/plain{ONLY_STRINGS}"),
        ({"multipart/mixed": {"type": "object"}}, {}, f".multipart/mixed{ONLY_STRINGS}"),
        ({"*/*": {"type": "integer"}}, {}, f".*/*{ONLY_STRINGS}"),
        ({FORM: STRING}, {}, f".{FORM}.schema: a form must be an object; use type: object."),
        (
            {FORM: {"properties": {"a": {"type": "object"}}}},
            {},
            f".{FORM}{ONLY_JSON}",
        ),
        (
            {FORM: {"additionalProperties": {"type": "array", "items": {"type": "array"}}}},
            {},
            f".{FORM}{ONLY_JSON}".replace('"a"', '"*"'),
        ),
        (
            {"multipart/form-data": {"properties": {"a": {"type": "object"}}}},
            {"contentType": "application/xml"},
            f".multipart/form-data{ONLY_JSON}",
        ),
        (
            {FORM: {"properties": {"a": STRING}}},
            {"style": "deepObject"},
            f".{FORM}{ONLY_FORM}",
        ),
        (
            {"multipart/form-data": {"properties": {"a": STRING}}},
            {"headers": {"A": {}}},
            f".multipart/form-data{ONLY_FORM}",
        ),
        ({FORM: {"properties": {"a": {"type": "array"}}}}, {"explode": False}, f".{FORM}{ONLY_FORM}"),
        (
            {JSON: {}, "application/json; version=1": {}},
            {},
            ": application/json occurs twice; parameters do not distinguish media types.",
        ),
    ],
)
def test_bodies_that_are_not_supported(content: dict[str, Any], encoding: Any, fault: str) -> None:
    media = {name: {"schema": schema, "encoding": {"a": encoding}} for name, schema in content.items()}
    with pytest.raises(FaultError) as error:
        RequestBody({"content": media}, Any, "body")

    assert str(error.value) == f"body.content{fault}"


def test_objects_in_url_encoded_forms_may_be_json() -> None:
    body = form({"a": {"type": "object"}}, {"a": {"contentType": JSON}})

    assert read(body, b"a=%7B%22b%22:1%7D", FORM) == {"a": {"b": 1}}


def test_argument_of_the_handler_must_be_a_type_of_values() -> None:
    with pytest.raises(FaultError, match=r"^body: the handler's body cannot be a .*Refusal.*; use a "):
        body({JSON: {}}, Refusal)
