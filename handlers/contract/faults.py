"""Faults of the contract: what the service cannot serve, found before it starts."""

from collections.abc import Iterator
from contextlib import contextmanager


class FaultError(Exception):
    """A part of the contract that cannot be served.

    `place` is its path, such as `paths./toys.get.parameters[3]`; `sentence` says what is wrong and what to do.
    """

    def __init__(self, place: str, sentence: str) -> None:
        super().__init__(f"{place.removeprefix('.')}: {sentence}")


@contextmanager
def collected(faults: list[str]) -> Iterator[None]:
    """Add a fault that is raised to a list, so that one check finds all faults."""
    try:
        yield
    except FaultError as fault:
        faults.append(str(fault))
