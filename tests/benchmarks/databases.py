"""Create databases for the service and its peers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from models.database.address import connected
from models.database.migrate import migrate
from tests.benchmarks.peers import POSTGRESQL, SQLITE
from tests.support.project import ROOT
from tests.support.stores import PostgresqlStore, postgresql_server

# SQLite files are in this folder, on a disk: the folder for temporary files may be in memory.
BUILD = ROOT / "build"


def fill(url: str, tasks: int = 1000, description: str = "Finish the Next.js API routes guide") -> None:
    """Create the tables in the database at a URL, with this number of tasks, of which every second is completed."""
    migrate(url)
    with connected(url) as database:
        database.execute_sql(
            f"WITH RECURSIVE number (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM number WHERE i < {tasks - 1})"
            " INSERT INTO task (title, description, completed, created_at)"
            f" SELECT 'Task ' || i, '{description}', (i & 1) = 1, '2026-05-12T10:32:14.000Z' FROM number"
        )


@contextmanager
def sqlite_urls() -> Iterator[Iterator[str]]:
    """Yield the URLs of new SQLite files."""
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=BUILD) as folder:
        yield (f"sqlite:///{folder}/{number}.db" for number in range(100))


@contextmanager
def postgresql_urls() -> Iterator[Iterator[str]]:
    """Yield the URLs of new databases on a new PostgreSQL server."""
    with TemporaryDirectory() as folder, postgresql_server(Path(folder) / "data") as server:
        yield (PostgresqlStore(server.get_uri(), None).url for _ in range(100))


URLS = {SQLITE: sqlite_urls, POSTGRESQL: postgresql_urls}
