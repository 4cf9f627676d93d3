"""The connection to the database that `DATABASE_URL` names.

`connect` alone knows which databases there are; the rest of the code asks `database` to read and to write.
"""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

from peewee import DatabaseError, DatabaseProxy, OperationalError, SqliteDatabase

BUSY_TIMEOUT = 5.0  # seconds
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL}
# For so many seconds a reader relies on having seen the file: to look at it takes as long as a tenth of a request.
TRUST = 0.001
PRAGMAS = {"journal_mode": "wal", "synchronous": "full"}
SCHEME = "sqlite:///"

Rows = list[tuple[Any, ...]]

database = DatabaseProxy()


class ConfigurationError(Exception):
    """The database cannot be used as it is configured; the message says what to do."""


class UnavailableError(Exception):
    """The database is busy or out of reach for now; the message says why, and is for the log."""


class SqliteFile(SqliteDatabase):
    """A SQLite file, read on the event loop and written by one thread.

    Peewee gives each thread a connection of its own. In WAL mode a reader sees the last commit and waits for no writer.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), pragmas=PRAGMAS, timeout=BUSY_TIMEOUT)
        self._path = path
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    def start(self) -> None:
        """Open the writer's connection too, and remember which file it is that both have open."""
        self._writer.submit(self.connect).result()
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
            return self._run(sql, parameters)
        except OperationalError as error:
            _raise_if_busy(error)
            raise

    async def write(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run a statement in a transaction, and return its rows once the commit is on disk.

        Raises:
            UnavailableError: Another process held the file for longer than the busy timeout, or it is gone.
        """
        give_up = monotonic() + BUSY_TIMEOUT
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._commit, sql, parameters, give_up)

    def shut_down(self) -> None:
        """Commit the writes that were accepted, then close the file."""
        self._writer.submit(self.close)
        self._writer.shutdown()
        self.close()

    def _commit(self, sql: str, parameters: Sequence[Any], give_up: float) -> Rows:
        if monotonic() > give_up:
            raise UnavailableError("the writes before this one took too long")
        try:
            self._ensure_there()
            self.begin("IMMEDIATE")
            rows = self._run(sql, parameters)
            self.commit()
        except OperationalError as error:
            _raise_if_busy(error)
            raise
        finally:
            # An error leaves the transaction open, or SQLite has ended it by itself, as it does when the disk is full.
            if self.connection().in_transaction:
                self.rollback()
        self._ensure_there()
        return rows

    def _run(self, sql: str, parameters: Sequence[Any]) -> Rows:
        # To the end: a statement with rows left would keep its transaction open.
        rows: Rows = self.execute_sql(sql, parameters).fetchall()
        return rows

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


def _raise_if_busy(error: OperationalError) -> None:
    cause = error.__context__
    # The lower byte is the kind of error (sqlite.org/rescode.html).
    if isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode & 0xFF in BUSY:
        raise UnavailableError(str(error)) from error


def connect(url: str) -> None:
    """Open the database for this process; `database.start()` then gets it ready to serve.

    Args:
        url: `sqlite:///` and the path of a file, relative to the working directory, or absolute with a fourth slash.

    Raises:
        ConfigurationError: The address is not of that form, or the file cannot be opened for writing.
    """
    path = _path(url)
    database.initialize(SqliteFile(path))
    try:
        database.connect()
    except DatabaseError as error:
        raise ConfigurationError(
            f"{path} cannot be used as a SQLite database ({error}): change DATABASE_URL, or the rights on its folder."
        ) from error


def _path(url: str) -> Path:
    path = Path(url.removeprefix(SCHEME))
    if not url.startswith(SCHEME) or url == SCHEME or ":memory:" in url or "?" in url:
        raise ConfigurationError(f"DATABASE_URL must name a SQLite file, as in {SCHEME}tasks.db.")
    if not path.parent.is_dir():
        raise ConfigurationError(f"The folder of {path} does not exist: create it, or change DATABASE_URL.")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: name a file in DATABASE_URL.")
    # The mode too, because root may write what is marked as read-only.
    if path.exists() and not (os.access(path, os.W_OK) and path.stat().st_mode & 0o222):
        raise ConfigurationError(f"{path} is read-only: make it writable, or change DATABASE_URL.")
    return path
