"""SQL that Peewee renders once, and that is then run with other values each time."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from peewee import Query, Value

Rows = list[tuple[Any, ...]]
# Runs SQL with the values of its parameters, inside of the transaction that it was made for.
Execute = Callable[[str, Sequence[Any]], Awaitable[Rows]]


class Statement(NamedTuple):
    """SQL, and the names of its parameters in the order of their places."""

    sql: str
    names: tuple[str, ...]

    def order(self, values: Mapping[str, Any]) -> list[Any]:
        return [values[name] for name in self.names]


def parameter(name: str) -> Value:
    """Return what stands in a query where a value will be put in."""
    return Value(name, converter=False)


def render(query: Query) -> Statement:
    """Return the SQL of a query in which every value is a parameter."""
    sql, names = query.sql()
    return Statement(sql, tuple(names))
