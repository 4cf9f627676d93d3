"""The queries of a resource: a table whose rows the API serves as JSON objects.

The database itself writes the JSON. For a list of fifty rows, Python would need twice the time.
"""

from collections.abc import Callable, Collection, Mapping
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import peewee
from peewee import SQL, ColumnBase, Field, Node, NodeList, Query, Select, fn
from pydantic import BaseModel

from models.database.address import Database
from models.database.errors import ChangedError, ConfigurationError, MissingError
from models.database.statements import Execute, Statement, parameter

# The versions of a row that a request may change; None allows every version.
Versions = Collection[int] | None
# A filter of the list: the field that must have the value, or a function that returns the condition for a value.
Filter = Field | Callable[[Node], Node]


class Stored(NamedTuple):
    """A row: its id, its version (0 if the table has no versions), and the JSON object for responses."""

    id: Any
    version: int
    json: bytes


class Page(NamedTuple):
    """A page of the list: a JSON array, the id of the last row, and whether another page follows."""

    json: bytes
    last_id: Any
    has_more: bool


class Resource:
    """The SQL statements for a table, each rendered once.

    Args:
        database: The database with the table.
        table: The table. Its columns have the names of the properties in snake case, and one of them is the primary
            key. Every change increments the field `version`, if there is one.
        response: The model of the JSON object for responses.
        filters: The filters of the list by name. For a field, there should be an index on its column and the key.
    """

    def __init__(
        self,
        database: Database,
        table: type[peewee.Model],
        response: type[BaseModel],
        filters: Mapping[str, Filter] | None = None,
    ) -> None:
        self._database = database
        self._table = table
        self._key: Any = table._meta.primary_key
        self._version: ColumnBase = table._meta.fields.get("version", SQL("0"))
        self._filters = filters or {}
        # Every name of a field and of a column, such as `project` and `project_id` of a foreign key.
        self._fields: dict[str, Field] = table._meta.combined
        names = {info.alias or name: name for name, info in response.model_fields.items()}
        if missing := names.values() - self._fields.keys():
            name = f"{table._meta.table_name} ({table.__module__})"
            raise ConfigurationError(f"Add the columns {', '.join(sorted(missing))} of {response.__name__} to {name}.")
        self._properties = {alias: self._fields[name] for alias, name in names.items()}
        stored = self._key, self._version, database.as_bytes(self._json(lambda field: field))
        self._select = Statement(table.select(*stored).where(self._by_key()), database)
        # The fingerprint of the JSON format is part of every entity tag, so the tags change with the format.
        self.fingerprint = sha256(self._select.sql.encode()).hexdigest()[:8]

        def insert(*names: str) -> Statement:
            return Statement(table.insert(self._parameters(names)).returning(*stored), database)

        def update(versions: int | None, *names: str) -> Statement:
            values = self._parameters(names)
            if isinstance(self._version, Field):
                values[self._version] = self._version + SQL("1")
            # A statement must set something.
            query = table.update(values or {self._key: self._key})
            return Statement(query.where(self._by_key(versions)).returning(*stored), database)

        def delete(versions: int | None) -> Statement:
            return Statement(table.delete().where(self._by_key(versions)).returning(self._key), database)

        # Clients choose how many versions a request names, so the number of cached statements must be limited.
        self._insert, self._update, self._delete = lru_cache(insert), lru_cache(update), lru_cache(delete)
        self._select_page = cache(lambda filters: Statement(self._page(filters), database))

    async def select_page(self, limit: int, after: Any, **filters: Any) -> Page:
        """Return the first `limit` rows with an id greater than `after`. A filter that is None is ignored."""
        statement = self._select_page(tuple([name for name, value in filters.items() if value is not None]))
        rows = await self._database.read(statement.sql, statement.order({"limit": limit, "after": after, **filters}))
        return Page(*rows[0])

    async def select(self, id: Any) -> Stored:
        """Return a row. Raise MissingError if no row has this id."""
        rows = await self._database.read(self._select.sql, [id])
        if not rows:
            raise MissingError
        return Stored(*rows[0])

    async def insert(self, execute: Execute, body: BaseModel, **columns: Any) -> Stored:
        """Insert a row with the values of the body, and of further columns, and return it."""
        values = {**self._table._meta.get_default_dict(), **self._values(body.__dict__ | columns)}
        statement = self._insert(*values)
        return Stored(*(await execute(statement.sql, statement.order(values)))[0])

    async def update(self, execute: Execute, id: Any, body: BaseModel, versions: Versions, **columns: Any) -> Stored:
        """Update a row, and return it. Raise MissingError if there is none, ChangedError if its version differs."""
        return Stored(*await self._change(execute, self._update, id, body.__dict__ | columns, versions))

    async def patch(
        self, execute: Execute, id: Any, body: BaseModel | None, versions: Versions, **columns: Any
    ) -> Stored:
        """Update only the columns whose properties the body has, and further columns; otherwise like `update`."""
        given = {name: value for name, value in vars(body).items() if name in body.model_fields_set} if body else {}
        return Stored(*await self._change(execute, self._update, id, given | columns, versions))

    async def delete(self, execute: Execute, id: Any, versions: Versions) -> None:
        """Delete a row. Raise MissingError if there is none, ChangedError if its version differs."""
        await self._change(execute, self._delete, id, {}, versions)

    async def _change(
        self, execute: Execute, change: Callable[..., Statement], id: Any, columns: dict[str, Any], versions: Versions
    ) -> tuple[Any, ...]:
        statement = change(None if versions is None else len(versions), *columns)
        allowed = {f"version{number}": version for number, version in enumerate(versions or ())}
        values = {**self._values(columns), **allowed, "id": id}
        while not (rows := await execute(statement.sql, statement.order(values))):
            if versions is None or not (found := await execute(self._select.sql, [id])):
                raise MissingError
            # If another transaction has just set one of these versions, the next attempt succeeds.
            if (version := Stored(*found[0]).version) not in versions:
                raise ChangedError(version)
        return rows[0]

    def _values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._fields[name].db_value(value) for name, value in values.items()}

    def _parameters(self, names: Collection[str]) -> dict[Field, Node]:
        return {self._fields[name]: parameter(name) for name in names}

    def _by_key(self, versions: int | None = None) -> Node:
        """Return the condition for a row's id and, unless `versions` is None, for one of that many versions."""
        condition: Node = self._key == parameter("id")
        if versions is not None:
            condition &= self._version.in_([parameter(f"version{number}") for number in range(versions)])
        return condition

    def _json(self, column: Callable[[Field], ColumnBase]) -> ColumnBase:
        """Return an SQL expression for a row as the contract's JSON object, with the columns of the fields."""
        return self._database.json_object({alias: (column(field), field) for alias, field in self._properties.items()})

    def _page(self, filters: tuple[str, ...]) -> Query:
        """Return the query of a page, with conditions for the named filters."""
        database, key = self._database, self._key

        def narrow(query: Select, after: Node) -> Select:
            indexed: Field | None = None
            for name in filters:
                condition, value = self._filters[name], parameter(name)
                if not isinstance(condition, Field):
                    query = query.where(condition(value))
                elif indexed:
                    query = query.where(condition == value)
                else:
                    indexed = condition
                    query = query.where(database.keyset_condition(condition, value, key, after))
            return query.order_by(indexed, key) if indexed else query.where(key > after).order_by(key)

        rows = narrow(self._table.select(), parameter("after")).limit(parameter("limit"))
        key_column = getattr(rows.c, key.column_name)
        objects = self._json(lambda field: getattr(rows.c, field.column_name))
        array = database.as_bytes(database.json_array(objects, key_column))
        page = Select([rows], [array.alias("json"), fn.max(key_column).alias("last")])
        # With EXISTS, PostgreSQL would scan the whole table if the last page is requested.
        more = NodeList((narrow(self._table.select(key), page.c.last).limit(SQL("1")), SQL("IS NOT NULL")))
        return Select([page], [page.c.json, page.c.last, more])
