"""A PostgreSQL connection in pipeline mode: statements that are sent together share one system call and one round trip.

It uses `psycopg.pq`, psycopg's interface to libpq, because `AsyncConnection.execute` takes three times as much CPU.
asyncpg is as fast, but it would be a second driver beside the one that Peewee needs, and it lacks features of libpq
that DATABASE_URL may use, such as service files and channel binding.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, TypeAlias

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from models.database.errors import UnavailableError
from models.database.statements import Rows

# The SQL and the parameters of a statement.
Query: TypeAlias = tuple[str, Sequence[Any]]
# The rows or the error of a statement.
Outcome: TypeAlias = Rows | Exception

# The attribute of an enumeration takes longer to look up.
TUPLES_OK, COMMAND_OK = ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK
FATAL_ERROR, PIPELINE_ABORTED = ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED
PIPELINE_SYNC = ExecStatus.PIPELINE_SYNC
IDLE = TransactionStatus.IDLE

BEGIN: Query = ("BEGIN", ())
COMMIT: Query = ("COMMIT", ())
ROLLBACK: Query = ("ROLLBACK", ())

# The number of statements that a connection keeps prepared. Clients can cause any number of different ones.
PREPARED = 100
# A pooler replaced the session in which a statement was prepared.
LOST_STATEMENTS = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)
# Close the connection after these errors. After a failover another server is the primary.
FINAL = (errors.ReadOnlySqlTransaction, *LOST_STATEMENTS)


class Batch(ABC):
    """Statements that are sent with one sync. Outside a transaction block, they are one transaction."""

    def __init__(self) -> None:
        # For each command without a result: the position of its statement, whether the result is that of the statement,
        # and the key of the statement if the command prepares it.
        self.commands: deque[tuple[int, bool, Any]] = deque()

    @abstractmethod
    def receive(self, position: int, outcome: Outcome) -> None:
        """Receive the rows or the error of the statement at a position. No statement behind an error runs."""

    @abstractmethod
    def end(self, error: Exception | None) -> None:
        """Receive the end of the transaction, or the error that closed the connection before."""

    @abstractmethod
    def delay(self) -> None:
        """Note that the results take long."""


class Single(Batch):
    """A batch of one statement. `done` gets the outcome when it is committed, unless it is in a transaction block."""

    def __init__(self, done: asyncio.Future[Outcome]) -> None:
        super().__init__()
        self._done = done
        self._outcome: Outcome = []

    def receive(self, position: int, outcome: Outcome) -> None:
        # After an error of the server, PgBouncer sends one of its own.
        if not isinstance(self._outcome, Exception):
            self._outcome = outcome

    def end(self, error: Exception | None) -> None:
        if error:
            self.receive(0, error)
        resolve(self._done, self._outcome)

    def delay(self) -> None:
        pass


class PooledConnection(AsyncConnection[Any]):
    """A connection of psycopg's pool."""

    # The statements that each transaction must begin with.
    settings: Sequence[Query] = ()
    # Whether to prepare statements.
    prepares = True

    def __init__(self, pgconn: PGconn, *arguments: Any) -> None:
        super().__init__(pgconn, *arguments)
        # The names of the prepared statements, by SQL and types of the parameters, and the next names.
        self.prepared: dict[Any, bytes] = {}
        self.names = count()


