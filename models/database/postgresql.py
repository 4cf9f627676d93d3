"""A PostgreSQL server or a CockroachDB cluster, used through a connection pool on the event loop.

A read takes 24 µs of CPU with psycopg's asyncio support, 30 µs with psycopg in threads, and 160 µs with Peewee.
"""

import asyncio
import logging
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import peewee
import psycopg
from peewee import SQL, ColumnBase, Field, Node, NodeList, Select, Tuple, fn
from playhouse.cockroachdb import CockroachDatabase
from psycopg import AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from models.database.errors import ConfigurationError, DuplicateError, ForeignKeyError, UnavailableError
from models.database.statements import Rows, T, Work

# Seconds that a request waits for a connection, and then for the results of its statements.
POOL_TIMEOUT = 2.0
TIMEOUT = 3.0
# Connection options in seconds, which DATABASE_URL may override. Keepalives detect a server that vanished.
OPTIONS: dict[str, Any] = {
    "connect_timeout": 2,
    "keepalives_idle": 10,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
# With several hosts, libpq would take the first one that accepts connections, even a standby.
SEVERAL_HOSTS = {"target_session_attrs": "read-write"}
# Acknowledge a commit only after the flush to disk and the wait for the synchronous standby; the server reports a
# canceled wait in a warning. End a transaction whose client vanished, because it keeps its locks. Let a statement end
# before TIMEOUT, after which the connection is closed, so that a connection survives a lock wait.
SETTINGS = """SELECT
  set_config('synchronous_commit', regexp_replace(current_setting('synchronous_commit'), 'off|local', 'on'), {local}),
  set_config('client_min_messages', 'warning', {local}),
  set_config('idle_in_transaction_session_timeout', '10s', {local}),
  set_config('statement_timeout', '2500ms', {local}),
  pg_backend_pid()"""
SET_LOCAL = SETTINGS.format(local="true")
# Conflicts with a concurrent transaction, which a retry resolves.
CONFLICTS = (errors.SerializationFailure, errors.DeadlockDetected)
ATTEMPTS = 5
# A pooler replaced the session in which a statement was prepared.
LOST_STATEMENTS = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)
POOLER_CANNOT_PREPARE = (
    "The connection pooler of the database does not support prepared statements, so requests take longer:"
    " use PgBouncer 1.22 or later with pool_mode = transaction and max_prepared_statements = 200, then restart."
)
# The key of the advisory lock for migrations. It must not change: nodes of several releases may migrate at once.
MIGRATION_LOCK = 499_851_160_435

logger = logging.getLogger(__name__)


class PooledConnection(AsyncConnection[Any]):
    """A connection of the pool."""

    # A pooler, such as PgBouncer, gives each transaction another session of the server, which other clients use too. So
    # no setting and no prepared statement may remain in it, unless the pooler keeps account of prepared statements.
    has_pooler = False
    # Whether a commit succeeded without the synchronous standby, so that a failover may lose it.
    lacks_standby = False


