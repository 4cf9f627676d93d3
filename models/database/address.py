"""Open the database that DATABASE_URL names. Only this module knows which kinds of database exist."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from peewee import DatabaseError

from models.database.errors import ConfigurationError, require
from models.database.sqlite import SqliteFile

if TYPE_CHECKING:
    from models.database.postgresql import PostgresqlDatabase

Database: TypeAlias = "SqliteFile | PostgresqlDatabase"

# The default size of the connection pool in each process.
CONNECTIONS = 10


def open_database(url: str, connections: int = CONNECTIONS) -> Database:
    """Return the database at a URL. Its method `start` opens it; a server gets a pool of `connections`.

    The URL is `sqlite:///` and the path of a file, relative to the working directory, or absolute with a fourth slash.
    Or it is `postgresql://` or `cockroachdb://`, followed by the same parts as in a URL of libpq.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return SqliteFile(_path(rest))
    if scheme not in ("postgresql", "postgres", "cockroachdb"):
        raise ConfigurationError(
            "DATABASE_URL must name a SQLite file, such as sqlite:///data.db, or a server, such as"
            " postgresql://user:password@host/database."
        )
    require("psycopg_pool", "postgresql", "DATABASE_URL")
    from models.database import postgresql  # noqa: PLC0415, installed with an extra

    server = postgresql.CockroachCluster if scheme == "cockroachdb" else postgresql.PostgresqlDatabase
    return server(f"postgresql://{rest}", connections)


def existing_database(url: str, setting: str = "DATABASE_URL") -> Database:
    """Return the database at a URL. Raise ConfigurationError if it is a file that does not exist."""
    database = open_database(url)
    if isinstance(database, SqliteFile) and not Path(database.database).exists():
        raise ConfigurationError(f"There is no file {database.database}: name an existing database in {setting}.")
    return database


@contextmanager
def connected(url: str) -> Iterator[Database]:
    """Yield the database at a URL, connected by Peewee, for the commands."""
    with closing(open_database(url)) as database:
        try:
            database.connect()
        except DatabaseError as error:
            message = f"The database cannot be used: {one_line(error)}; fix that, or change DATABASE_URL."
            raise ConfigurationError(message) from error
        yield database


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _path(rest: str) -> Path:
    path = Path(rest.removeprefix("/"))
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"The locale has no letters for {path}: set LC_ALL=C.UTF-8.") from error
    if rest == "/" or not rest.startswith("/") or ":memory:" in rest or "?" in rest:
        raise ConfigurationError("DATABASE_URL must name a SQLite file, such as sqlite:///data.db.")
    if not path.parent.is_dir():
        raise ConfigurationError(f"The folder of {path} does not exist: create it, or change DATABASE_URL.")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: name a file in DATABASE_URL.")
    # Check the mode too, because root can write to read-only files.
    if path.exists() and not (os.access(path, os.W_OK) and path.stat().st_mode & 0o222):
        raise ConfigurationError(f"{path} is read-only: make it writable, or change DATABASE_URL.")
    return path
