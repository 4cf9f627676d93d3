"""The result of a handler."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Reply(NamedTuple):
    """A response: its body as JSON, the headers that vary, and its status.

    The contract decides the other headers, and the status if it is None: that of a success.
    """

    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    status: int | None = None