class PostgresqlDatabase(peewee.PostgresqlDatabase):
    """A PostgreSQL database, with the same methods as `SqliteFile`. Peewee's own connection is used for migrations."""

    embedded = False
    # This is never called: every write has a commit of its own, and the server combines the flushes of commits.
    observe_batch: Callable[[int], None]
    # Another node may be migrating. Wait for it, however long that takes.
    before_migration = "SET LOCAL statement_timeout = 0"

    def __init__(self, url: str, connections: int) -> None:
        try:
            given = conninfo_to_dict(url)
        except (psycopg.ProgrammingError, UnicodeError) as error:
            # Other messages of libpq repeat a part of the password.
            is_public = "query parameter" in str(error) and "password" not in url.partition("?")[2]
            raise ValueError(str(error).strip() if is_public else "") from None
        options = OPTIONS | (SEVERAL_HOSTS if "," in f"{given.get('host')}{given.get('hostaddr')}" else {})
        self._options: dict[str, Any] = {name: value for name, value in options.items() if name not in given}
        super().__init__(url, prefer_psycopg3=True, prepare_threshold=None, **self._options)
        self._connections = connections
        self._prepares = True

    def _initialize_connection(self, connection: psycopg.Connection[Any]) -> None:
        """Raise ConfigurationError if the encoding of the database is not UTF-8."""
        ((encoding,),) = connection.execute("SHOW server_encoding").fetchall()
        if encoding != "UTF8":
            raise ConfigurationError(f"The database has the encoding {encoding}: create one with ENCODING 'UTF8'.")

    async def start(self) -> None:
        """Open the pool. While the server cannot be reached, the pool keeps trying to connect."""
        self._pool: AsyncConnectionPool[PooledConnection] = AsyncConnectionPool(
            self.database,
            connection_class=PooledConnection,
            kwargs={**self._options, "autocommit": True},
            min_size=1,
            max_size=self._connections,
            open=False,
            configure=self._configure,
            reconnect_timeout=POOL_TIMEOUT,
        )
        await self._pool.open()

    async def shut_down(self) -> None:
        """Close the pool once all connections have been returned."""
        await self._pool.close()

    async def read(self, sql: str, parameters: Sequence[Any]) -> Rows:
        return await self._use(_read, sql, parameters)

    async def write(self, work: Work[T], *arguments: Any) -> T:
        """Run a write. Behind a pooler, it is one transaction; otherwise each statement commits separately.

        The write may have succeeded despite an UnavailableError.
        """
        return await self._use(_write, _separately, work, arguments)

    async def write_atomically(self, work: Work[T], *arguments: Any) -> T:
        """Run a write in one transaction."""
        return await self._use(_write, _transaction, work, arguments)

    def queue_depth(self) -> int:
        return self._pool.get_stats()["requests_waiting"]

    def connection_states(self) -> dict[str, int]:
        stats = self._pool.get_stats()
        return {"used": stats["pool_size"] - stats["pool_available"], "idle": stats["pool_available"]}

    @contextmanager
    def migration(self) -> Iterator[None]:
        """Run a migration in a transaction that excludes migrations of other processes."""
        with self.atomic():
            self.execute_sql(self.before_migration)
            self.execute_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            yield

    def keyset_condition(self, column: Field, value: Node, key: Field, after: Node) -> Node:
        # This is a single range of the index on both columns. Otherwise the planner may scan all keys for a rare value.
        return NodeList((Tuple(column, key), SQL(">"), Tuple(value, after), SQL("AND"), column <= value))

    def json_object(self, columns: Mapping[str, tuple[ColumnBase, Field]]) -> ColumnBase:
        row = Select(columns=[column.alias(name) for name, (column, _) in columns.items()])
        return fn.row_to_json(NodeList((SQL("(SELECT r FROM"), row, SQL("AS r)")))).cast("text")

    def json_array(self, objects: ColumnBase, order: ColumnBase) -> ColumnBase:
        text = fn.string_agg(objects, NodeList((SQL("',' ORDER BY"), order)))
        return fn.CONCAT(SQL("'['"), text, SQL("']'"))

    def as_bytes(self, text: ColumnBase) -> ColumnBase:
        return fn.convert_to(text, SQL("'UTF8'"))

    async def _use(self, use: Work[T], *arguments: Any) -> T:
        try:
            connection = await self._take()
            connection.lacks_standby = False
            try:
                with _aborted_after_timeout(connection):
                    result = await use(connection, *arguments)
                if connection.lacks_standby:
                    raise UnavailableError("the wait for the standby was canceled; a failover may lose the write")
                return result
            except errors.ReadOnlySqlTransaction:
                # After a failover another server is the primary.
                await connection.close()
                raise
            except LOST_STATEMENTS as error:
                self._stop_preparing()
                await connection.close()
                raise UnavailableError(str(error)) from None
            finally:
                await self._pool.putconn(connection)
        except (psycopg.OperationalError, errors.ReadOnlySqlTransaction) as error:
            raise UnavailableError(str(error).strip()) from None
        except psycopg.InternalError as error:
            # The session ended before the commit: psycopg cannot tell the server's error from that of the pooler.
            if error.sqlstate:
                raise
            raise UnavailableError(str(error)) from None
        # A deferred constraint is checked by the commit.
        except psycopg.IntegrityError as error:
            raise _translate(error) from None

    async def _configure(self, connection: PooledConnection) -> None:
        # A pooler invents the process id that a client needs to cancel a statement.
        invented = f"pg_backend_pid() != {connection.info.backend_pid}"
        with _aborted_after_timeout(connection):
            cursor = await connection.execute(SETTINGS.format(local=invented), prepare=False)
            ((*_, pid),) = await cursor.fetchall()
            connection.has_pooler = pid != connection.info.backend_pid
            if connection.has_pooler and self._prepares and not await _can_prepare(connection):
                self._stop_preparing()
        connection.prepare_threshold = 0 if self._prepares else None

        def check(warning: errors.Diagnostic) -> None:
            # The wait of a commit for the standby was canceled. The server reports success, with this warning.
            connection.lacks_standby |= warning.source_function == "SyncRepWaitForLSN"

        connection.add_notice_handler(check)

    def _stop_preparing(self) -> None:
        if self._prepares:
            logger.warning(POOLER_CANNOT_PREPARE)
        self._prepares = False

    async def _take(self) -> PooledConnection:
        """Return a pooled connection that the server has not closed."""
        while True:
            connection = await self._pool.getconn(POOL_TIMEOUT)
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            # An idle connection becomes readable when the server closes it.
            if not poll.poll(0):
                return connection
            await connection.close()
            await self._pool.putconn(connection)


