"""Brings the schema of the database up to date with the scripts in `migrations`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peewee import DatabaseError
from playhouse.migrations import Runner

from models.database import bind, database
from models.errors import ConfigurationError

DIRECTORY = Path(__file__).with_name("migrations")


def migrate(url: str) -> list[str]:
    """Apply the migrations that the database has not seen, all of them or none.

    Args:
        url: The database, as `models.database.at` takes it.

    Returns:
        The names of the migrations that were applied.

    Raises:
        ConfigurationError: The database cannot be reached or changed.
    """
    with _connected(url):
        try:
            with database.migration():
                applied: list[str] = _runner().up()
        except DatabaseError as error:
            raise ConfigurationError(f"The database could not be migrated: {_line(error)}.") from error
    return applied


def prepare(url: str) -> None:
    """Migrate a SQLite file, which this process may have for itself; of a server, make sure that it has been migrated.

    A schema that is newer than this release is fine, because migrations leave room for the release before.

    Args:
        url: The database, as `models.database.at` takes it.

    Raises:
        ConfigurationError: The database cannot be reached or changed, or it has an older schema.
    """
    with _connected(url):
        pending = [migration.name for migration in _runner().status() if not migration.applied]
        embedded = database.embedded
    if pending and not embedded:
        raise ConfigurationError(
            f"The database's schema lacks {', '.join(pending)}: run tasks-api migrate before tasks-api serve."
        )
    if pending:
        migrate(url)


@contextmanager
def _connected(url: str) -> Iterator[None]:
    bind(url)
    try:
        database.connect()
        database.ensure_usable()
    except DatabaseError as error:
        raise ConfigurationError(
            f"The database cannot be used: {_line(error)}; mend that, or change DATABASE_URL."
        ) from error
    try:
        yield
    finally:
        database.close()


def _runner() -> Runner:
    return Runner(database.obj, str(DIRECTORY))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
