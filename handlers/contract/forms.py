"""Read forms: application/x-www-form-urlencoded, and multipart/form-data with files."""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, Self
from urllib.parse import parse_qsl

import jiter
from pydantic_core import CoreSchema, core_schema
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from handlers.contract import document
from handlers.contract.faults import FaultError
from handlers.contract.parameters import SEPARATORS, convert, properties_of, types_of
from handlers.contract.problems import Refusal, pointer
from handlers.contract.validation import Violation, message

# The maximum number of fields, of files, and of items of an array in one field.
MAX_FIELDS = 1000
# The maximum number of parameters of a header field, which the parser splits in quadratic time.
MAX_PARAMETERS = 100

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

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)


# A function that returns the names and the contents of the parts of a form with this Content-Type.
Split = Callable[[bytes, bytes], Awaitable[list[tuple[str, File]]]]


def form_reader(split: Split, media: dict[str, Any], place: str) -> Callable[[bytes, bytes], Awaitable[Any]]:
    """Return a function that reads a form described by a Media Type Object."""
    schema, encodings = media.get("schema", {}), media.get("encoding", {})
    if {*types_of(schema)} - {"object"}:
        raise FaultError(f"{place}.schema", "a form must be an object; use type: object.")
    others = document.resolve(schema).get("additionalProperties")
    schemas = {"*": others if isinstance(others, dict) else {}, **properties_of(schema)}
    fields = {}
    for name, description in schemas.items():
        fields[name] = _field(description, encodings.get(name, {}), f"{place}.schema", name, split is multipart)

    async def read(content: bytes, content_type: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        parts: dict[str, list[File]] = {}
        for name, part in await split(content, content_type):
            parts.setdefault(name, []).append(part)
        value, violations = {}, []
        for name, found in parts.items():
            try:
                value[name] = fields.get(name, fields["*"])(found)
            except ValueError as error:
                violations.append(Violation(message("malformed", name, error), pointer([name])))
        if violations:
            raise Refusal(400, violations=violations)
        return value, {name: _as_json(item) for name, item in value.items()}

    return read


async def urlencoded(content: bytes, _: bytes) -> list[tuple[str, File]]:
    """Return the fields of a URL-encoded form."""
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


async def multipart(content: bytes, content_type: bytes) -> list[tuple[str, File]]:
    """Return the fields and files of a multipart form (RFC 7578)."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield content
        # The parser closes its files if this fails.
        if not parser.is_complete:
            raise MultiPartException("The last boundary is missing.")

    if content_type.count(b";") > MAX_PARAMETERS:
        raise ValueError("Too many parameters in Content-Type.")
    # In Latin-1, every byte is a character, so that the parser preserves all bytes.
    headers = Headers({"Content-Type": f"{content_type.decode('latin-1')}; charset=latin-1"})
    limits = {"max_files": MAX_FIELDS, "max_fields": MAX_FIELDS, "max_part_size": len(content)}
    parser = _Parser(headers, stream(), **limits)
    # The content is in memory, so it needs no temporary files.
    parser.spool_max_size = len(content)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ValueError(error.message) from error
    try:
        parts = [(_utf8(name), _part(value)) for name, value in form.multi_items()]
    finally:
        await form.close()
    return [(name, part) for name, part in parts if part is not None]


def _part(value: str | UploadFile) -> File | None:
    if isinstance(value, str):
        return File(value.encode("latin-1"))
    content, filename = value.file.read(), _utf8(value.filename or "")
    # A browser sends a nameless, empty file if the user chose none.
    return File(content, filename, value.content_type or "") if content or filename else None


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode()


def _as_json(value: Any) -> Any:
    """Return a value for validation: the length of a file is its number of bytes."""
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value.decode("latin-1") if isinstance(value, File) else value


def _field(
    schema: Any, encoding: dict[str, Any], place: str, name: str, is_multipart: bool
) -> Callable[[list[File]], Any]:
    """Return a function that makes the value of a property from its parts. It raises ValueError."""
    is_array = "array" in types_of(schema)
    items = document.resolve(schema).get("items", {}) if is_array else schema
    types, is_file = types_of(items), _is_file(items)
    style, media_type = encoding.get("style", "form"), encoding.get("contentType", "").lower()
    is_object = bool({"object", "array"} & {*types} or properties_of(items))
    is_json = is_object or media_type == "application/json"
    if style not in SEPARATORS or "headers" in encoding:
        raise FaultError(place, f'the encoding of "{name}" is not supported; use style "form" without headers.')
    if is_object and media_type != "application/json" and (media_type or not is_multipart):
        raise FaultError(place, f'the encoding of "{name}" is not supported; use contentType: application/json.')
    separator = None if encoding.get("explode", style == "form") else SEPARATORS[style].encode()
    allowed = re.split(r"\s*,\s*", media_type or "*")

    def convert_part(part: File) -> Any:
        if is_json:
            return jiter.from_json(part, allow_inf_nan=False, catch_duplicate_keys=True)
        sent = (part.content_type or "text/plain").lower().split(";")[0].strip()
        if is_file and not any(fnmatchcase(sent, pattern) for pattern in allowed):
            raise ValueError(f"its Content-Type must be {' or '.join(allowed)}")
        # Without a type in the schema, a file is whatever has a name.
        return part if is_file or (part.filename and not types) else convert(part.decode(), types)

    def value_of(parts: list[File]) -> Any:
        if is_array and separator:
            if sum(part.count(separator) for part in parts) >= MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} items")
            parts = [File(item) for part in parts for item in part.split(separator) if item]
        values = [convert_part(part) for part in parts]
        # A part of JSON may hold the whole array.
        if len(values) == 1 and (not is_array or isinstance(values[0], list)):
            return values[0]
        if types and not is_array:
            raise ValueError("it is given more than once")
        return values

    return value_of


def _is_file(schema: Any) -> bool:
    found = document.resolve(schema)
    alternatives = chain.from_iterable(found.get(key, ()) for key in ("allOf", "anyOf", "oneOf"))
    is_binary = "contentMediaType" in found and "contentEncoding" not in found
    return is_binary or found.get("format") == "binary" or any(map(_is_file, alternatives))
