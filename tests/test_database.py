"""What SQLite is told, and that reads and writes end as they should."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models import queries
from models.database import connect, database
from models.migrate import migrate
from models.schemas import TaskInput


@pytest.fixture(autouse=True)
def connected(tmp_path: Path) -> Iterator[None]:
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    migrate(url)
    connect(url)
    database.start()
    yield
    database.shut_down()


def test_a_commit_is_flushed_to_the_disk() -> None:
    assert database.synchronous == 2  # FULL
    assert database.journal_mode == "wal"
    assert asyncio.run(database.write("PRAGMA synchronous", [])) == [(2,)]


def test_accepted_writes_are_committed_before_the_end(tmp_path: Path) -> None:
    async def write_and_leave() -> None:
        writes = [asyncio.ensure_future(queries.insert(TaskInput(title="a"))) for _ in range(20)]
        await asyncio.sleep(0)
        database.shut_down()
        for write in writes:
            write.cancel()

    asyncio.run(write_and_leave())
    connect(f"sqlite:///{tmp_path / 'tasks.db'}")
    database.start()

    assert len(asyncio.run(queries.select_page(100, 0, None))) == 20


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (queries._select_page, "INTEGER PRIMARY KEY (rowid>?)"),
        (queries._select_page_by_completed, "INDEX task_completed_id (completed=? AND id>?)"),
    ],
)
def test_page_is_read_from_an_index(statement: Callable[[], queries.Statement], index: str) -> None:
    sql, names = statement()
    plan = database.execute_sql(f"EXPLAIN QUERY PLAN {sql}", [0] * len(names)).fetchall()

    assert [step[-1] for step in plan] == [f"SEARCH t1 USING {index}"]
