"""Each migration runs only once; either all pending migrations are applied or none; the data stays."""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest
from peewee import AutoField

from models.database import migrate as migrating
from models.database.address import connected
from models.database.errors import ConfigurationError
from models.database.migrate import migrate, prepare
from models.tables import all_tables
from models.transfer.backup import backup
from tests.support.pets import Owner, create_tables
from tests.support.service import Start, run
from tests.support.stores import SqliteStore, Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each implements these guarantees in its own way."""
    return str(request.param)


MIGRATIONS = sorted(path.stem for path in migrating.DIRECTORY.glob("[0-9]*.py"))
INSERT = "INSERT INTO task (title, completed, created_at) VALUES ('a', false, '2026-05-12T10:32:14.000Z')"
REBUILD = """
from peewee import IntegerField

def up(migrator, db):
    migrator.migrate(migrator.add_column("task", "rank", IntegerField(default=3)))
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
        (folder / "0001_create_task.py").write_text(
            (migrating.DIRECTORY / "0001_create_task.py").read_text("utf-8"), "utf-8"
        )
        for name, script in scripts.items():
            (folder / f"{name[1:]}.py").write_text(script, "utf-8")
        monkeypatch.setattr(migrating, "DIRECTORY", folder)

    return write


def test_migrations_are_numbered_without_a_gap() -> None:
    """Two migrations with the same number would run in the order of their names."""
    assert [int(name[:4]) for name in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_tables_match_the_models_and_the_contract(store: Store) -> None:
    """Compare sets, since the order may differ: a migration adds a column at the end of the table."""
    assert migrate(store.url) == MIGRATIONS
    assert migrate(store.url) == []

    tables = {table._meta.table_name: table for table in all_tables()}
    with connected(store.url) as database:
        assert {*database.get_tables()} - {"sqlite_sequence"} == {*tables, "schema_migration"}
        for name, table in tables.items():
            assert {column.name for column in database.get_columns(name)} == {*table._meta.columns}
            primary_key = [field.column_name for field in table._meta.get_primary_keys()]
            indexes = {
                (*index.columns, index.unique) for index in database.get_indexes(name) if index.columns != primary_key
            }
            assert indexes == {
                (*(field.column_name for field in index._expressions), index._unique)
                for index in table._meta.fields_to_index()
            }


def test_ids_are_never_reused(tmp_path: Path) -> None:
    """Without AUTOINCREMENT in its migration, SQLite reuses the id of the last row after its deletion."""
    store = SqliteStore(tmp_path / "tasks.db")
    migrate(store.url)

    for table in all_tables():
        if isinstance(table._meta.primary_key, AutoField):
            ((sql,),) = store.execute(f"SELECT sql FROM sqlite_master WHERE name = '{table._meta.table_name}'")
            assert " AUTOINCREMENT" in sql


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
    replace_migrations(_0002_add_rank=REBUILD)

    assert migrate(store.url) == ["0002_add_rank"]

    store.execute(INSERT.replace(") V", ", rank) V").replace("Z')", "Z', 1)"))
    assert store.execute("SELECT id, rank FROM task") == [(1, 3)] * kept + [(4, 1)]


MIGRATE_PETS = """
from peewee import IntegerField

def up(migrator, db):
    migrator.migrate(migrator.alter_column_type("owner", "name", IntegerField()))
    db.execute_sql("DROP TABLE dropped")
"""


@pytest.fixture
def pets(tmp_path: Path) -> SqliteStore:
    """Return a SQLite file where Rex belongs to the first of two owners, and would be deleted with it."""
    store = SqliteStore(tmp_path / "pets.db")
    migrate(store.url)
    create_tables(store.url, Owner)
    store.execute("CREATE TABLE pet (name TEXT, owner_id INTEGER REFERENCES owner ON DELETE CASCADE)")
    store.execute("CREATE TABLE dropped (id INTEGER PRIMARY KEY AUTOINCREMENT)")
    store.execute("INSERT INTO dropped VALUES (1)")
    store.execute("INSERT INTO owner (name) VALUES ('Ann'), ('Bob')")
    store.execute("DELETE FROM owner WHERE name = 'Bob'")
    store.execute("INSERT INTO pet VALUES ('Rex', 1)")
    return store


def test_rebuilt_table_keeps_its_ids_and_the_rows_that_refer_to_it(
    pets: SqliteStore, replace_migrations: ReplaceMigrations
) -> None:
    replace_migrations(_0002_pets=MIGRATE_PETS)

    assert migrate(pets.url) == ["0002_pets"]

    assert pets.execute("SELECT * FROM pet") == [("Rex", 1)]
    assert pets.execute("INSERT INTO owner (name) VALUES ('Cleo') RETURNING id") == [(3,)]
    assert pets.execute("SELECT name FROM sqlite_sequence WHERE name = 'dropped'") == []


def test_migration_must_not_break_a_reference(pets: SqliteStore, replace_migrations: ReplaceMigrations) -> None:
    replace_migrations(_0002_wrong="def up(migrator, db):\n    db.execute_sql('DELETE FROM owner')\n")

    with pytest.raises(ConfigurationError) as error:
        migrate(pets.url)

    assert str(error.value) == (
        "The database could not be migrated: a row of pet refers to a row of owner that does not exist."
    )
    assert pets.execute("SELECT count(*) FROM owner") == [(1,)]


def test_references_are_checked_again_after_a_migration(pets: SqliteStore) -> None:
    with connected(pets.url) as database:
        with database.migration():
            assert database.execute_sql("PRAGMA foreign_keys").fetchone() == (0,)
        assert database.execute_sql("PRAGMA foreign_keys").fetchone() == (1,)


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
    store.execute("ALTER TABLE task ADD COLUMN rank INTEGER NOT NULL DEFAULT 3")
    store.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_add_rank', '2027-01-01')")

    client = start().client

    assert client.post("/api/tasks", json={"title": "a"}).status_code == 201
    assert client.put("/api/tasks/1", json={"title": "b"}).json()["title"] == "b"


def test_table_of_another_program_is_left_alone(store: Store, backend: str) -> None:
    store.execute("CREATE TABLE task (somebody_elses TEXT)")

    sentence = "is not a database of this service" if backend == "sqlite" else 'migrated: .* "task" already exists'
    with pytest.raises(ConfigurationError, match=sentence):
        migrate(store.url)

    with connected(store.url) as database:
        assert database.get_tables() == ["task"]
        assert [column.name for column in database.get_columns("task")] == ["somebody_elses"]


HISTORY = "CREATE TABLE schema_migration (id INTEGER PRIMARY KEY, name TEXT, applied TEXT)"


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE note (text TEXT)",
        "PRAGMA journal_mode = wal; CREATE TABLE note (text TEXT)",
        "PRAGMA encoding = 'UTF-16'; CREATE TABLE sqlitenote (text TEXT)",
        "CREATE VIRTUAL TABLE note USING fts5(text)",
        HISTORY,
        f"{HISTORY}; INSERT INTO schema_migration (name) VALUES ('0001_create_note'), ('{MIGRATIONS[-1]}')",
        "CREATE TABLE schema_migration (version TEXT); CREATE TABLE note (text TEXT)",
        "CREATE TABLE _litestream_seq (id INTEGER); CREATE TABLE task (title TEXT)",
    ],
)
def test_file_of_another_program_is_not_changed(tmp_path: Path, script: str) -> None:
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    before = path.read_bytes()

    for function in (migrate, prepare, lambda url: backup(url, tmp_path / "copy.db", ["note"])):
        with pytest.raises(ConfigurationError) as error:
            function(f"sqlite:///{path}")
        assert str(error.value) == f"{path} is not a database of this service: name another file in DATABASE_URL."

    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_wal_of_another_program_that_was_killed_is_not_changed(tmp_path: Path) -> None:
    path, copy = tmp_path / "notes.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = wal; CREATE TABLE note (text TEXT)")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    before = copy.read_bytes(), Path(f"{copy}-wal").read_bytes()

    with pytest.raises(ConfigurationError, match="is not a database of this service"):
        migrate(f"sqlite:///{copy}")

    assert (copy.read_bytes(), Path(f"{copy}-wal").read_bytes()) == before


@pytest.mark.parametrize("content", [b"This is a text.", b"SQLite format 2\0" * 40, bytes(4096), b"xy"])
def test_file_of_another_format_is_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError) as error:
        migrate(f"sqlite:///{path}")

    assert str(error.value) == f"{path} is not a SQLite database: name another file in DATABASE_URL."
    assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "script",
    [
        "",
        "VACUUM",
        "CREATE TABLE note (id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE note",
        "CREATE TABLE note (id INTEGER); CREATE INDEX ids ON note (id); ANALYZE; DROP TABLE note",
        "CREATE TABLE _litestream_seq (id INTEGER); CREATE TABLE _litestream_lock (id INTEGER)",
    ],
)
def test_file_without_tables_of_a_program_is_migrated(tmp_path: Path, script: str) -> None:
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection:
        connection.executescript(script)

    assert migrate(f"sqlite:///{tmp_path}/tasks.db") == MIGRATIONS
