"""SQL that Peewee renders once, to be run with other values each time; rendering costs 100 µs."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from peewee import Database, Query, Value

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
# Runs SQL with the values of its parameters inside of a transaction, and returns the rows.
Execute = Callable[[str, Sequence[Any]], Awaitable[Rows]]
# A write: receives `Execute` and further arguments.
Work = Callable[..., Coroutine[Any, Any, T]]


class Statement(NamedTuple):
    """Rendered SQL, and the names of its parameters in order."""

    sql: str
    names: tuple[str, ...]

    def order(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the values in the order of the parameters."""
        return [values[name] for name in self.names]


def parameter(name: str) -> Value:
    """Return the placeholder for a value in a query."""
    return Value(name, converter=False)


def render(query: Query, database: Database) -> Statement:
    """Return the SQL of a query in the database's dialect; every value in it must be a `parameter`."""
    sql, names = query.bind(database).sql()
    return Statement(sql, tuple(names))
