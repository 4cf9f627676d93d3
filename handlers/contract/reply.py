"""The result of a handler."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, RootModel
from pydantic_core import to_json


class Reply(NamedTuple):
    """A response: its body, and the headers that differ between responses.

    Bytes are sent as they are; other bodies are encoded as the Content-Type requires. A status of None stands for the
    operation's successful status in the contract.
    """

    body: Any
    headers: Mapping[str, str] = MappingProxyType({})
    status: int | None = None


def encoded(body: Any, media_type: bytes) -> bytes:
    """Return a body as JSON, or a string as UTF-8 if the media type is not JSON; None is empty."""
    if isinstance(body, bytes):
        return body
    if (body is None or isinstance(body, str)) and not is_json(media_type.decode()):
        return (body or "").encode()
    return to_json(_plain(body), inf_nan_mode="null")


def is_json(media_type: str) -> bool:
    """Return whether a media type is JSON or a format based on it."""
    return media_type.partition(";")[0].strip().lower().endswith(("/json", "+json"))


def _plain(value: Any) -> Any:
    """Return models as dictionaries. Optional properties that are None are omitted, since most may not be null."""
    match value:
        case RootModel():
            return _plain(value.root)
        case BaseModel():
            fields = [(name, info.alias or name, info) for name, info in type(value).model_fields.items()]
            known = {alias: (getattr(value, name), info.is_required()) for name, alias, info in fields}
            present = {name: _plain(item) for name, (item, required) in known.items() if required or item is not None}
            return present | _plain(value.model_extra or {})
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value
