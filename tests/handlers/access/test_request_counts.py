"""How requests are counted in one process: each window from its first request to its exact end."""

import asyncio
import time

import pytest
from limits import parse_many

from handlers.access.request_counts import Window, counting

DAY = 86400
START = 1_800_000_000.25


class Clock:
    """What `time.time` tells: so many seconds after the start, until it is set otherwise."""

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
        limits: The limits, the shortest first.
    """

    def __init__(self, limits: str) -> None:
        self._count = counting(parse_many(limits), "")

    def windows(self, who: str = "app") -> list[Window]:
        """Count a request, and return what was counted for each limit."""
        return asyncio.run(self._count_one(who))

    def used(self, who: str = "app") -> list[int]:
        return [window.used for window in self.windows(who)]

    async def _count_one(self, who: str) -> list[Window]:
        return await self._count(who)


def test_long_window_counts_across_short_ones(clock: Clock) -> None:
    counter = Counter("2/second;3/minute;4/hour;5/day")
    counted = []
    for clock.elapsed in (0, 1, 60, 3600, DAY - 1):
        windows = counter.windows()
        counted.append([window.used for window in windows])
        assert [window.left for window in windows] == [window.limit.amount - window.used for window in windows], (
            clock.elapsed
        )
    assert counted == [[1, 1, 1, 1], [1, 2, 2, 2], [1, 1, 3, 3], [1, 1, 1, 4], [1, 1, 1, 5]]

    clock.elapsed = DAY - 0.25
    windows = counter.windows()
    assert [(window.used, window.left) for window in windows] == [(2, 0), (2, 1), (2, 2), (6, 0)]
    assert [window.seconds for window in windows] == [1, 60, 3600, 1]


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("1/second", 1), ("1/3 second", 3), ("1/minute", 60), ("1/hour", 3600), ("1/12 hour", DAY // 2), ("1/day", DAY)],
)
def test_window_ends_exactly_when_it_says(clock: Clock, limit: str, seconds: int) -> None:
    counter = Counter(limit)
    (first,) = counter.windows()
    assert (first.used, first.seconds) == (1, seconds)

    for before, told in ((seconds / 2, seconds - seconds // 2), (0.25, 1), (1 / 1024, 1)):
        clock.elapsed = seconds - before
        (window,) = counter.windows()
        assert window.used > 1
        # Rounded up: who waits for so long is not refused again.
        assert window.seconds == (told if before < 1 else -(-seconds // 2))

    clock.elapsed = seconds
    (renewed,) = counter.windows()
    assert (renewed.used, renewed.seconds) == (1, seconds)
    # From its first request on, however late that came.
    clock.elapsed = 10 * seconds + 0.5
    counter.windows()
    clock.elapsed = 11 * seconds + 0.25
    assert counter.used() == [2]
    clock.elapsed = 11 * seconds + 0.5
    assert counter.used() == [1]


def test_what_a_short_limit_refuses_is_not_taken_off_a_long_one(clock: Clock) -> None:
    counter = Counter("1/second;3/day")

    assert [counter.used() for _ in range(3)] == [[1, 1], [2, 1], [3, 1]]
    clock.elapsed = 1
    assert counter.used() == [1, 2]


def test_callers_are_counted_apart_and_kept_for_as_long_as_the_longest_window(clock: Clock) -> None:
    """Also while many others come and go, whose windows end one after the other."""
    counter = Counter("2/second;5/day")
    assert [counter.used("app"), counter.used("other")] == [[1, 1], [1, 1]]

    for number in range(1000):
        clock.elapsed = number * (DAY - 2) / 1000
        assert counter.used(f"{number}") == [1, 1]
    clock.elapsed = DAY - 1
    assert [counter.used("app"), counter.used("other"), counter.used("0")] == [[1, 2], [1, 2], [1, 2]]
    clock.elapsed = DAY
    assert [counter.used("app"), counter.used("999"), counter.used("new")] == [[1, 1], [1, 2], [1, 1]]
