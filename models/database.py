"""The database that `DATABASE_URL` names.

`connect` alone knows which databases there are; the rest of the code asks `database` to read and to write.
"""

import os
from pathlib import Path

from peewee import DatabaseError, DatabaseProxy

from models.errors import ConfigurationError
from models.sqlite import SqliteFile

SCHEME = "sqlite:///"

database = DatabaseProxy()


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
