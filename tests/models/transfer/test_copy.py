"""The command `copy` copies all data of a SQLite file to a PostgreSQL database."""

import shutil
from pathlib import Path

import httpx
import peewee
import pytest

from models.database.address import open_database
from models.database.errors import ConfigurationError
from models.database.migrate import migrate
from models.tables import all_tables
from models.transfer import copy as copying
from models.transfer.copy import copy
from tests.support import inside
from tests.support.pets import Owner, Pet, create_tables
from tests.support.service import Service, Start, run
from tests.support.stores import PostgresqlStore, SqliteStore, Store

TITLES = ["plain", "Zażółć 🚀", "tab\tand \\N and \x01", "'quoted' \"twice\"", "last"]


@pytest.fixture(scope="module")
def backend() -> str:
    """Return PostgreSQL, the backend of the target database."""
    return "postgresql"


@pytest.fixture(scope="module")
def template_database() -> str:
    """Return the name of a template database without tables."""
    return "template0"


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite file that contains tasks and stored responses; the last task was deleted."""
    folder = tmp_path_factory.mktemp("source")
    service = Service(folder)
    for number, title in enumerate(TITLES):
        task = {"title": title, "description": None if number % 2 else "d", "completed": number % 2 == 1}
        assert service.client.post("/api/tasks", json=task, headers={"Idempotency-Key": title[:1]}).is_success
    service.client.put("/api/tasks/2", json={"title": TITLES[1]})
    service.client.delete(f"/api/tasks/{len(TITLES)}")
    service.stop()
    return folder / "tasks.db"


@pytest.fixture
def source(sqlite_file: Path, tmp_path: Path) -> SqliteStore:
    """Return a copy of the SQLite file, which the test may change."""
    return SqliteStore(Path(shutil.copy(sqlite_file, tmp_path)))


def read_tasks(client: httpx.Client) -> list[tuple[str, bytes]]:
    """Return, for each task, the version from its entity tag and the task itself."""
    paths = [f"/api/tasks/{task['id']}" for task in client.get("/api/tasks").json()]
    responses = [client.get(path) for path in paths]
    return [(response.headers["etag"].split("-")[0], response.json()) for response in responses]


def test_copy_preserves_everything(source: SqliteStore, store: Store, start: Start, tmp_path: Path) -> None:
    copied = run(tmp_path, "copy", "--from", source.url, "--to", store.url)

    assert (copied.returncode, copied.stdout) == (0, "Copied and compared 9 rows.\n")
    assert "Copying and comparing" in copied.stderr
    before = Service(tmp_path, variables={"DATABASE_URL": source.url})
    client = start().client
    assert read_tasks(client) == read_tasks(before.client)
    assert len(read_tasks(client)) == len(TITLES) - 1
    before.stop()
    replay = client.post(
        "/api/tasks",
        json={"title": "plain", "description": "d"},
        headers={"Idempotency-Key": "p"},
    )
    assert replay.headers["idempotency-replayed"] == "true"
    # The id of the deleted task is not reused.
    assert client.post("/api/tasks", json={"title": "new"}).json()["id"] == len(TITLES) + 1


def test_target_that_is_not_empty_is_refused(source: SqliteStore, store: PostgresqlStore, tmp_path: Path) -> None:
    migrate(store.url)
    store.execute("INSERT INTO task (title, completed, created_at) VALUES ('kept', false, '')")

    refused = run(tmp_path, "copy", "--from", source.url, "--to", store.url)

    assert refused.returncode == 1
    assert refused.stderr.endswith('The target has rows in "task" already: name an empty database in --to.\n')
    assert store.execute("SELECT title FROM task") == [("kept",)]
    assert store.execute("SELECT key FROM kept_answer") == []


@pytest.mark.parametrize(
    ("change", "table"), [("NEW.title = upper(NEW.title)", "task"), ("NEW.status = 200", "kept_answer")]
)
def test_row_changed_by_the_target_is_detected(
    source: SqliteStore, store: PostgresqlStore, tmp_path: Path, change: str, table: str
) -> None:
    migrate(store.url)
    store.execute(f"CREATE FUNCTION f() RETURNS trigger AS $$BEGIN {change}; RETURN NEW; END$$ LANGUAGE plpgsql")
    store.execute(f"CREATE TRIGGER t BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION f()")

    refused = run(tmp_path, "copy", "--from", source.url, "--to", store.url)

    assert refused.returncode == 1
    assert f'The server stores other rows of "{table}" than it was sent: nothing was copied.\n' in refused.stderr
    assert store.execute("SELECT id FROM task") == []


def test_row_refused_by_the_target_is_reported(source: SqliteStore, store: PostgresqlStore, tmp_path: Path) -> None:
    migrate(store.url)
    store.execute("ALTER TABLE task ADD CHECK (title != 'plain')")

    refused = run(tmp_path, "copy", "--from", source.url, "--to", store.url)

    assert refused.returncode == 1
    assert "Nothing was copied: new row for relation" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_damaged_source_is_reported(source: SqliteStore, store: PostgresqlStore) -> None:
    """SQLite meets the damage only when it reads the last row."""
    source.execute("UPDATE task SET description = zeroblob(50000) WHERE id = 4")
    with source.path.open("r+b") as file:
        file.seek(-20_000, 2)
        file.write(b"\xff" * 20_000)

    with pytest.raises(ConfigurationError, match=r"^Nothing was copied: database disk image is malformed\.$"):
        list(copy(source.url, store.url, all_tables()))


@pytest.mark.parametrize(
    "given",
    [("from",), ("to",), ("from", "from"), ("to", "to"), ("to", "from"), ("old", "to"), ("no", "to"), ("other", "to")],
)
def test_invalid_urls_are_refused(
    source: SqliteStore, store: PostgresqlStore, tmp_path: Path, given: tuple[str, ...]
) -> None:
    (tmp_path / "old.db").touch()
    (tmp_path / "other.db").write_text("This is a text.", "utf-8")
    urls = {"from": source.url, "to": store.url}
    urls |= {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("old", "no", "other")}
    flags = [part for flag, url in zip(("--from", "--to"), given, strict=False) for part in (flag, urls[url])]

    refused = inside.run(tmp_path, "copy", *flags)

    assert refused.returncode == 1
    sentence = refused.stderr.splitlines()[-1]
    expected = {
        1: "--to is missing: name the database, such as postgresql://host/tasks.",
        2: "--from must name a SQLite file, such as sqlite:///data.db, and --to a server, such as postgresql://",
    }[len(given)]
    if given[0] == "old":
        expected = "The database schema is older than this release: run the command migrate to apply 0001_create_task"
    if given[0] == "no":
        expected = f"There is no file {tmp_path}/no.db: name an existing database in --from."
        assert not (tmp_path / "no.db").exists()
    if given[0] == "other":
        expected = f"{tmp_path}/other.db is not a SQLite database: name another file in --from."
    assert sentence.startswith(expected)
    assert "Traceback" not in refused.stderr


def test_copy_needs_the_write_lock_of_the_source(source: SqliteStore, store: PostgresqlStore, tmp_path: Path) -> None:
    migrate(store.url)
    with source.block_writes():
        refused = run(tmp_path, "copy", "--from", source.url, "--to", store.url)

    assert refused.returncode == 1
    assert refused.stderr.endswith("Nothing was copied: database is locked.\n")


class Place(peewee.Model):
    """A table with a key of several columns; PostgreSQL may sort the names in another order than SQLite."""

    country = peewee.CharField(max_length=2)
    name = peewee.TextField()

    class Meta:
        primary_key = peewee.CompositeKey("country", "name")


def test_every_table_is_copied_with_its_ids(tmp_path: Path, store: PostgresqlStore) -> None:
    source = SqliteStore(tmp_path / "source.db")
    for url in (source.url, store.url):
        migrate(url)
        create_tables(url, Owner, Pet, Place)
    source.execute("INSERT INTO owner (name) VALUES ('Ann'), ('Bob'), ('Cleo')")
    source.execute("DELETE FROM owner WHERE id = 3")
    for name in ("Rex", "Max"):
        source.execute(f"INSERT INTO pet (name, owner_id, weight, born, tame) VALUES ('{name}', 2, 0.1, '', NULL)")
    # The highest id of a table without AUTOINCREMENT is the highest one that it contains.
    source.execute("DELETE FROM sqlite_sequence WHERE name = 'pet'")
    for name in ("b", "B", "a", "_", "Ä", "🚀"):
        source.execute(f"INSERT INTO place VALUES ('de', '{name}'), ('DE', '{name}')")

    progress = list(copy(source.url, store.url, [Owner, Pet, Place]))

    assert progress[-1] == (2 * 16, 2 * 16)
    assert store.execute("SELECT name, owner_id, weight, tame FROM pet ORDER BY id") == [
        ("Rex", 2, 0.1, None),
        ("Max", 2, 0.1, None),
    ]
    assert len(store.execute("SELECT * FROM place")) == 12
    assert store.execute("INSERT INTO owner (name) VALUES ('Dan') RETURNING id") == [(4,)]
    assert store.execute("INSERT INTO pet (name, born) VALUES ('Moe', '') RETURNING id") == [(3,)]


@pytest.mark.parametrize("url", ["sqlite:///never-opened.db", "postgresql://never-opened/database"])
def test_strings_are_sorted_by_their_bytes(url: str) -> None:
    """The server of the tests sorts strings by their bytes anyway; other servers sort them by their locale."""
    sql, _ = copying._sorted_rows(Place, open_database(url)).sql()

    order = sql.partition(" ORDER BY ")[2]
    assert order in (
        'CAST("t1"."country" AS blob), CAST("t1"."name" AS blob)',
        """convert_to("t1"."country", 'UTF8'), convert_to("t1"."name", 'UTF8')""",
    )


def test_file_that_violates_a_foreign_key_is_not_copied(tmp_path: Path, store: PostgresqlStore) -> None:
    source = SqliteStore(tmp_path / "source.db")
    for url in (source.url, store.url):
        migrate(url)
        create_tables(url, Owner, Pet)
    source.execute("INSERT INTO pet (name, owner_id, born) VALUES ('Rex', 1, '')")

    with pytest.raises(ConfigurationError, match=r"^Nothing was copied: .* violates foreign key constraint .*\.$"):
        list(copy(source.url, store.url, [Owner, Pet]))

    assert store.execute("SELECT * FROM pet") == []
