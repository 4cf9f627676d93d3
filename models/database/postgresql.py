"""A PostgreSQL server, or a CockroachDB cluster: a bounded pool of connections, for which the event loop waits.

With psycopg's own asyncio support a read took 24 µs of CPU, with threads that run psycopg 30, with Peewee's 160.
"""

import asyncio
import select
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from peewee import SQL, ColumnBase, Field, Node, NodeList, PostgresqlDatabase, Select, Tuple, fn
from playhouse.cockroachdb import CockroachDatabase
from psycopg import AsyncConnection, AsyncCursor, errors
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from models.database.errors import ConfigurationError, UnavailableError
from models.database.statements import Execute, Rows

# For so many seconds a request waits for a connection, and then for what it does with it. The server itself gives up
# before that, so that a lock costs no connection.
WAIT = 2.0
RUN = 3.0
SERVER_TIMEOUT = "2500ms"
# What the address may say otherwise, in seconds. A peer that vanished is noticed by the keepalives.
OPTIONS = {"connect_timeout": 2, "keepalives_idle": 10, "keepalives_interval": 2, "keepalives_count": 3}
# A server may acknowledge commits before they are on its disk, and keep the locks of a client that vanished.
SESSION = """SELECT
  set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false),
  set_config('idle_in_transaction_session_timeout', '10s', false),
  set_config('statement_timeout', %s, false)"""
# What ends well if it is done again: another transaction was first.
CONFLICTS = (errors.UniqueViolation, errors.SerializationFailure, errors.DeadlockDetected)
ATTEMPTS = 5
# The advisory lock under which a schema is changed, which has to have some number.
MIGRATION = int.from_bytes(b"tasks")

T = TypeVar("T")


