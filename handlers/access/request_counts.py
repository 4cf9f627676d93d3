"""Count requests in fixed windows, in this process or in Redis."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from math import ceil
from typing import NamedTuple

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.errors import StorageError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from handlers.contract import document

TIMEOUT = 0.25  # seconds that a request waits for Redis
RETRY_INTERVAL = 1  # seconds between attempts to reach Redis during an outage
# Maximum number of concurrent Redis requests. Without it, a burst would time out although Redis is healthy.
CONCURRENCY = 32

logger = logging.getLogger(__name__)


class Window(NamedTuple):
    """A client's use of a limit: the number of requests, and the seconds until the window ends."""

    limit: RateLimitItem
    used: int
    seconds: int

    @property
    def remaining(self) -> int:
        return max(0, self.limit.amount - self.used)


Counter = Callable[[str], Awaitable[list[Window]]]


def request_counter(limits: Iterable[RateLimitItem], redis_url: str) -> Counter:
    """Return a function that counts a client's request against each limit and returns the windows.

    A window starts with the client's first request. The library's `FixedWindowRateLimiter` is not used, since it needs
    one more round trip to Redis. The limits must be sorted by window, the shortest first: after a limit refuses a
    request, the longer limits do not count it. With an empty URL, each process has its own counts.
    """
    redis = Redis(redis_url) if redis_url else None
    storages = [(limit, redis or Memory()) for limit in limits]

    async def count(client: str) -> list[Window]:
        windows: list[Window] = []
        refused = False
        for limit, storage in storages:
            # In memory, every limit has a storage of its own.
            key = limit.key_for(client) if redis else client
            used = await (storage.get(key) if refused else storage.incr(key, limit.get_expiry()))
            refused = refused or used > limit.amount
            windows.append(Window(limit, used, ceil(await storage.get_expiry(key) - time.time())))
        return windows

    return CircuitBreaker(count) if redis else count


class Memory(MemoryStorage):
    """Counts for one limit in this process.

    The library's storage scans all keys on every request. Here the keys are sorted by the end of their windows, because
    all windows of a limit are equally long. So each request checks the two oldest keys only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expirations: OrderedDict[str, float] = OrderedDict()

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        for candidate in (key, *islice(self.expirations, 2)):
            if self.expirations.get(candidate, now) <= now:
                self.expirations.pop(candidate, None)
                self.storage.pop(candidate, None)
        self.expirations.setdefault(key, now + expiry)
        self.storage[key] += amount
        return self.storage[key]


class Redis(RedisStorage):
    """Counts in a Redis server. The end of a window is exact to the millisecond; the library rounds it to seconds."""

    bridge: RedispyBridge

    def __init__(self, url: str) -> None:
        # One retry, because the server may have closed an idle connection.
        super().__init__(url, True, "redispy", document.COMMAND, retry=Retry(NoBackoff(), 1))  # type: ignore[arg-type]

    async def get_expiry(self, key: str) -> float:
        remaining: int = await self.bridge.storage.pttl(self.bridge.prefixed_key(key))
        return time.time() + max(remaining, 0) / 1000


class CircuitBreaker:
    """Fails open: allows all requests while Redis does not respond. One request per interval tries Redis again."""

    def __init__(self, count: Counter) -> None:
        self._count = count
        self._semaphore = asyncio.Semaphore(CONCURRENCY)
        self._retry_at = 0.0  # 0 while the circuit is closed

    async def __call__(self, client: str) -> list[Window]:
        async with self._semaphore:
            now, retry_at = time.monotonic(), self._retry_at
            if now < retry_at:
                return []
            if retry_at:
                # This request tries Redis; the others do not wait for it.
                self._retry_at = retry_at = now + RETRY_INTERVAL
            try:
                async with asyncio.timeout(TIMEOUT):
                    windows = await self._count(client)
            except (StorageError, TimeoutError) as error:
                if not self._retry_at:
                    logger.warning("Redis does not respond, so requests are not limited: %s", str(error) or "timeout")
                self._retry_at = time.monotonic() + RETRY_INTERVAL
                return []
            # The success of a request that was sent before the outage does not mean that Redis is back.
            if self._retry_at == retry_at:
                self._retry_at = 0.0
            return windows
