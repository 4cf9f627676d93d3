"""Brings the schema of the database up to date with the scripts in `migrations`."""

from pathlib import Path

from peewee import DatabaseError
from playhouse.migrations import Runner

from models.database import connect, database
from models.errors import ConfigurationError
from models.task import Task

DIRECTORY = Path(__file__).with_name("migrations")


def migrate(url: str) -> list[str]:
    """Apply the migrations that the database has not seen, all of them or none.

    Args:
        url: The database, as `connect` takes it.

    Returns:
        The names of the migrations that were applied.

    Raises:
        ConfigurationError: The database cannot be opened or changed.
    """
    connect(url)
    try:
        with database.atomic("EXCLUSIVE"):
            highest_id = _highest_id()
            applied: list[str] = Runner(database.obj, str(DIRECTORY)).up()
            _keep_highest_id(highest_id)
            return applied
    except DatabaseError as error:
        raise ConfigurationError(f"The database could not be migrated: {error}.") from error
    finally:
        database.close()


def _highest_id() -> int:
    if not Task.table_exists():
        return 0
    rows = database.execute_sql("SELECT seq FROM sqlite_sequence WHERE name = 'task'").fetchall()
    return rows[0][0] if rows else 0


def _keep_highest_id(highest_id: int) -> None:
    # Peewee rebuilds a SQLite table to change a column, which forgets the ids of deleted tasks.
    if _highest_id() < highest_id:
        database.execute_sql("DELETE FROM sqlite_sequence WHERE name = 'task'")
        database.execute_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('task', ?)", (highest_id,))
