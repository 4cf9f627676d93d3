"""The media types of request bodies: how each is read and validated."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import jiter

from handlers.contract.faults import FaultError
from handlers.contract.forms import form_reader, multipart, urlencoded
from handlers.contract.parameters import properties_of, types_of
from handlers.contract.validation import Rules, messages

# A function that reads a content with this Content-Type. It returns the value for the handler, and the value for
# validation, as JSON. It raises ValueError if the content is malformed.
Reader = Callable[[bytes, bytes], Awaitable[tuple[Any, Any]]]


class Media(NamedTuple):
    """A media type of a request body."""

    read: Reader
    charsets: set[str] | None  # None for any
    message: str  # what x-messages calls the violation if the content is malformed
    rules: Rules


def make_media(name: str, description: dict[str, Any], place: str) -> Media:
    """Return the media type that a Media Type Object describes. Raise FaultError if it is not supported."""
    make_reader, charsets, message = next(row for pattern, *row in READERS if re.fullmatch(pattern, name))
    rules = Rules(description.get("schema", {}), messages()["body"], place=f"{place}.schema")
    return Media(make_reader(description, place), charsets, message, rules)


def parse(content_type: bytes) -> tuple[str, set[str]]:
    """Return the media type of a Content-Type and its `charset`, in lower case, ignoring other parameters."""
    media_type, *parameters = (part.strip() for part in content_type.decode("latin-1").lower().split(";"))
    return media_type, {part[8:].strip('"') for part in parameters if part.startswith("charset=")}


async def _read_json(content: bytes, _: bytes) -> tuple[Any, Any]:
    value = jiter.from_json(content, allow_inf_nan=False, catch_duplicate_keys=True)
    return value, value


async def _read_text(content: bytes, content_type: bytes) -> tuple[str, str]:
    text = content.decode(next(iter(parse(content_type)[1]), "utf-8"))
    return text, text


async def _read_bytes(content: bytes, _: bytes) -> tuple[bytes, str]:
    # The length of the validated value is the number of bytes.
    return content, content.decode("latin-1")


def _string_reader(read: Reader, description: dict[str, Any], place: str) -> Reader:
    schema = description.get("schema", {})
    if {*types_of(schema)} - {"string", "null"} or properties_of(schema):
        sentence = "only a string is supported for this media type; use type: string, or application/json."
        raise FaultError(f"{place}.schema", sentence)
    return read


# For each media type or range in a contract, a function that makes its reader, its charsets, and the message for a
# malformed content. The first pattern that matches applies. JSON is in UTF-8 (RFC 8259, section 8.1), and so are forms.
READERS: list[Any] = [
    (r"application/json|[^/]+/[^/]+\+json", lambda *_: _read_json, {"utf-8"}, "json"),
    (r"application/x-www-form-urlencoded", partial(form_reader, urlencoded), {"utf-8"}, "malformed"),
    (r"multipart/form-data", partial(form_reader, multipart), {"utf-8"}, "malformed"),
    (r"text/.+", partial(_string_reader, _read_text), {"utf-8", "us-ascii", "iso-8859-1", "latin-1"}, "malformed"),
    (r".*", partial(_string_reader, _read_bytes), None, "malformed"),
]
