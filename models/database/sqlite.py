"""A SQLite file: reads on the event loop, and one thread that commits all writes which wait at the same time."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar

from peewee import SQL, BooleanField, ColumnBase, Field, FloatField, Node, SqliteDatabase, fn

from models.database.errors import UnavailableError
from models.database.statements import Rows

BUSY_TIMEOUT = 5.0  # seconds
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL}
# How many seconds pass between two looks at the lock that another process has. SQLite's own waits grow to 0.1 s, and
# in each a process that writes at full speed would have let the lock go and taken it again many times.
POLL = 0.001
# For so many seconds a reader relies on having seen the file: to look at it takes as long as a tenth of a request.
TRUST = 0.001
PRAGMAS = {"journal_mode": "wal", "synchronous": "full"}

T = TypeVar("T")


class Write(NamedTuple):
    """Work that waits for its commit."""

    work: Callable[..., Coroutine[Any, Any, Any]]
    arguments: tuple[Any, ...]
    done: asyncio.Future[Any]


class SqliteFile(SqliteDatabase):
    """A SQLite file, read on the event loop and written by one thread.

    Peewee gives each thread a connection of its own. In WAL mode a reader sees the last commit and waits for no writer.
    """

    embedded = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), pragmas=PRAGMAS, timeout=BUSY_TIMEOUT)
        self._path = path
        self._waiting: deque[Write] = deque()
        self._observe_batch: Callable[[int], None] = lambda _: None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    def ensure_usable(self) -> None:
        """There is nothing else to be right once the file is open."""

    async def start(self) -> None:
        """Open the connections of the reader and the writer, and remember which file it is that both have open."""
        self._reader: sqlite3.Connection = self.connection()
        self._writer: sqlite3.Connection = self._thread.submit(self.connection).result()
        self._thread.submit(self._writer.execute, "PRAGMA busy_timeout = 0").result()
        self._file = self._file_at_path()
        self._trusted_until = 0.0

    async def read(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run a statement that changes nothing, and return its rows.

        Raises:
            UnavailableError: Another process held the file for longer than the busy timeout, or it is gone.
        """
        if monotonic() > self._trusted_until:
            self._ensure_there()
            self._trusted_until = monotonic() + TRUST
        try:
            return self._reader.execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            raise _translated(error) from None

    async def write(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Do some work on the database, all of it or none, and return its outcome once the commit is on disk.

        Args:
            work: Is given what runs statements, and the arguments, in a thread of its own; it may wait for nothing
                else. It is done again if the commit fails that others share.
            arguments: Further arguments of the work.

        Raises:
            UnavailableError: Another process held the file for longer than the busy timeout, or it is gone.
            Exception: What the work raised.
        """
        loop = asyncio.get_running_loop()
        write = Write(work, arguments, loop.create_future())
        self._waiting.append(write)
        if len(self._waiting) == 1:
            # In two turns of the event loop, because callers who were answered together come back together, and a
            # commit costs the same for all of them as for the first.
            loop.call_soon(loop.call_soon, self._hand_over)
        outcome: T = await write.done
        return outcome

    # To each write here belongs all of its work.
    write_together = write

    async def shut_down(self) -> None:
        """Commit the writes that were accepted, then close the file."""
        self._hand_over()
        self._thread.submit(self.close)
        self._thread.shutdown()
        self.close()

    def observe_batches(self, observe: Callable[[int], None]) -> None:
        """Let this be told, in the thread that writes, how many writes have shared a commit."""
        self._observe_batch = observe

    def queue_depth(self) -> int:
        """Return how many writes wait for a commit."""
        return len(self._waiting)

    def connection_states(self) -> dict[str, int]:
        """Return none, since there are always the same two connections."""
        return {}

    @contextmanager
    def migration(self) -> Iterator[None]:
        """Change the schema inside of this, all of it or nothing, while no other process does."""
        with self.atomic("EXCLUSIVE"):
            highest_id = self.highest_id()
            yield
            # Peewee rebuilds a SQLite table to change a column, which forgets the ids of deleted tasks.
            if self.highest_id() < highest_id:
                self.execute_sql("DELETE FROM sqlite_sequence WHERE name = 'task'")
                self.execute_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('task', ?)", (highest_id,))

    def highest_id(self) -> int:
        """Return the highest id that a task ever had."""
        if not self.table_exists("task"):
            return 0
        rows = self.execute_sql("SELECT seq FROM sqlite_sequence WHERE name = 'task'").fetchall()
        return rows[0][0] if rows else 0

    def behind(self, column: Field, value: Node, key: Field, after: Node) -> Node:
        """Return the condition that a row has a value in a column, and a greater key."""
        return (column == value) & (key > after)

    def json_object(self, columns: Mapping[str, tuple[ColumnBase, Field]]) -> ColumnBase:
        """Return an object with these properties, as text."""
        properties: list[Node] = []
        for name, (column, field) in columns.items():
            properties += [SQL(f"'{name}'"), _json_value(column, field)]
        return fn.json_object(*properties)

    def json_array(self, objects: ColumnBase, order: ColumnBase) -> ColumnBase:
        """Return an array of these objects, as text; they are in order already."""
        return fn.printf(SQL("'[%s]'"), fn.group_concat(objects))

    def as_bytes(self, text: ColumnBase) -> ColumnBase:
        """Return a text in UTF-8."""
        cast: ColumnBase = text.cast("blob")
        return cast

    def _hand_over(self) -> None:
        if self._waiting:
            self._thread.submit(self._commit_waiting)

    def _commit_waiting(self) -> None:
        while batch := [self._waiting.popleft() for _ in range(len(self._waiting))]:
            loop = batch[0].done.get_loop()
            loop.call_soon_threadsafe(_answer, batch, self._commit(batch))

    def _commit(self, batch: list[Write]) -> list[Any]:
        """Do all work in one transaction and return the outcome of each, or its error; if it fails, in one each."""
        try:
            return self._commit_together(batch)
        except Exception as error:
            failure = _translated(error)
        if len(batch) == 1 or isinstance(failure, UnavailableError):
            return [failure] * len(batch)
        return [outcome for write in batch for outcome in self._commit([write])]

    def _commit_together(self, batch: list[Write]) -> list[Any]:
        self._ensure_there()
        self._begin()
        try:
            outcomes = [self._attempt(write) for write in batch]
            self._writer.execute("COMMIT")
        finally:
            # An error leaves the transaction open, or SQLite has ended it by itself, as it does when the disk is full.
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        self._observe_batch(len(batch))
        self._ensure_there()
        return outcomes

    def _begin(self) -> None:
        give_up = monotonic() + BUSY_TIMEOUT
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or monotonic() > give_up:
                    raise
            sleep(POLL)

    def _attempt(self, write: Write) -> Any:
        self._writer.execute("SAVEPOINT one")
        try:
            outcome = _finish(write.work(self._execute, *write.arguments))
        except Exception as error:
            if not self._writer.in_transaction:
                raise
            self._writer.execute("ROLLBACK TO one")
            outcome = error
        self._writer.execute("RELEASE one")
        return outcome

    async def _execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        # To the end: a statement with rows left would keep its transaction open.
        return self._writer.execute(sql, parameters).fetchall()

    def _ensure_there(self) -> None:
        # SQLite goes on with a file that was removed, and what it writes there is lost when the process ends.
        if self._file_at_path() != self._file:
            raise UnavailableError(f"{self._path} was removed or replaced; put it back, or restart the service")

    def _file_at_path(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _json_value(column: ColumnBase, field: Field) -> ColumnBase:
    match field:
        # SQLite has no booleans.
        case BooleanField():
            return fn.json(fn.iif(column, SQL("'true'"), SQL("'false'")))
        # Of the digits of a number, SQLite's JSON has only the first 15.
        case FloatField():
            return fn.json(fn.printf(SQL("'%!.17g'"), column))
        case _:
            return column


def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    try:
        work.send(None)
    except StopIteration as end:
        outcome: T = end.value
        return outcome
    raise RuntimeError("Work on a database may wait for its statements alone.")


def _answer(batch: list[Write], outcomes: list[Any]) -> None:
    for write, outcome in zip(batch, outcomes, strict=True):
        if write.done.cancelled():
            continue
        if isinstance(outcome, Exception):
            write.done.set_exception(outcome)
        else:
            write.done.set_result(outcome)


def _translated(error: Exception) -> Exception:
    """Return what an error means for who asked for the statement."""
    return UnavailableError(str(error)) if _is_busy(error) else error


def _is_busy(error: Exception) -> bool:
    # The lower byte is the kind of error (sqlite.org/rescode.html).
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY
