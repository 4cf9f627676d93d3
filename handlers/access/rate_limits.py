"""Limit the requests of each client; imported only if `--rate-limit` is set."""

from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from limits import RateLimitItem, parse_many
from starlette.types import Message, Scope, Send

from handlers.access.request_counts import request_counter
from handlers.access.security import key_name_of
from handlers.contract.problems import Refusal
from models.keys import KeyCache

UNLIMITED = "/health/"  # the path of the health probes


class RateLimits:
    """The check that answers 429 to requests beyond the limits, and reports the limits in every response.

    The response headers follow draft-ietf-httpapi-ratelimit-headers-10. `rate_limit` has the syntax of
    `limits.parse_many`. `storage` is the URL of a Redis server; with an empty URL, each process has its own counts.
    """

    def __init__(self, keys: KeyCache, rate_limit: str, storage: str) -> None:
        self.keys = keys
        limits = sorted(dict.fromkeys(parse_many(rate_limit)), key=RateLimitItem.get_expiry)
        self.names = [str(limit).replace(" ", "-") for limit in limits]
        named = zip(self.names, limits, strict=True)
        self.policy = ", ".join(f'"{name}";q={limit.amount};w={limit.get_expiry()}' for name, limit in named)
        self.count = request_counter(limits, storage)

    async def __call__(self, scope: Scope, send: Send) -> Send:
        if scope["path"].startswith(UNLIMITED):
            return send
        name = key_name_of(scope, self.keys)
        windows = await self.count(f"key {name}" if name else f"address {_network(scope['client'][0])}")
        if not windows:
            return send
        named = zip(self.names, windows, strict=True)
        state = ", ".join([f'"{name}";r={window.remaining};t={window.seconds}' for name, window in named])
        if any(window.used > window.limit.amount for window in windows):
            seconds = max(1, *(window.seconds for window in windows if not window.remaining))
            headers = {"Retry-After": str(seconds), "RateLimit": state, "RateLimit-Policy": self.policy}
            raise Refusal(429, headers=headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                reported = [(b"ratelimit", state.encode()), (b"ratelimit-policy", self.policy.encode())]
                message["headers"] = [*message["headers"], *reported]
            await send(message)

        return send_with_headers


@lru_cache
def _network(host: str) -> str:
    """Return a client's IPv4 address, or the /64 network of its IPv6 address, which usually belongs to one client."""
    # A proxy may send an identifier that is not an IP address (RFC 7239, section 6).
    with suppress(ValueError):
        address = ip_address(host)
        if isinstance(address, IPv6Address):
            # A proxy may send an IPv4 address as IPv6 (RFC 4291, section 2.5.5.2).
            return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))
    return host
