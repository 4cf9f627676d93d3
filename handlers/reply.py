"""What an operation answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Reply(NamedTuple):
    """The body of a success, as JSON, and the headers that the contract gives it; the contract also says its status."""

    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})
