"""The SQLite backend: its settings, the outcome of reads and writes, and query plans."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from peewee import FloatField, Select, Value

from models.database import sqlite
from models.database.address import open_database
from models.database.errors import (
    ConfigurationError,
    DuplicateError,
    ForeignKeyError,
    MissingError,
    UnavailableError,
)
from models.database.migrate import migrate
from models.database.sqlite import SqliteFile
from models.database.statements import Execute, Rows
from models.resource import Resource, Stored
from models.schemas import TaskInput
from models.task import tasks as tasks_in
from tests.support.calls import wait_until
from tests.support.stores import page_statement


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteFile]:
    path = tmp_path / "tasks.db"
    migrate(f"sqlite:///{path}")
    database = SqliteFile(path)
    asyncio.run(database.start())
    yield database
    asyncio.run(database.shut_down())


@pytest.fixture
def tasks(database: SqliteFile) -> Resource:
    return tasks_in(database)


async def run(execute: Execute, sql: str, *parameters: Any) -> Rows:
    return await execute(sql, parameters)


def test_commit_is_flushed_to_disk(database: SqliteFile) -> None:
    assert database.synchronous == 2  # PRAGMA synchronous = FULL
    assert database.journal_mode == "wal"
    assert asyncio.run(database.write(run, "PRAGMA synchronous")) == [(2,)]


def test_accepted_writes_are_committed_before_shutdown(database: SqliteFile, tmp_path: Path) -> None:
    stopped = SqliteFile(tmp_path / "tasks.db")
    tasks = tasks_in(stopped)

    async def write_and_shut_down() -> list[int]:
        await stopped.start()
        work = [stopped.write(tasks.insert, TaskInput(title="a")) for _ in range(20)]
        writes = [asyncio.ensure_future(write) for write in work]
        await asyncio.sleep(0)
        await stopped.shut_down()
        return [task.id for task in await asyncio.wait_for(asyncio.gather(*writes), 30)]

    assert asyncio.run(write_and_shut_down()) == list(range(1, 21))
    assert asyncio.run(tasks_in(database).select_page(100, 0)).last_id == 20


def test_cancelled_write_is_complete(database: SqliteFile, tasks: Resource) -> None:
    async def write_and_cancel() -> Any:
        work = [database.write(tasks.insert, TaskInput(title=title)) for title in "abc"]
        first, cancelled, last = [asyncio.ensure_future(write) for write in work]
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait_for(first, 30)
        task: Stored = await asyncio.wait_for(last, 30)
        return task.id

    assert asyncio.run(write_and_cancel()) == 3


def test_write_with_an_invalid_parameter_fails_alone(database: SqliteFile) -> None:
    async def write() -> list[Any]:
        writes = [database.write(run, "DELETE FROM task WHERE id = ?", id) for id in (1, 2**64, 3)]
        return await asyncio.gather(*writes, return_exceptions=True)

    first, second, third = asyncio.run(write())
    assert (first, third) == ([], [])
    assert isinstance(second, OverflowError)


def test_work_may_await_only_its_statements(database: SqliteFile) -> None:
    """If a unit of work awaited anything else, it would block the single writer thread."""

    async def sleep(_: Execute) -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="must not await anything but its statements"):
        asyncio.run(database.write(sleep))


def test_update_is_retried_if_the_task_appears_meanwhile(tasks: Resource) -> None:
    """Simulate a race that no test can provoke: the update finds no task, but the check after the update finds it."""
    row = (1, 1, b"{}")
    outcomes = [[], [row], [row]]

    async def execute(*_: object) -> Rows:
        return outcomes.pop(0)

    assert asyncio.run(tasks.update(execute, 1, TaskInput(title="a"), {1})) == row
    assert outcomes == []


def test_update_without_a_condition_skips_the_check(tasks: Resource) -> None:
    """If the update checked the task, a task that was created meanwhile would look like a changed task."""
    outcomes: list[Rows] = [[], [(1, 1, b"{}")]]

    async def execute(*_: object) -> Rows:
        return outcomes.pop(0)

    with pytest.raises(MissingError):
        asyncio.run(tasks.update(execute, 1, TaskInput(title="a"), None))


def test_failing_commit_fails_alone(database: SqliteFile) -> None:
    """A violated deferred foreign key makes the commit fail, and leaves the transaction open."""
    foreign_key = "REFERENCES task (id) DEFERRABLE INITIALLY DEFERRED"
    asyncio.run(database.write(run, f"CREATE TABLE note (task_id {foreign_key})"))

    async def write() -> list[Any]:
        writes = [database.write(run, "INSERT INTO note VALUES (?)", id) for id in (None, 1, None)]
        return await asyncio.gather(*writes, return_exceptions=True)

    first, second, third = asyncio.run(write())
    assert (first, third) == ([], [])
    assert isinstance(second, ForeignKeyError)
    assert asyncio.run(database.read("SELECT task_id FROM note", [])) == [(None,), (None,)]


def test_write_that_fails_halfway_leaves_nothing(database: SqliteFile, tasks: Resource) -> None:
    async def insert_and_fail(execute: Execute) -> None:
        await tasks.insert(execute, TaskInput(title="half"))
        raise ArithmeticError

    async def write() -> Any:
        first, last = (database.write(tasks.insert, TaskInput(title=title)) for title in "ab")
        writes = [first, database.write(insert_and_fail), last]
        return await asyncio.gather(*writes, return_exceptions=True)

    assert isinstance(asyncio.run(write())[1], ArithmeticError)
    assert asyncio.run(database.read("SELECT title FROM task ORDER BY id", [])) == [("a",), ("b",)]


def test_write_that_rolls_back_the_batch_fails_alone(database: SqliteFile) -> None:
    asyncio.run(database.write(run, "CREATE TABLE note (id UNIQUE ON CONFLICT ROLLBACK)"))

    async def write() -> list[Any]:
        writes = [database.write(run, "INSERT INTO note VALUES (?)", id) for id in (1, 1, 2)]
        return await asyncio.gather(*writes, return_exceptions=True)

    first, second, third = asyncio.run(write())
    assert (first, third) == ([], [])
    assert isinstance(second, DuplicateError)
    assert asyncio.run(database.read("SELECT id FROM note", [])) == [(1,), (2,)]


@pytest.mark.parametrize("number", [0.1, 0.1 + 0.2, 1 / 3, 1e300, -5e-324, 3.0])
def test_number_is_written_with_all_its_digits(database: SqliteFile, number: float) -> None:
    """No property in the contract is a fractional number yet, but a new property may be one."""
    sql, parameters = Select(columns=[sqlite._json_value(Value(number), FloatField())]).sql()

    ((text,),) = database.execute_sql(sql, parameters).fetchall()
    assert json.loads(text) == number


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "INTEGER PRIMARY KEY (rowid>?)"),
        ({"completed": True}, "INDEX task_completed_id (completed=? AND id>?)"),
    ],
)
def test_page_is_read_from_an_index(database: SqliteFile, filters: dict[str, Any], index: str) -> None:
    sql, values = page_statement(tasks_in(database), database, **filters)
    plan = database.execute_sql(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    on_table = [step[-1] for step in plan if " t2 " in step[-1]]

    # One search of the index reads the page, the other search checks whether there is a next page.
    assert len(on_table) == 2
    assert all(step.replace("COVERING ", "") == f"SEARCH t2 USING {index}" for step in on_table)
    assert not [step for step in plan if "TEMP B-TREE" in step[-1]]


def test_wal_of_a_replaced_file_is_emptied_once_no_other_process_reads_it(database: SqliteFile, tmp_path: Path) -> None:
    path, wal = tmp_path / "tasks.db", tmp_path / "tasks.db-wal"
    (tmp_path / "old.db").hardlink_to(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM task").fetchall()
        asyncio.run(database.write(run, "INSERT INTO task (title, completed, created_at) VALUES ('a', false, '')"))
        (tmp_path / "copy.db").write_bytes(path.read_bytes())
        (tmp_path / "copy.db").rename(path)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="was replaced while the service was running"):
                asyncio.run(database.read("SELECT 1", []))
        database._thread.submit(int).result()
        assert wal.stat().st_size > 0

    def is_empty() -> bool:
        with pytest.raises(UnavailableError):
            asyncio.run(database.read("SELECT 1", []))
        return wal.stat().st_size == 0

    wait_until(is_empty)
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        assert old.execute("SELECT title FROM task").fetchall() == [("a",)]


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_file_whose_wal_was_removed_gets_no_more_writes(database: SqliteFile, tmp_path: Path, suffix: str) -> None:
    """Another process would create a new WAL, and neither process would see the writes of the other."""
    insert = "INSERT INTO task (title, completed, created_at) VALUES ('a', false, '')"
    asyncio.run(database.write(run, insert))
    (tmp_path / f"tasks.db{suffix}").unlink()

    with pytest.raises(UnavailableError, match="was removed while the service was running: stop the service, and"):
        asyncio.run(database.write(run, insert))


def test_wal_beside_the_target_of_a_symbolic_link_is_checked(tmp_path: Path) -> None:
    """SQLite follows the link before it looks for the WAL."""
    folder = tmp_path / "data"
    folder.mkdir()
    migrate(f"sqlite:///{folder}/tasks.db")
    (folder / "tasks.db-wal").write_bytes(b"old")
    link = tmp_path / "tasks.db"
    link.symlink_to(folder / "tasks.db")
    open_database(f"sqlite:///{link}")

    with closing(sqlite3.connect(folder / "tasks.db")) as connection:
        connection.execute("PRAGMA journal_mode = delete").fetchone()
    (folder / "tasks.db-wal").write_bytes(b"old")

    with pytest.raises(ConfigurationError, match=f"remove {folder}/tasks.db-wal and {folder}/tasks.db-shm"):
        open_database(f"sqlite:///{link}")


def test_loop_of_symbolic_links_is_reported(tmp_path: Path) -> None:
    link = tmp_path / "tasks.db"
    link.symlink_to(link)

    with pytest.raises(ConfigurationError, match="The database cannot be used: unable to open database file; "):
        migrate(f"sqlite:///{link}")


def test_advice_names_the_wal_beside_the_target_of_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path, link = tmp_path / "data/tasks.db", tmp_path / "tasks.db"
    migrate(f"sqlite:///{path}")
    link.symlink_to(path)
    database = SqliteFile(link)
    asyncio.run(database.start())
    (tmp_path / "copy.db").write_bytes(path.read_bytes())
    (tmp_path / "copy.db").rename(path)

    with pytest.raises(UnavailableError, match=f"^{link} was replaced .*: stop the service, remove {path}-wal and"):
        asyncio.run(database.read("SELECT 1", []))

    asyncio.run(database.shut_down())


def test_file_system_without_shared_memory_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite then stays in the mode of a restored copy, so that an overwritten file cannot be told from it."""
    monkeypatch.setitem(sqlite.PRAGMAS, "journal_mode", "delete")
    migrate(f"sqlite:///{tmp_path}/tasks.db")
    database = SqliteFile(tmp_path / "tasks.db")
    asyncio.run(database.start())

    assert asyncio.run(database.write(run, "DELETE FROM task RETURNING id")) == []
    assert asyncio.run(database.read("SELECT * FROM task", [])) == []

    asyncio.run(database.shut_down())
