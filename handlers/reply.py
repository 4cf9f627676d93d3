"""What an operation answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

Body = TypeVar("Body")


class Reply(NamedTuple, Generic[Body]):
    """The body of a success, and those headers that the contract gives it; the contract also says its status."""

    body: Body
    headers: Mapping[str, str] = MappingProxyType({})
