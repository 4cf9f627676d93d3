"""Apply the schema migrations in `models/migrations`, and check that they are applied."""

import sqlite3
from pathlib import Path

from peewee import DatabaseError
from playhouse.migrations import Runner

from models.database.address import Database, connected, one_line, open_database
from models.database.errors import ConfigurationError, UnavailableError
from models.database.sqlite import SqliteFile, read_tables

DIRECTORY = Path(__file__).parents[1] / "migrations"
# The names of tables that SQLite and Litestream add to a file begin with these.
ADDED_TABLES = ("sqlite_", "_litestream_")


def migrate(url: str) -> list[str]:
    """Apply all pending migrations to the database at a URL in one transaction, and return their names."""
    refuse_foreign_file(url)
    with connected(url) as database:
        try:
            with database.migration():
                applied: list[str] = Runner(database, str(DIRECTORY)).up()
                return applied
        except DatabaseError as error:
            raise ConfigurationError(f"The database could not be migrated: {one_line(error)}.") from error


def prepare(url: str) -> None:
    """Migrate a SQLite file. For a server, which older releases may still use, only check that it is migrated."""
    if open_database(url).embedded:
        migrate(url)
        return
    with connected(url) as database:
        ensure_migrated(database)


def refuse_foreign_file(url: str, setting: str = "DATABASE_URL") -> None:
    """Raise ConfigurationError if a URL names a SQLite file of another program, which is left unchanged.

    A file of this service has its first migration; later releases and other programs may have others.
    """
    database = open_database(url, setting=setting)
    if not isinstance(database, SqliteFile):
        return
    path = Path(database.database)
    try:
        tables, applied = read_tables(path)
    except sqlite3.Error as error:
        # A missing file is created, and other errors are reported by the command that uses the file.
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
            message = f"{path} is not a SQLite database: name another file in {setting}."
            raise ConfigurationError(message) from error
        return
    first = min(migration.stem for migration in DIRECTORY.glob("[0-9]*.py"))
    if first not in applied and not all(name.startswith(ADDED_TABLES) for name in tables):
        raise ConfigurationError(f"{path} is not a database of this service: name another file in {setting}.")


def ensure_migrated(database: Database) -> None:
    """Raise ConfigurationError if a database has pending migrations. Migrations of later releases do no harm."""
    status = Runner(database, str(DIRECTORY)).status()
    if pending := [migration.name for migration in status if not migration.applied]:
        raise ConfigurationError(
            f"The database schema is older than this release: run the command migrate to apply {', '.join(pending)}."
        )


async def ensure_ready(database: Database) -> None:
    """Raise UnavailableError if the database does not respond, or has pending migrations."""
    applied = {name for (name,) in await database.read("SELECT name FROM schema_migration", [])}
    if pending := {path.stem for path in DIRECTORY.glob("[0-9]*.py")} - applied:
        raise UnavailableError(f"the database schema lacks {', '.join(sorted(pending))}; run the command migrate")
