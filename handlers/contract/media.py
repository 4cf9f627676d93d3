"""The media types of request bodies: how each is read and validated."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import jiter

from handlers.contract.faults import FaultError
from handlers.contract.forms import form_reader, multipart, urlencoded
from handlers.contract.parameters import convert, properties_of, types_of
from handlers.contract.validation import Rules, messages

# A function that reads a content with this Content-Type. It returns the value for the handler, and the value for
# validation, as JSON. It raises ValueError if the content is malformed.
Reader = Callable[[bytes, bytes], Awaitable[tuple[Any, Any]]]

UTF_8 = {"utf-8"}


class Media(NamedTuple):
    """A media type of a request body."""

    read: Reader
    charsets: set[str] | None  # None for any
    message: str  # what x-messages calls the violation if the content is malformed
    rules: Rules


def make_media(name: str, description: dict[str, Any], place: str) -> Media:
    """Return the media type that a Media Type Object describes. Raise FaultError if it is not supported."""
    make_reader, charsets, message = next(row for pattern, *row in READERS if re.fullmatch(pattern, name))
    reader = make_reader(description, place)
    return Media(reader, charsets, message, Rules(description.get("schema", {}), messages()["body"]))


def parse(content_type: bytes) -> tuple[str, set[str]]:
    """Return the media type of a Content-Type and its `charset`, in lower case, ignoring other parameters."""
    media_type, *parameters = (part.strip() for part in content_type.decode("latin-1").lower().split(";"))
    charsets = {part[8:].strip('"') for part in parameters if part.startswith("charset=")}
    return media_type, charsets


async def read_json(content: bytes, _: bytes) -> tuple[Any, Any]:
    """Read JSON. The same value is validated."""
    value = jiter.from_json(content, allow_inf_nan=False, catch_duplicate_keys=True)
    return value, value


async def read_bytes(content: bytes, _: bytes) -> tuple[bytes, str]:
    """Return the content unchanged. For validation, every byte is a character."""
    return content, content.decode("latin-1")


async def read_text(types: list[str], content: bytes, content_type: bytes) -> tuple[Any, Any]:
    """Read a text, or a number or boolean if the schema has one of these types."""
    value = convert(content.decode(next(iter(parse(content_type)[1]), "utf-8")), types)
    return value, value


def _text_reader(description: dict[str, Any], place: str) -> Reader:
    return partial(read_text, _simple_types(description, place))


def _bytes_reader(description: dict[str, Any], place: str) -> Reader:
    if {*_simple_types(description, place)} - {"string", "null"}:
        raise FaultError(f"{place}.schema", "only a string is supported for this media type; use type: string.")
    return read_bytes


def _simple_types(description: dict[str, Any], place: str) -> list[str]:
    schema = description.get("schema", {})
    types = types_of(schema)
    if {"object", "array"} & {*types} or properties_of(schema):
        sentence = "objects and arrays are not supported for this media type; use type: string, or application/json."
        raise FaultError(f"{place}.schema", sentence)
    return types


# For each media type or range in a contract, a function that makes its reader, its charsets, and the message for a
# malformed content. The first pattern that matches applies. JSON is in UTF-8 (RFC 8259, section 8.1), and so are forms.
READERS: list[Any] = [
    (r"application/json|[^/]+/[^/]+\+json", lambda *_: read_json, UTF_8, "json"),
    (r"application/x-www-form-urlencoded", partial(form_reader, urlencoded), UTF_8, "malformed"),
    (r"multipart/form-data", partial(form_reader, multipart), UTF_8, "malformed"),
    (r"text/.+", _text_reader, {"utf-8", "us-ascii", "ascii", "iso-8859-1", "latin-1"}, "malformed"),
    (r".*", _bytes_reader, None, "malformed"),
]
