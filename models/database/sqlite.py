"""A SQLite file. Reads run on the event loop; writes run in one thread, with group commit.

Writes that wait at the same time share one transaction and one flush to disk. Each write has its own savepoint.
"""

import asyncio
import fcntl
import logging
import os
import sqlite3
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from os.path import samestat
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from peewee import SQL, BooleanField, ColumnBase, Field, FloatField, IntegrityError, Node, SqliteDatabase, fn

from models.database.errors import ConfigurationError, DuplicateError, ForeignKeyError, UnavailableError
from models.database.statements import Rows, T, Work

# Seconds to wait for the lock of another process.
BUSY_TIMEOUT = 5.0
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL}
# Seconds between attempts to get the lock. SQLite itself pauses for longer between attempts, so a busy process could
# take the lock again and again in the meantime.
POLL_INTERVAL = 0.001
# Seconds between checks that the file is still the same. A check takes a tenth of the time that a read takes.
CHECK_TTL = 0.001
# The format versions of a file in WAL mode, which follow the first 18 bytes. Those of a copy by `backup` are 1 and 1.
WAL_VERSIONS = b"\2\2"
# SQLite's SHARED lock: its offset and its length in bytes (os_unix.c).
SHARED_LOCK = 0x4000_0002, 510
PRAGMAS = {"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1}
# The errors by SQLite's message, because the code may be that of a trigger.
CONSTRAINTS = {"UNIQUE constraint failed": DuplicateError, "FOREIGN KEY constraint failed": ForeignKeyError}

logger = logging.getLogger(__name__)


class Write(NamedTuple):
    """A write that waits for its commit."""

    work: Work[Any]
    arguments: tuple[Any, ...]
    done: asyncio.Future[Any]


class SqliteFile(SqliteDatabase):
    """A SQLite file in WAL mode, where readers see the last commit and never wait for a writer."""

    embedded = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), pragmas=PRAGMAS, timeout=BUSY_TIMEOUT)
        self._path = path
        # The log's message once the file must not be used again.
        self._replaced = ""
        self._waiting: deque[Write] = deque()
        # Called in the writer thread after each commit, with the number of writes in it.
        self.observe_batch: Callable[[int], None] = lambda _: None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    def _connect(self) -> sqlite3.Connection:
        # If processes switch a new file to WAL mode at the same time, SQLite does not apply the busy timeout.
        return _retry_while_busy(super()._connect)  # type: ignore[misc, no-any-return]

    async def start(self) -> None:
        """Open a connection for reads and one for writes. Peewee has one connection per thread."""
        self._reader: sqlite3.Cursor = self.connection().cursor()
        self._writer: sqlite3.Connection = self._thread.submit(self.connection).result()
        self._thread.submit(self._writer.execute, "PRAGMA busy_timeout = 0").result()
        # Closing it drops all locks of the process on the file, so SQLite's connections must be closed before.
        self._descriptor = os.open(self._path, os.O_RDONLY)
        self._status = os.fstat(self._descriptor)
        # They are not those of WAL mode if the file system has no shared memory.
        self._versions = _read_versions(self._descriptor)
        self._wal, self._shm = _wal_files(self._path)
        wal_files = (self._wal, self._shm) if self._versions == WAL_VERSIONS else ()
        self._wal_files = {path: path.stat() for path in wal_files}
        self._checked_until = 0.0

    async def read(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run a statement that only reads, and return its rows. Raise UnavailableError like `write`."""
        if monotonic() > self._checked_until:
            try:
                self._check_file()
            except UnavailableError:
                if self._replaced:
                    self.close()
                    self._thread.submit(self._release_file)
                raise
            self._checked_until = monotonic() + CHECK_TTL
        try:
            return self._reader.execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            raise _translate(error) from None

    async def write(self, work: Work[T], *arguments: Any) -> T:
        """Run a write in a transaction, and return its result once the commit is on disk.

        `work` runs in the writer thread and must await only its statements. It runs again if a shared commit fails.
        UnavailableError means that another process locked the file for too long, or that the file is gone.
        """
        loop = asyncio.get_running_loop()
        write = Write(work, arguments, loop.create_future())
        self._waiting.append(write)
        if len(self._waiting) == 1:
            # Commit after two turns of the event loop. Clients that got their responses at the same time often send
            # their next requests at the same time, and one commit then serves all of them.
            loop.call_soon(loop.call_soon, self._submit)
        result: T = await write.done
        return result

    # Every write to SQLite is atomic.
    write_atomically = write

    async def shut_down(self) -> None:
        """Commit the accepted writes, then close the file."""
        self._submit()
        self._thread.submit(self._close_writer)
        self._thread.shutdown()
        self.close()
        os.close(self._descriptor)

    def queue_depth(self) -> int:
        """Return how many writes wait for a commit."""
        return len(self._waiting)

    def connection_states(self) -> dict[str, int]:
        """Return nothing: there is no connection pool."""
        return {}

    @contextmanager
    def migration(self) -> Iterator[None]:
        """Run a migration in a transaction that locks out other processes."""
        # To change a column, Peewee rebuilds the table. Dropping the old one must not delete rows that refer to it.
        self.pragma("foreign_keys", 0)
        with self.atomic("EXCLUSIVE"):
            before, changes = self.highest_ids(), self.connection().total_changes
            yield
            # SQLite forgets the ids of deleted rows when their table is rebuilt.
            after = self.highest_ids()
            for table in before.keys() & {*self.get_tables()}:
                if after.get(table, 0) < before[table]:
                    self.execute_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
                    self.execute_sql("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, before[table]))
            # The check reads whole tables, so it is left out if no migration was applied.
            if changes < self.connection().total_changes and (
                rows := self.execute_sql("PRAGMA foreign_key_check").fetchall()
            ):
                raise IntegrityError(f"a row of {rows[0][0]} refers to a row of {rows[0][2]} that does not exist")
        self.pragma("foreign_keys", 1)

    def highest_ids(self) -> dict[str, int]:
        """Return the highest id ever used in each table that has AUTOINCREMENT."""
        if not self.table_exists("sqlite_sequence"):
            return {}
        return dict(self.execute_sql("SELECT name, seq FROM sqlite_sequence").fetchall())

    def keyset_condition(self, column: Field, value: Node, key: Field, after: Node) -> Node:
        """Return the condition for rows that have this value in the column, and a key after the cursor."""
        return (column == value) & (key > after)

    def json_object(self, columns: Mapping[str, tuple[ColumnBase, Field]]) -> ColumnBase:
        """Return an SQL expression for a JSON object with these properties."""
        properties: list[Node] = []
        for name, (column, field) in columns.items():
            properties += [SQL(f"'{name}'"), _json_value(column, field)]
        return fn.json_object(*properties)

    def json_array(self, objects: ColumnBase, order: ColumnBase) -> ColumnBase:
        """Return an SQL expression for a JSON array of these objects. The rows are sorted already."""
        return fn.printf(SQL("'[%s]'"), fn.group_concat(objects))

    def as_bytes(self, text: ColumnBase) -> ColumnBase:
        """Return an SQL expression for the string in UTF-8."""
        cast: ColumnBase = text.cast("blob")
        return cast

    def _submit(self) -> None:
        if self._waiting:
            self._thread.submit(self._commit_waiting)

    def _commit_waiting(self) -> None:
        while batch := [self._waiting.popleft() for _ in range(len(self._waiting))]:
            loop = batch[0].done.get_loop()
            loop.call_soon_threadsafe(_resolve, batch, self._commit(batch))

    def _commit(self, batch: list[Write]) -> list[Any]:
        """Run a batch in one transaction, or each write in its own if that fails. Return all results and errors."""
        try:
            return self._commit_together(batch)
        except Exception as error:
            failure = _translate(error)
        if len(batch) == 1 or isinstance(failure, UnavailableError):
            return [failure] * len(batch)
        return [result for write in batch for result in self._commit([write])]

    def _commit_together(self, batch: list[Write]) -> list[Any]:
        self._check_file()
        _retry_while_busy(lambda: self._writer.execute("BEGIN IMMEDIATE"))
        try:
            results = [self._run(write) for write in batch]
            self._writer.execute("COMMIT")
        finally:
            # An error leaves the transaction open, unless SQLite rolled it back itself, as when the disk is full.
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._check_file()
        self.observe_batch(len(batch))
        return results

    def _run(self, write: Write) -> Any:
        self._writer.execute("SAVEPOINT one")
        try:
            # One step runs the whole coroutine, because it awaits only its statements, which never suspend it.
            write.work(self._execute, *write.arguments).send(None)
            raise RuntimeError("A write must not await anything but its statements.")
        except StopIteration as end:
            result = end.value
        except Exception as error:
            if not self._writer.in_transaction:
                raise
            self._writer.execute("ROLLBACK TO one")
            result = error
        self._writer.execute("RELEASE one")
        return result

    async def _execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        # Fetch all rows, because a statement with pending rows would keep the transaction open.
        try:
            return self._writer.execute(sql, parameters).fetchall()
        except sqlite3.IntegrityError as error:
            raise _translate(error) from None

    def _check_file(self) -> None:
        """Raise UnavailableError if the file was removed. If it or its WAL was replaced, never use it again."""
        if not self._replaced:
            try:
                status = self._path.stat()
            except OSError:
                # SQLite would keep writing to the removed file, and the writes would be lost.
                raise UnavailableError(f"{self._path} was removed; put it back") from None
            if not samestat(status, self._status) or _read_versions(self._descriptor) != self._versions:
                change, remedy = f"{self._path} was replaced", f"remove {self._wal} and {self._shm}, and start it again"
            elif not all(_is_same(path, status) for path, status in self._wal_files.items()):
                # Another process would create new ones, and the two would not see each other's writes and locks.
                change, remedy = f"{self._wal} or {self._shm} was removed", "and start it again"
            else:
                return
            self._replaced = f"{change} while the service was running: stop the service, {remedy}"
            logger.error(self._replaced)
        raise UnavailableError(self._replaced)

    def _close_writer(self) -> None:
        try:
            self._check_file()
        except UnavailableError:
            self._release_file()
        finally:
            self.close()

    def _release_file(self) -> None:
        """Close the writer so that the WAL, which is found by its name, cannot damage a file that has taken the path.

        If another process prevents this, leave the writer open; the next read tries again.
        """
        if self.is_closed():
            return
        if _read_versions(self._descriptor) == self._versions:
            # Move all commits into the file that was removed or replaced, which leaves the WAL empty.
            is_busy, *_ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if is_busy:
                return
        else:
            # The file was overwritten. SQLite writes no commits into it while the descriptor has a lock.
            lock = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, *SHARED_LOCK, 0)
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)
        self.close()


def open_existing(path: Path, mode: str) -> sqlite3.Connection:
    """Connect to a file without any pragmas. `mode` is that of SQLite's URIs."""
    # Use a URI, because SQLite would create a missing file if it were given a path.
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, timeout=BUSY_TIMEOUT, isolation_level=None, uri=True)


