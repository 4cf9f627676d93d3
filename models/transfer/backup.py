"""Back up a SQLite file that is in use."""

import os
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from models.database.address import ensure_encodable, existing_database, one_line
from models.database.errors import ConfigurationError
from models.database.migrate import refuse_foreign_file
from models.database.sqlite import SqliteFile, open_existing


def backup(url: str, file: Path, tables: Collection[str]) -> int:
    """Copy a consistent snapshot of a SQLite file, check the copy, and return the number of rows in these tables.

    Services may go on reading and writing meanwhile. The copy is one file that only its owner can read. If anything
    fails, there is no copy.
    """
    database = existing_database(url)
    if not isinstance(database, SqliteFile):
        raise ConfigurationError("DATABASE_URL names a server: back it up with its own tools, such as pg_dump.")
    refuse_foreign_file(url)
    source = Path(database.database)
    _ensure_free(file)
    try:
        # Every run has its own folder, so that files left by a killed run do not disturb the next run.
        with TemporaryDirectory(prefix=".backup-", dir=file.parent, ignore_cleanup_errors=True) as folder:
            copy = Path(folder, "copy.db")
            copy.touch(mode=0o600)
            _copy(source, copy)
            rows = _check(copy, source, tables)
            _publish(copy, file)
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror}; fix that, or name a file elsewhere."
        raise ConfigurationError(message) from error
    except sqlite3.Error as error:
        # The lower byte is the primary result code (sqlite.org/rescode.html).
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
            raise _damaged(source, one_line(error)) from error
        message = f"{source} cannot be copied to {file}: {one_line(error)}; fix that, or name other files."
        raise ConfigurationError(message) from error
    return rows


def _ensure_free(file: Path) -> None:
    ensure_encodable(file)
    if not file.parent.is_dir():
        raise ConfigurationError(f"The folder of {file} does not exist: create it, or name a file elsewhere.")
    # SQLite would treat an existing WAL or journal as part of the copy.
    for path in (file, Path(f"{file}-wal"), Path(f"{file}-journal")):
        if path.exists():
            raise ConfigurationError(f"{path} exists already and was not changed: remove it, or name another file.")


def _copy(source: Path, copy: Path) -> None:
    with closing(open_existing(source, "rw")) as original, closing(open_existing(copy, "rw")) as target:
        # Start a transaction first, because `backup` would wait forever for a lock that it cannot get.
        original.execute("BEGIN")
        original.execute("SELECT 1 FROM sqlite_master").fetchone()
        # Copy in one step. In WAL mode it does not block writers, and writes do not restart it.
        original.backup(target)
        # Leave WAL mode, because a file in WAL mode needs a second file beside it.
        target.execute("PRAGMA journal_mode = delete").fetchone()


def _check(copy: Path, source: Path, tables: Collection[str]) -> int:
    with closing(open_existing(copy, "ro")) as connection:
        (result,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if result != "ok":
            raise _damaged(source, " ".join(result.split()))
        found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        # A file of an older release lacks some of the tables.
        known = found.intersection(tables)
        if not known:
            raise ConfigurationError(f"{source} is not a database of this service: name another file in DATABASE_URL.")
        return sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in known)


def _damaged(source: Path, cause: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source} is damaged, so no copy was made: {cause}; restore an earlier backup, or recover the data as"
        " described at sqlite.org/recovery.html."
    )


def _publish(copy: Path, file: Path) -> None:
    """Give the finished copy its name, and flush it to disk."""
    _flush(copy)
    # Unlike a rename, a link does not replace a file that was created meanwhile.
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
