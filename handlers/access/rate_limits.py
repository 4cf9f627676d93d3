"""Limits how many requests a caller may make in a time; loaded only where `--rate-limit` says how many."""

from functools import cache, lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from limits import RateLimitItem, parse_many
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.access.request_counts import counting
from handlers.access.security import key_name
from handlers.contract.problems import Refusal

# Who looks after the service asks here how it is, and is told however many requests there are.
UNLIMITED = "/health/"


class RateLimits:
    """Lets a request through unless its caller has made too many, and says in each answer how many are left.

    The header fields are those of draft-ietf-httpapi-ratelimit-headers-10.

    Args:
        next_app: What answers the requests that are let through.
        rate_limit: The limits, as `limits.parse_many` reads them.
        storage: The address of the Redis server that counts; empty to count in this process.

    Raises:
        Refusal: 429, with the seconds after which the request will be let through.
    """

    def __init__(self, next_app: ASGIApp, rate_limit: str, storage: str) -> None:
        self.app = next_app
        limits = sorted(dict.fromkeys(parse_many(rate_limit)), key=RateLimitItem.get_expiry)
        self.policy = ", ".join(f'"{_name(limit)}";q={limit.amount};w={limit.get_expiry()}' for limit in limits)
        self.count = counting(limits, storage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limited = scope["type"] == "http" and not scope["path"].startswith(UNLIMITED)
        windows = await self.count(_whose(scope)) if limited else []
        if not windows:
            await self.app(scope, receive, send)
            return
        left = ", ".join(f'"{_name(window.limit)}";r={window.left};t={window.seconds}' for window in windows)
        if any(window.used > window.limit.amount for window in windows):
            seconds = max(1, *(window.seconds for window in windows if not window.left))
            fields = {"RateLimit": left, "RateLimit-Policy": self.policy}
            raise Refusal(429, headers={"Retry-After": str(seconds), **fields})
        headers = [(b"ratelimit", left.encode()), (b"ratelimit-policy", self.policy.encode())]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self.app(scope, receive, send_with_headers)


@cache
def _name(limit: RateLimitItem) -> str:
    return str(limit).replace(" ", "-")


def _whose(scope: Scope) -> str:
    """Return who makes a request: whoever has its key, or else its address."""
    name = key_name(scope)
    return f"key {name}" if name else f"address {_network(scope['client'][0])}"


@lru_cache
def _network(host: str) -> str:
    """Return the address of a host; of IPv6 the first half, since a caller usually has all that begin with it.

    Where the system takes IPv4 on a socket for IPv6, it shows those addresses as IPv6 (RFC 4291, section 2.5.5.2).
    """
    try:
        address = ip_address(host)
    except ValueError:
        # A proxy may name a caller otherwise (RFC 7239, section 6).
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))
    return host
