"""Tells whether a history of concurrent operations has an order in which each could have happened at one moment.

The search is that of Wing and Gong, with Lowe's memory of what was tried ("Testing for linearizability", 2017).
"""

from collections.abc import Callable, Hashable, Iterable
from math import inf
from typing import Any, NamedTuple, TypeVar

State = TypeVar("State", bound=Hashable)


class Operation(NamedTuple):
    """A call, and what came of it; the times are those of one clock."""

    called: float
    returned: float
    call: Any
    answer: Any


def is_linearizable(
    history: Iterable[Operation], start: State, step: Callable[[State, Any, Any], State | None]
) -> bool:
    """Return whether the operations can be put in an order that explains every answer.

    Args:
        history: The operations, each of which has returned.
        start: The state before the first.
        step: Gives the state after a call in a state, or None if the answer is not the one that it has there.
    """
    operations = sorted(history)
    # What is done: all of the first few operations, and some of those behind them.
    stack: list[tuple[int, frozenset[int], State]] = [(0, frozenset(), start)]
    tried = set(stack)
    while stack:
        first, others, state = stack.pop()
        if first == len(operations):
            return True
        earliest_end = inf
        for number in range(first, len(operations)):
            called, returned, call, answer = operations[number]
            # It cannot come next if one that is not done returned before it was called.
            if called > earliest_end:
                break
            if number in others:
                continue
            earliest_end = min(earliest_end, returned)
            after = step(state, call, answer)
            if after is None:
                continue
            following = _done(first, others | {number}, after)
            if following not in tried:
                tried.add(following)
                stack.append(following)
    return False


def _done(first: int, others: frozenset[int], state: State) -> tuple[int, frozenset[int], State]:
    while first in others:
        others -= {first}
        first += 1
    return first, others, state
