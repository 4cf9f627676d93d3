"""What an operation answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Reply(NamedTuple):
    """The body, as JSON, and the headers that differ from one answer to the next; the contract says the others."""

    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    status: int | None = None  # where it is not the one that the contract gives to a success
