"""Copies a SQLite file while it is in use, so that there is another when it is lost."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from models.database.address import at, in_a_line
from models.database.errors import ConfigurationError
from models.database.sqlite import BUSY_TIMEOUT, SqliteFile

# The table of the tasks, and the one in which migrations are noted.
TABLES = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('task', 'schema_migration')"


def backup(url: str, file: Path) -> int:
    """Copy a SQLite file as it is at one moment, and check the copy; all of it or nothing.

    Services that have it open go on reading and writing. The copy is one file, which its owner alone may read.

    Args:
        url: A SQLite file, as `models.database.address.at` takes it.
        file: The copy, which must not be there yet.

    Returns:
        How many tasks the copy has.

    Raises:
        ConfigurationError: One of the two cannot be used, or the database is damaged.
    """
    source = _source(url)
    _ensure_free(file)
    try:
        # What a run leaves that was killed is in the way of no other: each has a folder of its own.
        with TemporaryDirectory(prefix=".backup-", dir=file.parent, ignore_cleanup_errors=True) as folder:
            copy = Path(folder, "tasks.db")
            copy.touch(mode=0o600)
            _copy(source, copy)
            tasks = _check(copy, source)
            _give_name(copy, file)
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be written: {error.strerror}; mend that, or name a file elsewhere."
        ) from error
    except sqlite3.Error as error:
        # The lower byte is the kind of error (sqlite.org/rescode.html).
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
            raise _damaged(source, in_a_line(error)) from error
        raise ConfigurationError(
            f"{source} cannot be copied to {file}: {in_a_line(error)}; mend that, or name other files."
        ) from error
    return tasks


def _source(url: str) -> Path:
    database = at(url)
    if not isinstance(database, SqliteFile):
        raise ConfigurationError("DATABASE_URL names a server: back that up with its own tools, as pg_dump.")
    path = Path(database.database)
    if not path.exists():
        raise ConfigurationError(f"There is no file {path}: name the one with the tasks in DATABASE_URL.")
    return path


def _ensure_free(file: Path) -> None:
    if not file.parent.is_dir():
        raise ConfigurationError(f"The folder of {file} does not exist: create it, or name a file elsewhere.")
    # SQLite would take what is in these for a part of the copy.
    for path in (file, Path(f"{file}-wal"), Path(f"{file}-journal")):
        if path.exists():
            raise ConfigurationError(f"{path} is there already, and is left as it is: remove it, or name another file.")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    # By a URI, since SQLite creates what is not there if it is given a path.
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, timeout=BUSY_TIMEOUT, isolation_level=None, uri=True)


def _copy(source: Path, copy: Path) -> None:
    with closing(_open(source, "rw")) as original, closing(_open(copy, "rw")) as target:
        # In a transaction of its own, since `backup` waits without end for a lock that it cannot get.
        original.execute("BEGIN")
        original.execute("SELECT 1 FROM sqlite_master").fetchone()
        # In one step, a read like any other: in WAL mode no writer waits for it, and no write makes it start again.
        original.backup(target)
        # In WAL mode, as the original, it could not be read without a second file beside it.
        target.execute("PRAGMA journal_mode = delete").fetchone()


def _check(copy: Path, source: Path) -> int:
    with closing(_open(copy, "ro")) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged(source, " ".join(verdict.split()))
        if connection.execute(TABLES).fetchone() != (2,):
            raise ConfigurationError(
                f"{source} has no tasks of this service: name the one with the tasks in DATABASE_URL."
            )
        tasks: int = connection.execute("SELECT count(*) FROM task").fetchone()[0]
        return tasks


def _damaged(source: Path, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source} is damaged, so no copy was made: {how}; go back to an earlier one, or save what can be saved, as"
        " sqlite.org/recovery.html says."
    )


def _give_name(copy: Path, file: Path) -> None:
    _flush(copy)
    # Unlike a rename, it takes the place of no file that has been made meanwhile.
    os.link(copy, file)
    try:
        _flush(file.parent)
    except OSError:
        file.unlink()
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
