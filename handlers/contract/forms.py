"""Read forms: application/x-www-form-urlencoded, and multipart/form-data with files."""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any, Self
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from handlers.contract.faults import FaultError
from handlers.contract.parameters import convert, first, from_json, parts_of, properties_of, types_of

MAX_FIELDS = 1000  # also of files
MAX_PARAMETERS = 100  # of a header field, which the parser splits in quadratic time

# A malformed form is the client's problem, which the parser would log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class File(bytes):
    """A file in a form: its content, its Content-Type, and its name without folders and control characters."""

    filename: str
    content_type: str

    def __new__(cls, content: bytes, filename: str = "", content_type: str = "") -> Self:
        file = super().__new__(cls, content)
        # A file name is no path (RFC 7578, section 4.2).
        file.filename = re.sub(r"[\x00-\x1f\x7f-\x9f]", "", re.split(r"[/\\]", filename)[-1])
        file.content_type = content_type
        return file


def form_reader(media_type: str, media: dict[str, Any], place: str) -> Callable[[bytes, bytes], Awaitable[Any]]:
    """Return a function that reads a form described by a Media Type Object."""
    schema, encodings = media.get("schema", {}), media.get("encoding", {})
    if {*types_of(schema)} - {"object"}:
        raise FaultError(f"{place}.schema", "a form must be an object; use type: object.")
    schemas = {"*": first(schema, "additionalProperties"), **properties_of(schema)}
    default = "application/json" if FORMS[media_type] is _multipart else ""
    fields = {name: _field(name, each, encodings.get(name, {}), default, place) for name, each in schemas.items()}

    async def read(content: bytes, content_type: bytes) -> dict[str, Any]:
        parts: dict[str, list[File]] = {}
        for name, part in await FORMS[media_type](content, content_type):
            parts.setdefault(name, []).append(part)
        return {name: fields.get(name, fields["*"])(found) for name, found in parts.items()}

    return read


async def _urlencoded(content: bytes, _: bytes) -> list[tuple[str, File]]:
    pairs = parse_qsl(content.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    return [(name, File(value.encode())) for name, value in pairs]


class _Parser(MultiPartParser):
    is_complete = False

    def on_headers_finished(self) -> None:
        if (self._current_part.content_disposition or b"").count(b";") > MAX_PARAMETERS:
            raise MultiPartException("Too many parameters in Content-Disposition.")
        super().on_headers_finished()

    def on_end(self) -> None:
        self.is_complete = True


async def _multipart(content: bytes, content_type: bytes) -> list[tuple[str, File]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield content

    # In Latin-1, every byte is a character, so that the parser preserves all bytes.
    headers = Headers({"Content-Type": f"{content_type.decode('latin-1')}; charset=latin-1"})
    parser = _Parser(headers, stream(), max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=len(content))
    # The content is in memory, so it needs no temporary files.
    parser.spool_max_size = len(content)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ValueError(error.message) from error
    parts = [(_utf8(name), _part(value)) for name, value in form.multi_items()]
    if not parser.is_complete:
        raise ValueError("The last boundary is missing.")
    # A browser sends a nameless, empty file if the user chose none.
    return [(name, part) for name, part in parts if part or part.filename or not part.content_type]


def _part(value: str | UploadFile) -> File:
    if isinstance(value, str):
        return File(value.encode("latin-1"))
    with value.file as file:
        return File(file.read(), _utf8(value.filename or ""), value.content_type or "")


def _utf8(name: str) -> str:
    return name.encode("latin-1").decode(errors="replace")


# For each media type, the function that returns the names and contents of the parts of a form with this Content-Type.
FORMS = {"application/x-www-form-urlencoded": _urlencoded, "multipart/form-data": _multipart}


def _field(name: str, schema: Any, encoding: dict[str, Any], default: str, place: str) -> Callable[[list[File]], Any]:
    """Return a function that makes the value of a property from its parts, in which objects have a default type."""
    is_array = "array" in types_of(schema)
    items = first(schema, "items") if is_array else schema
    types, is_file = types_of(items), _is_file(items)
    is_object = bool({"object", "array"} & {*types} or properties_of(items))
    media_types = encoding.get("contentType", default if is_object else "*").lower().replace(" ", "").split(",")
    is_json = media_types == ["application/json"]
    is_exploded = encoding.get("style", "form") == "form" and encoding.get("explode", True)
    is_other = is_object and not is_json
    if is_other or not is_exploded or "headers" in encoding:
        supported = "contentType: application/json" if is_other else 'style "form", explode: true and no headers'
        raise FaultError(f"{place}.schema", f'the encoding of "{name}" is not supported; use {supported}.')

    def convert_part(part: File) -> Any:
        sent = (part.content_type or "text/plain").lower().split(";")[0].strip()
        if is_file and not any(fnmatchcase(sent, pattern) for pattern in media_types):
            raise ValueError(f"the Content-Type of {name} must be {' or '.join(media_types)}")
        try:
            if is_json:
                return from_json(part)
            # Without a type in the schema, a file is whatever has a name.
            return part if is_file or (part.filename and not types) else convert(part.decode(), types)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def value_of(parts: list[File]) -> Any:
        values = [convert_part(part) for part in parts]
        # Several values of a property that is no array violate its type. A part of JSON may hold the whole array.
        is_whole = len(values) == 1 and (not is_array or isinstance(values[0], list))
        return values[0] if is_whole else values

    return value_of


def _is_file(schema: Any) -> bool:
    return any(
        part.get("format") == "binary" or ("contentMediaType" in part and "contentEncoding" not in part)
        for part in parts_of(schema)
    )
