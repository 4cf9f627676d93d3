"""Migrations: once each, all or none, and without losing what the database knew."""

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from models import migrate as migrating
from models.answers import KeptAnswer
from models.errors import ConfigurationError
from models.migrate import migrate
from models.schemas import Task
from models.task import Task as Table
from tests.conftest import COMMAND, Start, environment

MIGRATIONS = ["0001_create_task", "0002_add_version", "0003_create_kept_answer"]
REBUILD = """
from peewee import IntegerField

def up(migrator, db):
    migrator.migrate(migrator.add_column("task", "priority", IntegerField(default=3)))
"""


def test_tables_hold_what_the_contract_shows(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    assert migrate(f"sqlite:///{path}") == MIGRATIONS
    assert migrate(f"sqlite:///{path}") == []

    with closing(sqlite3.connect(path)) as database:
        columns, answers = (
            [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
            for table in ("task", "kept_answer")
        )
        indexes = [name for _, name, *_ in database.execute("PRAGMA index_list(task)")]
        indexed = [tuple(row[2] for row in database.execute(f"PRAGMA index_info({name})")) for name in indexes]
    assert indexed == [names for names, _ in Table._meta.indexes]
    assert columns == list(Table._meta.fields)
    assert columns == [*Task.model_fields, "version"]
    assert answers == list(KeptAnswer._meta.fields)


def test_several_processes_may_migrate_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([COMMAND, "migrate"], cwd=tmp_path, env=environment(), stdout=-1, stderr=-1, text=True)
        for _ in range(4)
    ]
    results = [(*process.communicate(timeout=60), process.returncode) for process in processes]

    assert sorted(results) == [
        (f"Applied: {', '.join(MIGRATIONS)}\n", "", 0),
        *[("Applied: nothing, the schema is up to date\n", "", 0)] * 3,
    ]


def test_task_of_an_older_schema_has_an_entity_tag(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_create_task.py").write_text((migrating.DIRECTORY / "0001_create_task.py").read_text())
    path = tmp_path / "tasks.db"
    with monkeypatch.context() as patched:
        patched.setattr(migrating, "DIRECTORY", folder)
        migrate(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO task (title, completed, created_at) VALUES ('a', 0, '2026-05-12T10:32:14.000Z')")

    client = start().client
    kept = client.get("/api/tasks/1")
    replaced = client.put("/api/tasks/1", json={"title": "b"}, headers={"If-Match": kept.headers["etag"]})

    assert kept.json()["title"] == "a"
    assert replaced.status_code == 200
    assert kept.headers["etag"] not in (replaced.headers["etag"], client.get("/api/tasks/1").headers["etag"])


@pytest.mark.parametrize("kept", [0, 1])
def test_rebuilt_table_does_not_give_an_id_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    path = tmp_path / "tasks.db"
    migrate(f"sqlite:///{path}")
    insert = "INSERT INTO task (title, completed, created_at) VALUES ('a', 0, '')"
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(f"{insert}; {insert}; {insert}; DELETE FROM task WHERE id > {kept};")
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_create_task.py").write_text((migrating.DIRECTORY / "0001_create_task.py").read_text())
    (folder / "0002_add_priority.py").write_text(REBUILD)
    monkeypatch.setattr(migrating, "DIRECTORY", folder)

    assert migrate(f"sqlite:///{path}") == ["0002_add_priority"]

    with closing(sqlite3.connect(path)) as database, database:
        database.execute(insert.replace(") V", ", priority) V").replace("'')", "'', 1)"))
        assert database.execute("SELECT id, priority FROM task").fetchall() == [(1, 3)] * kept + [(4, 1)]


def test_failing_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_create_task.py").write_text((migrating.DIRECTORY / "0001_create_task.py").read_text())
    (folder / "0002_wrong.py").write_text("def up(migrator, db):\n    db.execute_sql('SELECT nonsense')\n")
    monkeypatch.setattr(migrating, "DIRECTORY", folder)
    path = tmp_path / "tasks.db"

    with pytest.raises(ConfigurationError, match="The database could not be migrated: no such column: nonsense"):
        migrate(f"sqlite:///{path}")

    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == []
