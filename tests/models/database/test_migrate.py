"""Each migration runs only once; either all pending migrations are applied or none; the data stays."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from models.answers import KeptAnswer
from models.database import migrate as migrating
from models.database.address import connected
from models.database.errors import ConfigurationError
from models.database.migrate import migrate
from models.schemas import Task
from models.task import Task as Table
from tests.support.service import Start, run
from tests.support.stores import Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each implements these guarantees in its own way."""
    return str(request.param)


MIGRATIONS = sorted(path.stem for path in migrating.DIRECTORY.glob("[0-9]*.py"))
INSERT = "INSERT INTO task (title, completed, created_at) VALUES ('a', false, '2026-05-12T10:32:14.000Z')"
REBUILD = """
from peewee import IntegerField

def up(migrator, db):
    migrator.migrate(migrator.add_column("task", "priority", IntegerField(default=3)))
"""

# A function that replaces all migrations but the first. Each keyword argument is a new migration: its name after an
# underscore, and its script.
ReplaceMigrations = Callable[..., None]


@pytest.fixture(scope="module")
def template_database() -> str:
    """Return the name of a template database without tables."""
    return "template0"


@pytest.fixture
def replace_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReplaceMigrations:
    def write(**scripts: str) -> None:
        folder = tmp_path / "migrations"
        folder.mkdir()
        (folder / "0001_create_task.py").write_text((migrating.DIRECTORY / "0001_create_task.py").read_text())
        for name, script in scripts.items():
            (folder / f"{name[1:]}.py").write_text(script)
        monkeypatch.setattr(migrating, "DIRECTORY", folder)

    return write


def test_migrations_are_numbered_without_a_gap() -> None:
    """Two migrations with the same number would run in the order of their names."""
    assert [int(name[:4]) for name in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_tables_match_the_models_and_the_contract(store: Store) -> None:
    assert migrate(store.url) == MIGRATIONS
    assert migrate(store.url) == []

    with connected(store.url) as database:
        # Compare sets, since the order may differ: a migration adds a column at the end of the table.
        columns, response_columns = (
            {column.name for column in database.get_columns(table)} for table in ("task", "kept_answer")
        )
        indexed = {tuple(index.columns) for index in database.get_indexes("task") if not index.unique}
    assert indexed == {names for names, _ in Table._meta.indexes}
    assert columns == {field.column_name for field in Table._meta.sorted_fields}
    assert columns == {*Task.model_fields, "version"}
    assert response_columns == {field.column_name for field in KeptAnswer._meta.sorted_fields}


def test_several_nodes_may_migrate_at_once(store: Store, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        variables = {"DATABASE_URL": store.url}
        runs = [pool.submit(run, tmp_path, "migrate", variables=variables) for _ in range(4)]

    assert {(run.result().stderr, run.result().returncode) for run in runs} == {("", 0)}
    assert sorted(run.result().stdout for run in runs) == [
        f"Applied: {', '.join(MIGRATIONS)}\n",
        *["Applied: nothing, the schema is up to date\n"] * 3,
    ]


@pytest.mark.slow
def test_a_new_file_may_be_opened_many_times_at_once(tmp_path: Path) -> None:
    """SQLite does not apply its busy timeout while connections switch a new file to WAL mode."""
    threads = 8
    barrier = Barrier(threads)

    def migrate_at_once(url: str) -> list[str]:
        barrier.wait(60)
        return migrate(url)

    with ThreadPoolExecutor(threads) as pool:
        for number in range(20):
            applied = list(pool.map(migrate_at_once, [f"sqlite:///{tmp_path}/{number}.db"] * threads))
            assert sorted(applied) == [[]] * (threads - 1) + [MIGRATIONS]


def test_task_of_an_older_schema_has_an_entity_tag(
    start: Start, store: Store, replace_migrations: ReplaceMigrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_migrations()
    migrate(store.url)
    store.execute(INSERT)
    monkeypatch.undo()
    migrate(store.url)

    client = start().client
    kept = client.get("/api/tasks/1")
    replaced = client.put("/api/tasks/1", json={"title": "b"}, headers={"If-Match": kept.headers["etag"]})

    assert kept.json()["title"] == "a"
    assert replaced.status_code == 200
    assert kept.headers["etag"] not in (replaced.headers["etag"], client.get("/api/tasks/1").headers["etag"])


@pytest.mark.parametrize("kept", [0, 1])
def test_rebuilt_table_does_not_reuse_an_id(store: Store, replace_migrations: ReplaceMigrations, kept: int) -> None:
    migrate(store.url)
    for _ in range(3):
        store.execute(INSERT)
    store.execute(f"DELETE FROM task WHERE id > {kept}")
    replace_migrations(_0002_add_priority=REBUILD)

    assert migrate(store.url) == ["0002_add_priority"]

    store.execute(INSERT.replace(") V", ", priority) V").replace("Z')", "Z', 1)"))
    assert store.execute("SELECT id, priority FROM task") == [(1, 3)] * kept + [(4, 1)]


def test_failing_migration_changes_nothing(store: Store, replace_migrations: ReplaceMigrations) -> None:
    replace_migrations(_0002_wrong="def up(migrator, db):\n    db.execute_sql('SELECT nonsense')\n")

    with pytest.raises(ConfigurationError, match=r"^The database could not be migrated: .*nonsense[^\n]*$"):
        migrate(store.url)

    with connected(store.url) as database:
        assert database.get_tables() == []


def test_serve_migrates_a_sqlite_file_only(store: Store, backend: str, start: Start, tmp_path: Path) -> None:
    """`serve` does not migrate a PostgreSQL database, because nodes of another release may use it."""
    if backend == "sqlite":
        assert start().client.get("/api/tasks").json() == []
        return

    refused = run(tmp_path, "serve", variables={"DATABASE_URL": store.url})

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"The database schema is older than this release: run the command migrate to apply {', '.join(MIGRATIONS)}.\n"
    )
    with connected(store.url) as database:
        assert database.get_tables() == []


def test_service_works_with_the_schema_of_the_next_release(start: Start, store: Store) -> None:
    migrate(store.url)
    store.execute("ALTER TABLE task ADD COLUMN priority INTEGER NOT NULL DEFAULT 3")
    store.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_add_priority', '2027-01-01')")

    client = start().client

    assert client.post("/api/tasks", json={"title": "a"}).status_code == 201
    assert client.put("/api/tasks/1", json={"title": "b"}).json()["title"] == "b"


def test_table_of_another_program_is_left_alone(store: Store) -> None:
    store.execute("CREATE TABLE task (somebody_elses TEXT)")

    with pytest.raises(ConfigurationError, match="The database could not be migrated: "):
        migrate(store.url)

    with connected(store.url) as database:
        assert database.get_tables() == ["task"]
        assert [column.name for column in database.get_columns("task")] == ["somebody_elses"]