def refuse_foreign_wal(path: Path) -> None:
    """Raise ConfigurationError if the WAL beside a file belongs to another file, which had the same name."""
    wal, shm = _wal_files(path)
    # SQLite marks the file first and then writes the WAL, so look at the WAL first: another process may be starting.
    # SQLite itself reports a file that cannot be read.
    with suppress(OSError):
        if not wal.stat().st_size:
            return
        with suppress(FileNotFoundError), path.open("rb") as file:
            if _read_versions(file.fileno()) == WAL_VERSIONS:
                return
        if not path.exists():
            raise ConfigurationError(
                f"{path} is missing, and {wal} has its last writes: put the file back, or remove {wal} and {shm}."
            )
        raise ConfigurationError(
            f"{wal} belongs to another file and would damage {path}: put that file back to keep its last writes, or"
            f" remove {wal} and {shm}."
        )


def read_tables(path: Path) -> tuple[set[str], set[str]]:
    """Return the names of all tables of a file and of the migrations applied to it, without changing the file."""
    # Closing would move the WAL of a killed process into the file. Without a WAL, there may be a journal to roll back.
    with closing(open_existing(path, "ro" if _wal_files(path)[0].exists() else "rw")) as connection:
        connection.execute("BEGIN")
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = {name for (name,) in _retry_while_busy(lambda: connection.execute(query).fetchall())}
        applied: set[str] = set()
        # Other programs may have a table with this name and other columns.
        with suppress(sqlite3.OperationalError):
            applied = {name for (name,) in connection.execute("SELECT name FROM schema_migration")}
    return tables, applied


