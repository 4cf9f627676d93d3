"""Apply the schema migrations in `models/migrations`, and check that they are applied."""

from pathlib import Path

from peewee import DatabaseError
from playhouse.migrations import Runner

from models.database.address import Database, connected, one_line
from models.database.errors import ConfigurationError, UnavailableError

DIRECTORY = Path(__file__).parents[1] / "migrations"


def migrate(url: str) -> list[str]:
    """Apply all pending migrations to the database at a URL in one transaction, and return their names."""
    with connected(url) as database:
        try:
            with database.migration():
                applied: list[str] = Runner(database, str(DIRECTORY)).up()
                return applied
        except DatabaseError as error:
            raise ConfigurationError(f"The database could not be migrated: {one_line(error)}.") from error


def prepare(url: str) -> None:
    """Migrate a SQLite file. For a server, which older releases may still use, only check that it is migrated."""
    with connected(url) as database:
        if not database.embedded:
            ensure_migrated(database)
            return
    migrate(url)


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