class CockroachCluster(CockroachDatabase, PostgresqlDatabase):
    """A CockroachDB cluster."""

    # Take ids from a sequence. The default ids are not ascending, and too large for JavaScript's integers.
    before_migration = "SET LOCAL serial_normalization = 'sql_sequence'"


async def _can_prepare(connection: PooledConnection) -> bool:
    """Return whether a pooler is PgBouncer in transaction mode that keeps account of prepared statements.

    It gives them other names. Under its own name, a statement might be that of another client.
    """
    try:
        async with connection.transaction():
            own_name = "SELECT name FROM pg_prepared_statements WHERE statement = current_query()"
            ((name,),) = await (await connection.execute(own_name, prepare=True)).fetchall()
            if name.startswith("PGBOUNCER"):
                return True
            # Leave nothing behind in the session.
            await connection.execute(f'DEALLOCATE "{name}"')
    except errors.DuplicatePreparedStatement:
        pass
    return False


def _separately(connection: PooledConnection) -> AbstractAsyncContextManager[Any]:
    return _transaction_with_settings(connection) if connection.has_pooler else nullcontext()


def _transaction(connection: PooledConnection) -> AbstractAsyncContextManager[Any]:
    return _transaction_with_settings(connection) if connection.has_pooler else connection.transaction()


@asynccontextmanager
async def _transaction_with_settings(connection: PooledConnection) -> AsyncIterator[None]:
    try:
        # This takes a single round trip.
        await connection.execute(f"BEGIN; {SET_LOCAL}", prepare=False)
        yield
    except BaseException:
        # If the connection is lost, raise the error that led here.
        with suppress(psycopg.Error):
            await connection.rollback()
        raise
    await connection.commit()


@contextmanager
def _aborted_after_timeout(connection: PooledConnection) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    timer = loop.call_later(TIMEOUT, _abort, connection)
    try:
        yield
    except psycopg.OperationalError:
        if loop.time() < timer.when():
            raise
        cause = "no result within {:g} seconds; the server hangs, or a commit waits for a standby that is down"
        raise UnavailableError(cause.format(TIMEOUT)) from None
    finally:
        timer.cancel()


def _abort(connection: PooledConnection) -> None:
    # If the coroutine were cancelled instead, psycopg would ask the server to cancel the statement, and wait.
    with socket.socket(fileno=socket.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


async def _read(connection: PooledConnection, sql: str, parameters: Sequence[Any]) -> Rows:
    if not connection.has_pooler:
        return await _execute(connection, sql, parameters)
    # Both statements are one transaction, in a single round trip. This suits no write: psycopg does not read the error
    # of the commit that ends a pipeline.
    async with connection.pipeline():
        await connection.execute(SET_LOCAL)
        cursor = await connection.execute(sql, parameters, binary=True)
    return await cursor.fetchall()


async def _write(
    connection: PooledConnection,
    transaction: Callable[[PooledConnection], AbstractAsyncContextManager[Any]],
    work: Work[T],
    arguments: tuple[Any, ...],
) -> T:
    attempts = 0
    while True:
        try:
            async with transaction(connection):
                return await work(partial(_execute, connection), *arguments)
        except CONFLICTS:
            attempts += 1
            if attempts == ATTEMPTS:
                raise


async def _execute(connection: PooledConnection, sql: str, parameters: Sequence[Any]) -> Rows:
    try:
        cursor = await connection.execute(sql, parameters, binary=True)
    except psycopg.IntegrityError as error:
        raise _translate(error) from None
    return await cursor.fetchall() if cursor.description else []


def _translate(error: psycopg.IntegrityError) -> Exception:
    match error:
        case errors.UniqueViolation():
            return DuplicateError(str(error))
        case errors.ForeignKeyViolation() | errors.RestrictViolation():
            return ForeignKeyError(str(error))
        case _:
            return error