def _wal_files(path: Path) -> tuple[Path, Path]:
    """Return the paths of the WAL and of its index, which SQLite keeps beside the target of a symbolic link."""
    # Unlike `Path.resolve`, this raises no error if links form a loop.
    target = os.path.realpath(path) if path.is_symlink() else path
    return Path(f"{target}-wal"), Path(f"{target}-shm")


def _is_same(path: Path, status: os.stat_result) -> bool:
    try:
        return samestat(path.stat(), status)
    except OSError:
        return False


def _read_versions(descriptor: int) -> bytes:
    return os.pread(descriptor, 2, 18)


def _json_value(column: ColumnBase, field: Field) -> ColumnBase:
    match field:
        # SQLite has no booleans.
        case BooleanField():
            text = fn.iif(column, SQL("'true'"), SQL("'false'"))
        # SQLite's JSON functions write at most 15 significant digits of a number.
        case FloatField():
            text = fn.printf(SQL("'%!.17g'"), column)
        case _:
            return column
    # In RETURNING, SQLite 3.40 may take a null for another value when it is compared with IS NULL.
    return fn.json(fn.iif(fn.typeof(column) == SQL("'null'"), SQL("NULL"), text) if field.null else text)


def _resolve(batch: list[Write], results: list[Any]) -> None:
    for write, result in zip(batch, results, strict=True):
        if write.done.cancelled():
            continue
        if isinstance(result, Exception):
            write.done.set_exception(result)
        else:
            write.done.set_result(result)


def _retry_while_busy(call: Callable[[], T]) -> T:
    deadline = monotonic() + BUSY_TIMEOUT
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or monotonic() > deadline:
                raise
        sleep(POLL_INTERVAL)


def _translate(error: Exception) -> Exception:
    if _is_busy(error):
        return UnavailableError(str(error))
    kind = CONSTRAINTS.get(str(error).partition(":")[0])
    return kind(str(error)) if kind else error


def _is_busy(error: Exception) -> bool:
    # The lower byte is the primary result code (sqlite.org/rescode.html).
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY
