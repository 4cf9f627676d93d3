"""The database that `DATABASE_URL` names.

`at` alone knows which databases there are; the rest of the code asks `database` to read and to write.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peewee import DatabaseError, DatabaseProxy

from models.database.errors import ConfigurationError
from models.database.postgresql import CockroachCluster, Server
from models.database.sqlite import SqliteFile

SERVERS = {"postgresql": Server, "postgres": Server, "cockroachdb": CockroachCluster}
# How many connections a process has to a server, at the most, unless it is told otherwise.
CONNECTIONS = 10

database = DatabaseProxy()


def bind(url: str, connections: int = CONNECTIONS) -> None:
    """Let `database` be the one at this address; `database.start()` then gets it ready to serve.

    Args:
        url: As for `at`.
        connections: How many connections this process may have to a server.

    Raises:
        ConfigurationError: As by `at`.
    """
    database.initialize(at(url, connections))


def at(url: str, connections: int = CONNECTIONS) -> SqliteFile | Server:
    """Return the database at an address.

    Args:
        url: `sqlite:///` and the path of a file, relative to the working directory, or absolute with a fourth slash;
            or `postgresql://` or `cockroachdb://` and the rest as libpq takes it
            (postgresql.org/docs/current/libpq-connect.html, section 32.1.1.2).
        connections: How many connections this process may have to a server.

    Raises:
        ConfigurationError: The address is of neither form, or no such file can be opened for writing.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return SqliteFile(_path(rest))
    if scheme not in SERVERS:
        raise ConfigurationError(
            "DATABASE_URL must name a SQLite file, as in sqlite:///tasks.db, or a server, as in"
            " postgresql://user:password@host/tasks."
        )
    return SERVERS[scheme](f"postgresql://{rest}", connections)


@contextmanager
def connected(url: str) -> Iterator[SqliteFile | Server]:
    """Yield the database at an address, connected as Peewee needs it to change a schema.

    Args:
        url: As for `at`.

    Raises:
        ConfigurationError: As by `at`, or the database cannot be reached or used.
    """
    database = at(url)
    try:
        database.connect()
        database.ensure_usable()
    except DatabaseError as error:
        raise ConfigurationError(
            f"The database cannot be used: {in_a_line(error)}; mend that, or change DATABASE_URL."
        ) from error
    try:
        yield database
    finally:
        database.close()


def in_a_line(error: Exception) -> str:
    """Return the words of an error, which may have come in several lines."""
    return " ".join(str(error).split())


def _path(rest: str) -> Path:
    path = Path(rest.removeprefix("/"))
    if rest in ("", "/") or not rest.startswith("/") or ":memory:" in rest or "?" in rest:
        raise ConfigurationError("DATABASE_URL must name a SQLite file, as in sqlite:///tasks.db.")
    if not path.parent.is_dir():
        raise ConfigurationError(f"The folder of {path} does not exist: create it, or change DATABASE_URL.")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: name a file in DATABASE_URL.")
    # The mode too, because root may write what is marked as read-only.
    if path.exists() and not (os.access(path, os.W_OK) and path.stat().st_mode & 0o222):
        raise ConfigurationError(f"{path} is read-only: make it writable, or change DATABASE_URL.")
    return path
