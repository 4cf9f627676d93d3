"""Request counters of one process: a window starts with its first request, and ends exactly after its length."""

import asyncio
import time

import pytest
from limits import parse_many

from handlers.access.request_counts import Window, request_counter

DAY = 86400
START = 1_800_000_000.25


class Clock:
    """A replacement for `time.time` that returns START plus `elapsed`, the number of seconds that a test sets."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def __call__(self) -> float:
        return START + self.elapsed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


class Counter:
    """Counts requests in this process.

    Args:
        limits: The limits, shortest first.
    """

    def __init__(self, limits: str) -> None:
        self._count = request_counter(parse_many(limits), "")

    def windows(self, client: str = "app") -> list[Window]:
        """Count a request of a client, and return the window of each limit."""
        return asyncio.run(self._count_one(client))

    def used(self, client: str = "app") -> list[int]:
        return [window.used for window in self.windows(client)]

    async def _count_one(self, client: str) -> list[Window]:
        return await self._count(client)


def test_long_window_counts_across_short_ones(clock: Clock) -> None:
    counter = Counter("2/second;3/minute;4/hour;5/day")
    counted = []
    for clock.elapsed in (0, 1, 60, 3600, DAY - 1):
        windows = counter.windows()
        counted.append([window.used for window in windows])
        assert [window.remaining for window in windows] == [window.limit.amount - window.used for window in windows], (
            clock.elapsed
        )
    assert counted == [[1, 1, 1, 1], [1, 2, 2, 2], [1, 1, 3, 3], [1, 1, 1, 4], [1, 1, 1, 5]]

    clock.elapsed = DAY - 0.25
    windows = counter.windows()
    assert [(window.used, window.remaining) for window in windows] == [(2, 0), (2, 1), (2, 2), (6, 0)]
    assert [window.seconds for window in windows] == [1, 60, 3600, 1]


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("1/second", 1), ("1/3 second", 3), ("1/minute", 60), ("1/hour", 3600), ("1/12 hour", DAY // 2), ("1/day", DAY)],
)
def test_window_ends_exactly_when_reported(clock: Clock, limit: str, seconds: int) -> None:
    counter = Counter(limit)
    (first,) = counter.windows()
    assert (first.used, first.seconds) == (1, seconds)

    for before, reported in ((seconds / 2, seconds - seconds // 2), (0.25, 1), (1 / 1024, 1)):
        clock.elapsed = seconds - before
        (window,) = counter.windows()
        assert window.used > 1
        # The seconds are rounded up, so that a client that waits this long is not refused again.
        assert window.seconds == (reported if before < 1 else -(-seconds // 2))

    clock.elapsed = seconds
    (next_window,) = counter.windows()
    assert (next_window.used, next_window.seconds) == (1, seconds)
    # A window starts with its first request, however late that request comes.
    clock.elapsed = 10 * seconds + 0.5
    counter.windows()
    clock.elapsed = 11 * seconds + 0.25
    assert counter.used() == [2]
    clock.elapsed = 11 * seconds + 0.5
    assert counter.used() == [1]


def test_request_refused_by_a_short_limit_does_not_count_for_a_long_one(clock: Clock) -> None:
    counter = Counter("1/second;3/day")

    assert [counter.used() for _ in range(3)] == [[1, 1], [2, 1], [3, 1]]
    clock.elapsed = 1
    assert counter.used() == [1, 2]


def test_clients_are_counted_separately_until_the_longest_window_ends(clock: Clock) -> None:
    """Meanwhile, many other clients send requests, and their windows end."""
    counter = Counter("2/second;5/day")
    assert [counter.used("app"), counter.used("other")] == [[1, 1], [1, 1]]

    for number in range(1000):
        clock.elapsed = number * (DAY - 2) / 1000
        assert counter.used(f"{number}") == [1, 1]
    clock.elapsed = DAY - 1
    assert [counter.used("app"), counter.used("other"), counter.used("0")] == [[1, 2], [1, 2], [1, 2]]
    clock.elapsed = DAY
    assert [counter.used("app"), counter.used("999"), counter.used("new")] == [[1, 1], [1, 2], [1, 1]]
