"""Check whether a history of concurrent operations is linearizable.

A history is linearizable if each operation can have taken effect at one moment between its call and its return. The
search is Wing and Gong's, with Lowe's cache of visited states ("Testing for linearizability", 2017).
"""

from collections.abc import Callable, Hashable, Iterable
from math import inf
from typing import Any, NamedTuple, TypeVar

State = TypeVar("State", bound=Hashable)


class Operation(NamedTuple):
    """A call and its response; `called` and `returned` are times on the same clock."""

    called: float
    returned: float
    call: Any
    response: Any


def is_linearizable(
    history: Iterable[Operation], start: State, step: Callable[[State, Any, Any], State | None]
) -> bool:
    """Return whether some order of the operations explains every response.

    Args:
        history: Completed operations.
        start: The state before the first operation.
        step: Returns the state after a call, or None if the response is wrong in the given state.
    """
    operations = sorted(history)
    # In each entry, all operations before `first` and all operations in `others` are done; `state` is their result.
    stack: list[tuple[int, frozenset[int], State]] = [(0, frozenset(), start)]
    visited = set(stack)
    while stack:
        first, others, state = stack.pop()
        if first == len(operations):
            return True
        earliest_end = inf
        for number in range(first, len(operations)):
            called, returned, call, response = operations[number]
            # An operation cannot be next if a pending operation returned before this operation was called.
            if called > earliest_end:
                break
            if number in others:
                continue
            earliest_end = min(earliest_end, returned)
            after = step(state, call, response)
            if after is None:
                continue
            following = _advance(first, others | {number}, after)
            if following not in visited:
                visited.add(following)
                stack.append(following)
    return False


def _advance(first: int, others: frozenset[int], state: State) -> tuple[int, frozenset[int], State]:
    while first in others:
        others -= {first}
        first += 1
    return first, others, state
