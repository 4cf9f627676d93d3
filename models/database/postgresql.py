"""A PostgreSQL server or a CockroachDB cluster, used through a pool of pipelines on the event loop."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import peewee
import psycopg
from peewee import SQL, ColumnBase, Field, Node, NodeList, Select, Tuple, fn
from playhouse.cockroachdb import CockroachDatabase
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from models.database.errors import ConfigurationError, DuplicateError, ForeignKeyError, UnavailableError
from models.database.pipeline import BEGIN, COMMIT, FINAL, LOST_STATEMENTS, Pipeline, PooledConnection, Query
from models.database.pool import PipelinePool
from models.database.statements import Execute, Rows, T, Work

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
POOLER_CANNOT_PREPARE = (
    "The connection pooler of the database does not support prepared statements, so requests take longer:"
    " use PgBouncer 1.22 or later with pool_mode = transaction and max_prepared_statements = 200, then restart."
)
# The key of the advisory lock for migrations. It must not change: nodes of several releases may migrate at once.
MIGRATION_LOCK = 499_851_160_435

logger = logging.getLogger(__name__)


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
        connections = AsyncConnectionPool(
            self.database,
            connection_class=PooledConnection,
            kwargs={**self._options, "autocommit": True},
            min_size=1,
            max_size=self._connections,
            open=False,
            configure=self._configure,
            reconnect_timeout=POOL_TIMEOUT,
        )
        await connections.open()
        self._pool = PipelinePool(connections, POOL_TIMEOUT, TIMEOUT)

    async def shut_down(self) -> None:
        """Close the pool."""
        await self._pool.close()

    async def read(self, sql: str, parameters: Sequence[Any]) -> Rows:
        outcome = await self._pool.read((sql, parameters))
        if isinstance(outcome, Exception):
            raise self._translate(outcome)
        return outcome

    async def write(self, work: Work[T], *arguments: Any) -> T:
        """Run a write, whose statements commit separately.

        The write may have succeeded despite an UnavailableError.
        """
        return await self._write(Statements, work, arguments)

    async def write_atomically(self, work: Work[T], *arguments: Any) -> T:
        """Run a write in one transaction."""
        return await self._write(Transaction, work, arguments)

    def queue_depth(self) -> int:
        return self._pool.queue_depth()

    def connection_states(self) -> dict[str, int]:
        return self._pool.connection_states()

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

    async def _write(self, statements: "type[Statements]", work: Work[T], arguments: tuple[Any, ...]) -> T:
        pipeline = await self._pool.acquire()
        try:
            result = await _run(statements(pipeline), work, arguments)
            if pipeline.lacks_standby:
                raise UnavailableError("the wait for the standby was canceled; a failover may lose the write")
            return result
        except psycopg.Error as error:
            raise self._translate(error) from None
        finally:
            pipeline.release()

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, LOST_STATEMENTS):
            self._stop_preparing()
        # A deferred constraint is checked by the commit.
        if isinstance(error, psycopg.IntegrityError):
            return _constraint_error(error)
        if isinstance(error, (psycopg.OperationalError, *FINAL)):
            return UnavailableError(str(error).strip())
        return error

    async def _configure(self, connection: PooledConnection) -> None:
        # A pooler invents the process id that a client needs to cancel a statement.
        invented = f"pg_backend_pid() != {connection.info.backend_pid}"
        timer = asyncio.get_running_loop().call_later(TIMEOUT, _abort, connection)
        try:
            cursor = await connection.execute(SETTINGS.format(local=invented), prepare=False)
            ((*_, pid),) = await cursor.fetchall()
            if pid != connection.info.backend_pid:
                connection.settings = [(SET_LOCAL, ())]
                if self._prepares and not await _can_prepare(connection):
                    self._stop_preparing()
        finally:
            timer.cancel()
        connection.prepares = self._prepares

    def _stop_preparing(self) -> None:
        if self._prepares:
            logger.warning(POOLER_CANNOT_PREPARE)
        self._prepares = False


class CockroachCluster(CockroachDatabase, PostgresqlDatabase):
    """A CockroachDB cluster."""

    # Take ids from a sequence. The default ids are not ascending, and too large for JavaScript's integers.
    before_migration = "SET LOCAL serial_normalization = 'sql_sequence'"


class Statements:
    """The statements of a write, each of which commits separately."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def __aenter__(self) -> Execute:
        return self._execute

    async def __aexit__(self, *exception: object) -> None:
        pass

    async def _execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        try:
            return await self._pipeline.execute((sql, parameters), self._before())
        except psycopg.IntegrityError as error:
            raise _constraint_error(error) from None

    def _before(self) -> Sequence[Query]:
        return self._pipeline.connection.settings


class Transaction(Statements):
    """The statements of a write in one transaction, which begins in the round trip of the first statement."""

    async def __aenter__(self) -> Execute:
        self._is_open = self._has_failed = False
        return self._execute

    async def __aexit__(self, *exception: object) -> None:
        if not self._is_open:
            return
        if not any(exception) and not self._has_failed:
            await self._pipeline.execute(COMMIT)
            return
        self._pipeline.roll_back()
        if not any(exception):
            raise errors.InFailedSqlTransaction("the write suppressed the error of a statement")

    async def _execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        try:
            return await super()._execute(sql, parameters)
        except Exception:
            self._has_failed = True
            raise

    def _before(self) -> Sequence[Query]:
        if self._is_open:
            return ()
        self._is_open = True
        return [BEGIN, *super()._before()]


async def _run(statements: Statements, work: Work[T], arguments: tuple[Any, ...]) -> T:
    attempts = 0
    while True:
        try:
            async with statements as execute:
                return await work(execute, *arguments)
        except CONFLICTS:
            attempts += 1
            if attempts == ATTEMPTS:
                raise


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


def _abort(connection: PooledConnection) -> None:
    # If the coroutine were cancelled instead, psycopg would ask the server to cancel the statement, and wait.
    with socket.socket(fileno=socket.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _constraint_error(error: psycopg.IntegrityError) -> Exception:
    match error:
        case errors.UniqueViolation():
            return DuplicateError(str(error))
        case errors.ForeignKeyViolation() | errors.RestrictViolation():
            return ForeignKeyError(str(error))
        case _:
            return error
