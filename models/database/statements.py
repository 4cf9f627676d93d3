"""Statements that Peewee renders once and the service runs many times. Rendering one takes 100 µs."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from peewee import Database, Query, Value

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
# A function that runs SQL with parameters in a transaction, and returns the rows.
Execute = Callable[[str, Sequence[Any]], Awaitable[Rows]]
# A write: a coroutine function that receives `Execute` and further arguments.
Work = Callable[..., Coroutine[Any, Any, T]]


class Statement:
    """A rendered query. The values that differ from run to run are each a `parameter` in the query."""

    def __init__(self, query: Query, database: Database) -> None:
        self.sql, self._values = query.bind(database).sql()

    def order(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the values in the order of the parameters."""
        return [values[value] if isinstance(value, Name) else value for value in self._values]


class Name(str):
    """The name of a parameter, where Peewee expects its value."""


def parameter(name: str) -> Value:
    """Return the placeholder for a value in a query."""
    return Value(Name(name), converter=False)