class Server(PostgresqlDatabase):
    """A PostgreSQL server, used through a pool of connections; Peewee's own connection is for changes of the schema.

    Args:
        url: Its address, as libpq takes it.
        connections: How many connections the pool may have.
    """

    embedded = False
    # Another node may be migrating, which takes as long as it takes.
    before_migration = "SET statement_timeout = 0"

    def __init__(self, url: str, connections: int) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(f"DATABASE_URL is no address of a database: {str(error).strip()}.") from None
        self._url = url
        self._connections = connections
        self._options: dict[str, Any] = {name: value for name, value in OPTIONS.items() if name not in given}
        super().__init__(url, prefer_psycopg3=True, **self._options)

    def ensure_usable(self) -> None:
        """Look at what else has to be right once Peewee is connected.

        Raises:
            ConfigurationError: The database cannot hold every text.
        """
        ((encoding,),) = self.execute_sql("SELECT current_setting('server_encoding')").fetchall()
        if encoding != "UTF8":
            raise ConfigurationError(f"The database has the encoding {encoding}: create one with ENCODING 'UTF8'.")

    async def start(self) -> None:
        """Open the pool; a server that cannot be reached yet is tried again."""
        self._pool = AsyncConnectionPool(
            self._url,
            kwargs={**self._options, "autocommit": True, "prepare_threshold": 0},
            min_size=1,
            max_size=self._connections,
            open=False,
            configure=_configure,
            reconnect_timeout=WAIT,
        )
        await self._pool.open()

    async def shut_down(self) -> None:
        """Close the pool, once nothing uses it any more."""
        await self._pool.close()

    async def read(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run a statement that changes nothing, and return its rows.

        Raises:
            UnavailableError: The server is out of reach, or takes too long.
        """
        return await self._use(_read, sql, parameters)

    async def write(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Do some work on the database, and return its outcome once it is committed; each statement is on its own.

        Args:
            work: Is given what runs statements, and the arguments. It is done again if another one was first.
            arguments: Further arguments of the work.

        Raises:
            UnavailableError: The server is out of reach, or takes too long; the work may have been done all the same.
            Exception: What the work raised.
        """
        return await self._use(_repeat, _do, work, arguments)

    async def write_together(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Do some work as `write` does, all of it or none."""
        return await self._use(_repeat, _do_together, work, arguments)

    def observe_batches(self, _: Callable[[int], None]) -> None:
        """Do nothing: each write has a commit of its own, and the server lets them share a flush."""

    def queue_depth(self) -> int:
        """Return how many requests wait for a connection."""
        return self._pool.get_stats()["requests_waiting"]

    def connection_states(self) -> dict[str, int]:
        """Return how many connections are in use, and how many are not."""
        stats = self._pool.get_stats()
        return {"used": stats["pool_size"] - stats["pool_available"], "idle": stats["pool_available"]}

    @contextmanager
    def migration(self) -> Iterator[None]:
        """Change the schema inside of this, all of it or nothing, while no other process does."""
        self.execute_sql(self.before_migration)
        with self.atomic():
            self.execute_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION,))
            yield

    def behind(self, column: Field, value: Node, key: Field, after: Node) -> Node:
        """Return the condition that a row has a value in a column, and a greater key; both in one range of their index.

        Otherwise the planner may look for the few rows with this value in the order of all keys.
        """
        return NodeList((Tuple(column, key), SQL(">"), Tuple(value, after), SQL("AND"), column <= value))

    def json_object(self, columns: Mapping[str, tuple[ColumnBase, Field]]) -> ColumnBase:
        """Return an object with these properties, as text."""
        row = Select(columns=[column.alias(name) for name, (column, _) in columns.items()])
        return fn.row_to_json(NodeList((SQL("(SELECT r FROM"), row, SQL("AS r)")))).cast("text")

    def json_array(self, objects: ColumnBase, order: ColumnBase) -> ColumnBase:
        """Return an array of these objects, as text."""
        text = fn.string_agg(objects, NodeList((SQL("',' ORDER BY"), order)))
        return fn.CONCAT(SQL("'['"), text, SQL("']'"))

    def as_bytes(self, text: ColumnBase) -> ColumnBase:
        """Return a text in UTF-8."""
        return fn.convert_to(text, SQL("'UTF8'"))

    async def _use(self, use: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        try:
            connection = await self._take()
            timer = asyncio.get_running_loop().call_later(RUN, _abort, connection)
            try:
                return await use(connection, *arguments)
            except errors.ReadOnlySqlTransaction:
                # Another server is the primary now.
                await connection.close()
                raise
            finally:
                timer.cancel()
                await self._pool.putconn(connection)
        except (psycopg.OperationalError, errors.ReadOnlySqlTransaction) as error:
            raise UnavailableError(str(error).strip()) from None

    async def _take(self) -> AsyncConnection[Any]:
        """Return a connection of the pool, but none that the server has ended meanwhile."""
        while True:
            connection = await self._pool.getconn(WAIT)
            if not _has_news(connection):
                return connection
            await connection.close()
            await self._pool.putconn(connection)


class CockroachCluster(CockroachDatabase, Server):
    """A CockroachDB cluster."""

    # Without a sequence, ids are in no order, and beyond what JavaScript counts to.
    before_migration = "SET serial_normalization = 'sql_sequence'"


async def _configure(connection: AsyncConnection[Any]) -> None:
    await connection.execute(SESSION, [SERVER_TIMEOUT])


def _has_news(connection: AsyncConnection[Any]) -> bool:
    """Tell whether an idle connection has something to read, which is the news of its end."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _abort(connection: AsyncConnection[Any]) -> None:
    # Not by cancelling who waits for it: psycopg would ask the server to stop, and wait for its answer.
    with socket.socket(fileno=socket.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


async def _read(connection: AsyncConnection[Any], sql: str, parameters: Sequence[Any]) -> Rows:
    return await _execute(connection.cursor(binary=True), sql, parameters)


async def _repeat(connection: AsyncConnection[Any], do: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    for _ in range(1, ATTEMPTS):
        try:
            return await do(connection, *arguments)
        except CONFLICTS:
            continue
    return await do(connection, *arguments)


async def _do(
    connection: AsyncConnection[Any], work: Callable[..., Coroutine[Any, Any, T]], arguments: tuple[Any, ...]
) -> T:
    cursor = connection.cursor(binary=True)
    execute: Execute = lambda sql, parameters: _execute(cursor, sql, parameters)  # noqa: E731
    return await work(execute, *arguments)


async def _do_together(connection: AsyncConnection[Any], *arguments: Any) -> Any:
    async with connection.transaction():
        return await _do(connection, *arguments)


async def _execute(cursor: AsyncCursor[Any], sql: str, parameters: Sequence[Any]) -> Rows:
    await cursor.execute(sql, parameters)
    return await cursor.fetchall() if cursor.description else []
