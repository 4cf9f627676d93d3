"""The result of a handler."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Reply(NamedTuple):
    """A response: its JSON body, and the headers that differ between responses.

    A status of None stands for the operation's successful status in the contract.
    """

    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    status: int | None = None