class Pipeline:
    """A connection in pipeline mode, which requests use in turn.

    Args:
        connection: The connection. Nothing else may use it until `detach`.
        timeout: The seconds that a use may take. After that, the connection is closed.
        on_idle: Called when the last use is over and all its results have arrived.
        on_close: Called when the connection is lost or closed.
    """

    def __init__(
        self,
        connection: PooledConnection,
        timeout: float,
        on_idle: Callable[["Pipeline"], None],
        on_close: Callable[["Pipeline"], None],
    ) -> None:
        self.connection = connection
        # Whether a commit succeeded without the synchronous standby, so that a failover may lose it.
        self.lacks_standby = False
        self._timeout, self._delay = timeout, timeout / 3
        self._on_idle, self._on_close = on_idle, on_close
        # The statements without results, in the order in which they were sent.
        self._batches: deque[Batch] = deque()
        self._is_used = False
        self._used_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # The error that closed the connection, and the one that will close it when it is idle.
        self._error: Exception | None = None
        self._final: Exception | None = None
        self._prepared = connection.prepared
        self._transformer = Transformer(connection)
        self._encoding = connection.info.encoding
        self._loop = asyncio.get_running_loop()
        self._pgconn = connection.pgconn
        self._pgconn.enter_pipeline_mode()
        connection.add_notice_handler(self._receive_warning)
        # Watch the socket all the time, to notice at once when the server closes the connection.
        self._socket = self._pgconn.socket
        self._loop.add_reader(self._socket, self._receive)

    def acquire(self) -> None:
        """Begin a use, which must end with `release`."""
        self._is_used = True
        self.lacks_standby = False
        self._used_since = self._loop.time()
        # One timer serves many uses: if it fires during a later use, it is set again.
        if not self._timer:
            self._timer = self._loop.call_later(self._delay, self._check_time)

    def release(self) -> None:
        """End a use. The pipeline becomes idle when the results of all statements have arrived."""
        self._is_used = False
        if not self._batches and not self._error:
            self._become_idle()

    def send(self, batch: Batch, queries: Sequence[Query], before: Sequence[Query] = ()) -> None:
        """Send the statements of a batch, after other statements whose rows do not matter."""
        if self._error:
            batch.end(self._error)
            return
        for query in before:
            self._queue(batch, 0, False, query)
        for position, query in enumerate(queries):
            self._queue(batch, position, True, query)
        self._batches.append(batch)
        self._pgconn.pipeline_sync()
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._send_rest)

    async def execute(self, query: Query, before: Sequence[Query] = ()) -> Rows:
        """Run a statement. Return its rows once it is committed, unless it is in a transaction block."""
        done: asyncio.Future[Outcome] = self._loop.create_future()
        self.send(Single(done), [query], before)
        outcome = await done
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def roll_back(self) -> None:
        """Roll back a transaction block, without waiting: the connection runs the next statement after that."""
        self.send(Single(self._loop.create_future()), [ROLLBACK])

    def detach(self) -> None:
        """Leave pipeline mode."""
        self._stop()
        self.connection.remove_notice_handler(self._receive_warning)
        self._pgconn.exit_pipeline_mode()

    def close(self, error: Exception) -> None:
        """Close the connection. The statements without results fail with this error."""
        self._stop()
        self._error = error
        self._pgconn.finish()
        batches, self._batches = self._batches, deque()
        for batch in batches:
            batch.end(error)
        self._on_close(self)

    def _queue(self, batch: Batch, position: int, is_outcome: bool, query: Query) -> None:
        sql, parameters = query
        try:
            values = self._transformer.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
            types, formats = self._transformer.types or (), self._transformer.formats
            if self.connection.prepares:
                name = self._prepare(batch, position, sql, types)
                self._pgconn.send_query_prepared(name, values, formats, Format.BINARY)
            else:
                self._pgconn.send_query_params(_number_parameters(sql), values, types, formats, Format.BINARY)
        # A parameter has a value or a type that PostgreSQL does not have.
        except Exception as error:
            batch.receive(position, error)
        else:
            batch.commands.append((position, is_outcome, None))

    def _prepare(self, batch: Batch, position: int, sql: str, types: Sequence[int]) -> bytes:
        key = sql, types
        if name := self._prepared.get(key):
            return name
        if len(self._prepared) == PREPARED:
            oldest = next(iter(self._prepared))
            self._pgconn.send_close_prepared(self._prepared.pop(oldest))
            batch.commands.append((position, False, None))
        name = b"s%d" % next(self.connection.names)
        self._pgconn.send_prepare(name, _number_parameters(sql), types)
        batch.commands.append((position, False, key))
        self._prepared[key] = name
        return name

    def _send_rest(self) -> None:
        if not self._pgconn.flush():
            self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        pgconn = self._pgconn
        try:
            pgconn.consume_input()
            if not self._batches:
                raise psycopg.OperationalError("the server closed the connection")
            while self._batches and not pgconn.is_busy():
                # There is no result between those of two commands.
                if result := pgconn.get_result():
                    self._receive_result(self._batches[0], result)
        except psycopg.Error as error:
            self.close(error)

    def _receive_result(self, batch: Batch, result: PGresult) -> None:
        status = result.status
        if status in (TUPLES_OK, COMMAND_OK):
            position, is_outcome, _ = batch.commands.popleft()
            if is_outcome:
                batch.receive(position, self._load(result))
        elif status == PIPELINE_SYNC:
            self._batches.popleft()
            batch.end(None)
            if not self._batches and not self._is_used:
                self._become_idle()
        elif status in (FATAL_ERROR, PIPELINE_ABORTED):
            # No command is left if the sync causes the error: the transaction cannot be committed.
            position, _, key = batch.commands.popleft() if batch.commands else (-1, False, None)
            self._prepared.pop(key, None)
            if status == FATAL_ERROR:
                error = errors.error_from_result(result, encoding=self._encoding)
                # libpq itself reports an error, such as a message that it cannot read, and gives up the connection.
                if not error.sqlstate:
                    raise psycopg.OperationalError(str(error))
                batch.receive(position, error)
                if isinstance(error, FINAL):
                    self._final = error
        else:
            raise psycopg.NotSupportedError(f"results of the kind {ExecStatus(status).name} are not supported")

    def _load(self, result: PGresult) -> Outcome:
        try:
            self._transformer.set_pgresult(result)
            return self._transformer.load_rows(0, result.ntuples, tuple)
        # Python has no such value.
        except Exception as error:
            return error
        finally:
            # A result may be large.
            self._transformer.set_pgresult(None)

    def _receive_warning(self, warning: errors.Diagnostic) -> None:
        # The wait of a commit for the standby was canceled. The server reports success, with this warning.
        self.lacks_standby |= warning.source_function == "SyncRepWaitForLSN"

    def _become_idle(self) -> None:
        if self._pgconn.transaction_status != IDLE:
            self._final = psycopg.OperationalError("a statement left a transaction open")
        if self._final:
            self.close(self._final)
        else:
            self._on_idle(self)

    def _check_time(self) -> None:
        self._timer = None
        if not self._is_used and not self._batches:
            return
        seconds = self._loop.time() - self._used_since
        if seconds >= self._timeout:
            cause = "no result within {:g} seconds; the server hangs, or a commit waits for a standby that is down"
            self.close(UnavailableError(cause.format(self._timeout)))
            return
        if seconds >= self._delay:
            for batch in self._batches:
                batch.delay()
        # The connection may be idle soon, and used again for a batch that must not be delayed for longer.
        until = self._delay - seconds if seconds < self._delay else min(self._delay, self._timeout - seconds)
        self._timer = self._loop.call_later(until, self._check_time)

    def _stop(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._timer:
            self._timer.cancel()


@lru_cache
def _number_parameters(sql: str) -> bytes:
    """Return SQL with PostgreSQL's placeholders, such as $1, instead of those of Peewee and psycopg, which are %s."""
    numbers = count(1)
    return re.sub("%[s%]", lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", sql).encode()


def resolve(done: asyncio.Future[Any], outcome: Any) -> None:
    """Set the result of a future, unless the request that waits for it was cancelled."""
    if not done.done():
        done.set_result(outcome)
