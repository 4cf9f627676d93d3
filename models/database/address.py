"""Open the database that DATABASE_URL names. Only this module knows which kinds of database exist."""

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from peewee import DatabaseError

from models.database.errors import ConfigurationError, require
from models.database.sqlite import SqliteFile, refuse_foreign_wal

if TYPE_CHECKING:
    from models.database.postgresql import PostgresqlDatabase

Database: TypeAlias = "SqliteFile | PostgresqlDatabase"

SETTING = "DATABASE_URL"
FILE = "a SQLite file, such as sqlite:///data.db"
SERVER = "a server, such as postgresql://user:password@host/database"
SERVER_SCHEMES = ("postgresql://", "postgres://", "cockroachdb://")
# A server's URL without its scheme, if its parts are unambiguous. libpq would take a part of a password with @,
# / or ? for the host, the port, the database or a parameter, and would repeat it in messages.
HOST = r"(?:\[[^\]@/]*\]|[^\[\]:@/?,]*)(?::\d{0,5})?"
UNAMBIGUOUS = re.compile(rf"(?:(?:[^@/?]|\?(?!\w+=))*@)?{HOST}(?:,{HOST})*(?:[/?][^@]*)?", re.DOTALL)

# The default size of the connection pool in each process.
CONNECTIONS = 10


def open_database(url: str, connections: int = CONNECTIONS, setting: str = SETTING) -> Database:
    """Return the database at a URL. Its method `start` opens it; a server gets a pool of `connections`.

    ConfigurationError names the setting that the URL is from, and repeats no part of a password.

    The URL is `sqlite:///` and the path of a file, relative to the working directory, or absolute with a fourth slash.
    Or it is `postgresql://` or `cockroachdb://`, followed by the same parts as in a URL of libpq.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return SqliteFile(_path(rest, setting))
    if not url.startswith(SERVER_SCHEMES):
        raise ConfigurationError(f"{setting} must name {FILE}, or {SERVER}.")
    require("psycopg_pool", "postgresql", setting)
    from models.database import postgresql  # noqa: PLC0415, installed with an extra

    server = postgresql.CockroachCluster if scheme == "cockroachdb" else postgresql.PostgresqlDatabase
    try:
        if UNAMBIGUOUS.fullmatch(rest):
            return server(f"postgresql://{rest}", connections)
        fault = ""
    except ValueError as error:
        fault = str(error)
    hint = "percent-encode the password, such as %40 for @ and %2F for /, in postgresql://user:password@host/database"
    raise ConfigurationError(f"{setting} is not a valid database URL: {fault or hint}.")


def existing_database(url: str, setting: str = SETTING) -> Database:
    """Return the database at a URL. Raise ConfigurationError if it is a file that does not exist."""
    database = open_database(url, setting=setting)
    if isinstance(database, SqliteFile) and not Path(database.database).exists():
        raise ConfigurationError(f"There is no file {database.database}: name an existing database in {setting}.")
    return database


@contextmanager
def connected(url: str) -> Iterator[Database]:
    """Yield the database at a URL, connected by Peewee, for the commands."""
    database = open_database(url)
    with connection(database):
        yield database


@contextmanager
def connection(database: Database, setting: str = SETTING) -> Iterator[None]:
    """Connect a database by Peewee, and report its errors. `setting` is what its URL is from."""
    with closing(database):
        try:
            database.connect()
            yield
        except DatabaseError as error:
            message = f"The database cannot be used: {one_line(error)}; fix that, or change {setting}."
            raise ConfigurationError(message) from error


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def ensure_encodable(path: Path) -> None:
    """Raise ConfigurationError if the encoding of the locale cannot write a path."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"The locale cannot encode the file name {path}: set LC_ALL=C.UTF-8.") from error


def _path(rest: str, setting: str) -> Path:
    path = Path(rest.removeprefix("/"))
    # The other messages repeat the path, so a new file must not be the user, password and host of a server.
    is_server = re.search("(?s):.*@", rest) and not path.exists()
    if rest == "/" or not rest.startswith("/") or ":memory:" in rest or "?" in rest or is_server:
        raise ConfigurationError(f"{setting} must name {FILE}.")
    ensure_encodable(path)
    if not path.parent.is_dir():
        raise ConfigurationError(f"The folder of {path} does not exist: create it, or change {setting}.")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: name a file in {setting}.")
    # Check the mode too, because root can write to read-only files.
    if path.exists() and not (os.access(path, os.W_OK) and path.stat().st_mode & 0o222):
        raise ConfigurationError(f"{path} is read-only: make it writable, or change {setting}.")
    refuse_foreign_wal(path)
    return path
