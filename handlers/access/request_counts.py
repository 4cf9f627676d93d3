"""Counts the requests of each caller: in this process, or for several in a Redis server that may be out of reach."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import islice
from math import ceil
from typing import NamedTuple

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.errors import StorageError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

# For so many seconds a request may wait for Redis, which after that is not asked again for so many.
PATIENCE = 0.25
PAUSE = 1
# So many requests of a process ask at once; with all that there are, a flood alone would exhaust the patience.
TURNS = 32

logger = logging.getLogger(__name__)


class Window(NamedTuple):
    """What a caller has used of a limit, and in how many seconds the limit is renewed."""

    limit: RateLimitItem
    used: int
    seconds: int

    @property
    def left(self) -> int:
        """How many more requests may be made until then."""
        return max(0, self.limit.amount - self.used)


Count = Callable[[str], Awaitable[list[Window]]]


def counting(limits: Iterable[RateLimitItem], redis_url: str) -> Count:
    """Return what takes a request off each limit of a caller, and tells what there is of them.

    The windows of the limits are fixed, as in the `FixedWindowRateLimiter` of the library, each from its first request
    on, so that it is known when they end. Its two steps are taken here, since it would ask once more for what the first
    has answered.

    Args:
        limits: The shortest first; what one refuses is not taken off those after it.
        redis_url: The address of the server that counts for all processes and nodes; empty to count in this process.
    """
    if not redis_url:
        return partial(_take, [(limit, Memory()) for limit in limits])
    redis = Redis(redis_url)
    return WhileReachable(partial(_take, [(limit, redis) for limit in limits]))


async def _take(limits: list[tuple[RateLimitItem, Storage]], who: str) -> list[Window]:
    windows: list[Window] = []
    refused = False
    for limit, storage in limits:
        key = limit.key_for(who)
        used = await (storage.get(key) if refused else storage.incr(key, limit.get_expiry()))
        refused = refused or used > limit.amount
        windows.append(Window(limit, used, ceil(await storage.get_expiry(key) - time.time())))
    return windows


class Memory(MemoryStorage):
    """Counts in this process, for one limit.

    The library's own looks through all that it holds, at each request, for what can be forgotten. All windows of one
    limit are equally long, so that here those that began first come first, and two of them are looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expirations: OrderedDict[str, float] = OrderedDict()

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        for known in (key, *islice(self.expirations, 2)):
            if self.expirations.get(known, now) <= now:
                self.expirations.pop(known, None)
                self.storage.pop(known, None)
        self.expirations.setdefault(key, now + expiry)
        self.storage[key] += amount
        return self.storage[key]


class Redis(RedisStorage):
    """Counts for all that name the same server.

    The library's own says to the nearest second when a window ends, which may be half a second before it does.
    """

    bridge: RedispyBridge

    def __init__(self, url: str) -> None:
        # The server may have closed a connection that was not used for long; such a question is asked once more.
        super().__init__(url, True, "redispy", "tasks-api", retry=Retry(NoBackoff(), 1))  # type: ignore[arg-type]

    async def get_expiry(self, key: str) -> float:
        left: int = await self.bridge.storage.pttl(self.bridge.prefixed_key(key))
        return time.time() + max(left, 0) / 1000


class WhileReachable:
    """Tells of no limits where Redis does not answer, so that it is never what keeps requests from being served.

    Args:
        ask: What asks Redis.
    """

    def __init__(self, ask: Count) -> None:
        self._ask = ask
        self._turns = asyncio.Semaphore(TURNS)
        self._resumes = 0.0  # when to ask again; 0 where there is no outage

    async def __call__(self, who: str) -> list[Window]:
        async with self._turns:
            now = time.monotonic()
            if now < self._resumes:
                return []
            if self._resumes:
                # One request finds out whether it is back; the others need not wait for that.
                self._resumes = now + PAUSE
            before = self._resumes
            try:
                async with asyncio.timeout(PATIENCE):
                    windows = await self._ask(who)
            except (StorageError, TimeoutError) as error:
                if not self._resumes:
                    cause = str(error) or "it takes too long"
                    logger.warning("Redis does not answer, so that requests are not limited: %s", cause)
                self._resumes = time.monotonic() + PAUSE
                return []
            # One that was asked before the outage does not end it.
            if self._resumes == before:
                self._resumes = 0.0
            return windows
