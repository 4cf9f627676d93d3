"""What a handler may ask for beside what the contract describes, by the name of its argument."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.types import Scope


def caller(scope: Scope) -> bytes:
    """Return what tells one caller from another: the name of the key, or whatever the credentials are, if any."""
    if name := scope["state"].get("key"):
        return f"key {name}".encode()
    return b"\n".join(value for name, value in scope["headers"] if name == b"authorization")


def address(scope: Scope) -> Callable[..., str]:
    """Return what gives the address of the request, with other numbers for the query parameters that are named.

    It is absolute, unless the caller did not say for which host the request is.
    """
    return partial(_address, scope)


def _address(scope: Scope, **changes: int) -> str:
    host = next((value.decode() for name, value in scope["headers"] if name == b"host"), "")
    origin = f"{scope['scheme']}://{host}" if host else ""
    changed = "&".join([f"{name}={value}" for name, value in changes.items()])
    return f"{origin}{scope['raw_path'].decode()}?{_without(scope['query_string'], *changes)}{changed}"


@lru_cache
def _without(query: bytes, *names: str) -> str:
    kept = [pair for pair in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if pair[0] not in names]
    return urlencode(kept) + "&" * bool(kept)


CONTEXT: dict[str, Callable[[Scope], Any]] = {"caller": caller, "address": address}
