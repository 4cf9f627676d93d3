"""Brings the schema of the database up to date with the scripts in `migrations`."""

from pathlib import Path

from peewee import Database, DatabaseError
from playhouse.migrations import Runner

from models.database.address import connected, database, in_a_line
from models.database.errors import ConfigurationError, UnavailableError

DIRECTORY = Path(__file__).parents[1] / "migrations"


def migrate(url: str) -> list[str]:
    """Apply the migrations that the database has not seen, all of them or none.

    Args:
        url: The database, as `models.database.address.at` takes it.

    Returns:
        The names of the migrations that were applied.

    Raises:
        ConfigurationError: The database cannot be used or changed.
    """
    with connected(url) as changed:
        try:
            with changed.migration():
                applied: list[str] = Runner(changed, str(DIRECTORY)).up()
        except DatabaseError as error:
            raise ConfigurationError(f"The database could not be migrated: {in_a_line(error)}.") from error
    return applied


def prepare(url: str) -> None:
    """Migrate a SQLite file; of a server, which other releases may be using, make sure that it has been migrated.

    Args:
        url: The database, as `models.database.address.at` takes it.

    Raises:
        ConfigurationError: The database cannot be used or changed, or it has an older schema.
    """
    with connected(url) as used:
        if not used.embedded:
            ensure_migrated(used)
            return
    migrate(url)


def ensure_migrated(database: Database) -> None:
    """Make sure that a database has the schema of this release, or of a later one, which leaves room for this one.

    Raises:
        ConfigurationError: It has an older one.
    """
    status = Runner(database, str(DIRECTORY)).status()
    if lacking := [migration.name for migration in status if not migration.applied]:
        raise ConfigurationError(
            f"The schema of the database is older than this release: run tasks-api migrate, for {', '.join(lacking)}."
        )


async def ensure_ready() -> None:
    """Make sure that the database that is served from answers, and has the schema of this release or a later one.

    Raises:
        UnavailableError: It is out of reach, or has an older schema.
    """
    applied = {name for (name,) in await database.read("SELECT name FROM schema_migration", [])}
    if lacking := {path.stem for path in DIRECTORY.glob("[0-9]*.py")} - applied:
        raise UnavailableError(f"the schema of the database lacks {', '.join(sorted(lacking))}; run tasks-api migrate")
