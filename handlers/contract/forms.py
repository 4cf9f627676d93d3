"""Read forms: application/x-www-form-urlencoded, and multipart/form-data with files."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple, Self
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

# The maximum number of fields, and of files, in a form.
MAX_FIELDS = 1000


class File(bytes):
    """The content of a part of a form, as a handler gets it for a file.

    `filename` is the last segment of the name that the client gave it, without control characters, and may be empty.
    """

    filename: str
    content_type: str

    def __new__(cls, content: bytes, filename: str = "", content_type: str = "") -> Self:
        file = super().__new__(cls, content)
        file.filename, file.content_type = filename, content_type
        return file

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)


Part = tuple[str, File]
Split = Callable[[bytes, bytes], Awaitable[Iterable[Part]]]


class Field(NamedTuple):
    """A property of a form: how its values are made from its parts."""

    is_array: bool
    separator: str | None  # between the items of an array in one part
    convert: Callable[[File], Any]  # raises ValueError for a malformed part

    def value(self, parts: list[File]) -> Any:
        if self.separator:
            separator = self.separator.encode()
            parts = [File(item) for part in parts for item in part.split(separator) if item]
        values = [self.convert(part) for part in parts]
        # A part of JSON may hold all items.
        is_whole = len(values) == 1 and (not self.is_array or isinstance(values[0], list))
        return values[0] if is_whole else values


def form_reader(split: Split, media: dict[str, Any], place: str) -> Callable[[bytes, bytes], Awaitable[Any]]:
    """Return a function that reads a form described by a Media Type Object."""
    schema, encodings = media.get("schema", {}), media.get("encoding", {})
    if set(types_of(schema)) - {"object"}:
        raise FaultError(f"{place}.schema", "a form that is not an object is not supported; use type: object.")
    fields = {
        name: _field(description, encodings.get(name, {}), f"{place}.schema.properties.{name}", split is multipart)
        for name, description in properties_of(schema).items()
    }
    others = document.resolve(schema).get("additionalProperties")
    place = f"{place}.schema.additionalProperties"
    other = _field(others if isinstance(others, dict) else {}, {}, place, split is multipart)

    async def read(content: bytes, content_type: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        parts: dict[str, list[File]] = {}
        for name, part in await split(content, content_type):
            parts.setdefault(name, []).append(part)
        value, violations = {}, []
        for name, found in parts.items():
            field = fields.get(name, other)
            if len(found) > 1 and name in fields and not field.is_array:
                violations.append(Violation(message("repeated", name), pointer([name])))
                continue
            try:
                value[name] = field.value(found)
            except ValueError as error:
                violations.append(Violation(message("malformed", name, error), pointer([name])))
        if violations:
            raise Refusal(400, violations=violations)
        return value, {name: _as_json(item) for name, item in value.items()}

    return read


async def urlencoded(content: bytes, _: bytes) -> list[Part]:
    """Return the fields of a URL-encoded form."""
    pairs = parse_qsl(content.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    return [(name, File(value.encode())) for name, value in pairs]


class _Parser(MultiPartParser):
    is_complete = False

    def on_end(self) -> None:
        self.is_complete = True


async def multipart(content: bytes, content_type: bytes) -> list[Part]:
    """Return the fields and files of a multipart form (RFC 7578)."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield content
        # The parser closes its files if this fails.
        if not parser.is_complete:
            raise MultiPartException("The last boundary is missing.")

    # In Latin-1, every byte is a character, so that the parser preserves the bytes of text in any encoding.
    headers = Headers({"Content-Type": f"{content_type.decode('latin-1')}; charset=latin-1"})
    limits = {"max_files": MAX_FIELDS, "max_fields": MAX_FIELDS, "max_part_size": len(content)}
    parser = _Parser(headers, stream(), **limits)
    # The whole body is in memory, so its files need no temporary files.
    parser.spool_max_size = len(content)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ValueError(error.message) from error
    try:
        return [(_utf8(name), part) for name, value in form.multi_items() if (part := _part(value)) is not None]
    finally:
        await form.close()


def _part(value: str | UploadFile) -> File | None:
    if isinstance(value, str):
        return File(value.encode("latin-1"))
    content, filename = value.file.read(), _utf8(value.filename or "")
    # A browser sends a nameless, empty file if the user chose none.
    if not content and not filename:
        return None
    # A file name is no path (RFC 7578, section 4.2).
    return File(content, re.sub(r".*[/\\]|[\x00-\x1f\x7f]", "", filename, flags=re.DOTALL), value.content_type or "")


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode()


def _as_json(value: Any) -> Any:
    """Return a value for validation: the length of a file is its number of bytes."""
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value.decode("latin-1") if isinstance(value, File) else value


def _field(schema: Any, encoding: dict[str, Any], place: str, is_multipart: bool) -> Field:
    is_array = "array" in types_of(schema)
    items = document.resolve(schema).get("items", {}) if is_array else schema
    style, media_type = encoding.get("style", "form"), encoding.get("contentType", "")
    if style not in SEPARATORS or "headers" in encoding:
        raise FaultError(place, 'this encoding is not supported; use style "form" without headers.')
    types = types_of(items)
    if is_nested := bool({"object", "array"} & {*types} or properties_of(items)):
        if not is_multipart and not media_type:
            sentence = "objects in URL-encoded forms are not supported; encode them with contentType: application/json."
            raise FaultError(place, sentence)
        if media_type not in ("", "application/json"):
            raise FaultError(place, f"an object as {media_type} is not supported; use application/json.")
    if is_nested or media_type == "application/json":
        return Field(is_array, None, lambda part: jiter.from_json(part, allow_inf_nan=False, catch_duplicate_keys=True))
    if _is_file(items):
        allowed = [name.strip().lower() for name in media_type.split(",") if name.strip()]
        return Field(is_array, None, lambda part: _check_type(part, allowed))
    is_split = is_array and not encoding.get("explode", style == "form")
    separator = SEPARATORS[style] if is_split else None
    if not types:
        return Field(is_array, separator, lambda part: part if part.filename else part.decode())
    return Field(is_array, separator, lambda part: convert(part.decode(), types))


def _is_file(schema: Any) -> bool:
    found = document.resolve(schema)
    alternatives = chain.from_iterable(found.get(key, ()) for key in ("allOf", "anyOf", "oneOf"))
    is_binary = "contentMediaType" in found and "contentEncoding" not in found
    return is_binary or found.get("format") == "binary" or any(map(_is_file, alternatives))


def _check_type(part: File, allowed: list[str]) -> File:
    media_type = part.content_type.partition(";")[0].strip().lower()
    if allowed and not {media_type, f"{media_type.partition('/')[0]}/*", "*/*"} & {*allowed}:
        raise ValueError(f"its Content-Type must be {' or '.join(allowed)}")
    return part
