"""A backup of a SQLite file in use is complete or does not exist, and suffices to start the service."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Event

import pytest

from models.database import sqlite
from models.database.errors import ConfigurationError
from models.database.migrate import migrate
from models.transfer.backup import backup
from tests.support import wire
from tests.support.flushes import Flushes, FlushSocket
from tests.support.launcher import launcher
from tests.support.project import COMMAND, ROOT
from tests.support.service import COVERAGE_VARIABLES, Service, Start, environment, run
from tests.support.stores import SqliteStore

INSERT = "INSERT INTO task (title, completed, created_at) VALUES ('{}', false, '2026-05-12T10:32:14.000Z')"


@pytest.fixture
def source(store: SqliteStore) -> SqliteStore:
    """Return a SQLite file that contains one task and is not open in any process."""
    migrate(store.url)
    store.execute(INSERT.format("kept"))
    return store


def titles(path: Path) -> list[str]:
    """Return the titles of the tasks in a file; open it read-only, so that SQLite creates no other file beside it."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [title for (title,) in connection.execute("SELECT title FROM task ORDER BY id")]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"log", "flush_socket"}


def create(service: Service, *titles: str) -> list[int]:
    return [service.client.post("/api/tasks", json={"title": title}).json()["id"] for title in titles]


def test_copy_is_one_file_from_which_the_service_starts(start: Start, tmp_path: Path) -> None:
    service = start()
    create(service, "a", "b", "c")
    service.client.delete("/api/tasks/3")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    result = run(tmp_path, "backup", "copy.db")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "Copied 2 rows to copy.db, and checked the copy.\n"
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == {"tasks.db", "tasks.db-wal", "tasks.db-shm", "copy.db", "elsewhere"}
    copy = (tmp_path / "copy.db").rename(elsewhere / "copy.db")
    assert titles(copy) == ["a", "b"]
    assert names(elsewhere) == {"copy.db"}
    copied = start(variables={"DATABASE_URL": f"sqlite:///{copy}"})
    assert copied.client.get("/api/tasks").content == service.client.get("/api/tasks").content
    assert create(copied, "d") == [4]
    assert [task["title"] for task in service.client.get("/api/tasks").json()] == ["a", "b"]


def test_rows_of_all_tables_are_counted(source: SqliteStore, tmp_path: Path) -> None:
    """A file that has not been migrated to this release yet may lack some of its tables."""
    source.execute("INSERT INTO api_key (name, hash, created_at) VALUES ('app', x'00', '')")

    assert backup(source.url, tmp_path / "copy.db", ["task", "kept_answer", "api_key", "of_this_release"]) == 2


def test_copy_is_restored_as_documented(start: Start, tmp_path: Path) -> None:
    commands = (ROOT / "docs/operations.md").read_text("utf-8").partition("## Backup")[2].split("```sh\n")[1:3]
    back_up, restore = (command.partition("```")[0].replace("tasks-api", COMMAND) for command in commands)
    service = start()
    create(service, "a", "b")

    subprocess.run(["sh", "-ec", back_up], cwd=tmp_path, env=environment(), check=True, stdout=-1)
    create(service, "lost")
    # Kill the service, so that it leaves its write-ahead log, which would corrupt a restored file.
    service.process.kill()
    service.process.wait(timeout=30)
    subprocess.run(["sh", "-ec", restore], cwd=tmp_path, check=True)

    assert [task["title"] for task in start().client.get("/api/tasks").json()] == ["a", "b"]


class Backup:
    """A run of the backup command, whose flushes obey a policy.

    Args:
        flush_socket: The socket where the command registers its flushes.
        folder: The working directory of the command.
        policy: A function that lets a flush through, holds it or fails it.
    """

    def __init__(self, flush_socket: FlushSocket, folder: Path, policy: Callable[[Flushes, int], None]) -> None:
        self._log = folder / "log"
        variables = environment(flush_socket.variables) | COVERAGE_VARIABLES
        with self._log.open("wb") as log:
            self.process = launcher().start(["backup", "copy.db"], folder, variables, log)
        self.flushes = flush_socket.accept()
        self.flushes.policy = lambda flush: policy(self.flushes, flush)

    def end(self) -> tuple[int, str]:
        """Wait until the command ends, and return its exit status and standard error."""
        self.process.communicate(timeout=30)
        return self.process.wait(), self._log.read_text("utf-8")


@pytest.fixture
def flush_socket(tmp_path: Path) -> Iterator[FlushSocket]:
    with closing(FlushSocket(tmp_path / "flush_socket")) as flush_socket:
        yield flush_socket


def test_writers_do_not_wait_for_the_backup(start: Start, flush_socket: FlushSocket, tmp_path: Path) -> None:
    """The writers write before the backup, while the first flush of the backup is held, and after the backup."""
    service = start()
    acknowledged: list[Queue[int]] = [Queue() for _ in range(4)]
    done = Event()

    def write(writer: int) -> int:
        with wire.connect(service.url) as connection:
            for number in count():
                task = {"title": f"{writer} {number}"}
                assert wire.call(connection, "POST", "/api/tasks", task).status == 201
                acknowledged[writer].put(number)
                if done.is_set():
                    return number
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, writer) for writer in range(4)]
        try:
            earlier = [max(queue.get(timeout=30) for _ in range(10)) for queue in acknowledged]
            running = Backup(flush_socket, tmp_path, Flushes.hold)
            flush = running.flushes.held.get(timeout=30)
            known = [
                max((queue.get() for _ in range(queue.qsize())), default=number)
                for queue, number in zip(acknowledged, earlier, strict=True)
            ]
            later = [max(queue.get(timeout=30) for _ in range(50)) for queue in acknowledged]
            running.flushes.policy = running.flushes.let_through
            running.flushes.let_through(flush)
            assert running.end() == (0, "")
        finally:
            done.set()
        total = [writer.result() for writer in writers]

    copied = titles(tmp_path / "copy.db")
    for writer in range(4):
        numbers = [int(title.split()[1]) for title in copied if title.startswith(f"{writer} ")]
        assert numbers == list(range(len(numbers)))
        # The copy lacks the writes made while the flush was blocked, except for a write that was already in progress.
        assert earlier[writer] < len(numbers) <= known[writer] + 2
        assert known[writer] < later[writer] <= total[writer]
    assert service.log() == ""


def test_killed_backup_leaves_no_copy(source: SqliteStore, flush_socket: FlushSocket, tmp_path: Path) -> None:
    running = Backup(flush_socket, tmp_path, Flushes.hold)
    running.flushes.held.get(timeout=30)
    running.process.kill()
    running.end()

    (leftover,) = tmp_path.glob(".backup-*")
    assert not (tmp_path / "copy.db").exists()
    assert run(tmp_path, "backup", "copy.db").returncode == 0
    assert titles(tmp_path / "copy.db") == ["kept"]
    assert names(tmp_path) == {"tasks.db", "copy.db", leftover.name}


def test_ctrl_c_leaves_no_file_and_no_traceback(source: SqliteStore, flush_socket: FlushSocket, tmp_path: Path) -> None:
    running = Backup(flush_socket, tmp_path, Flushes.hold)
    flush = running.flushes.held.get(timeout=30)
    running.process.send_signal(signal.SIGINT)
    # The command may repeat the interrupted flush; let the repeated flush through.
    running.flushes.policy = running.flushes.let_through
    with suppress(OSError):
        running.flushes.let_through(flush)

    assert running.end() == (130, "")
    assert names(tmp_path) == {"tasks.db"}


def test_content_is_flushed_before_the_name_and_the_folder_after_it(
    source: SqliteStore, flush_socket: FlushSocket, tmp_path: Path
) -> None:
    has_name = []

    def fail_last(flushes: Flushes, flush: int) -> None:
        has_name.append((tmp_path / "copy.db").exists())
        (flushes.fail if has_name[-1] else flushes.let_through)(flush)

    status, errors = Backup(flush_socket, tmp_path, fail_last).end()

    assert has_name == [False] * (len(has_name) - 1) + [True]
    assert (status, errors) == (
        1,
        "copy.db cannot be written: Input/output error; fix that, or name a file elsewhere.\n",
    )
    assert names(tmp_path) == {"tasks.db"}


def test_file_created_meanwhile_is_not_overwritten(
    source: SqliteStore, flush_socket: FlushSocket, tmp_path: Path
) -> None:
    def create_copy(flushes: Flushes, flush: int) -> None:
        (tmp_path / "copy.db").write_text("mine", "utf-8")
        flushes.let_through(flush)

    status, errors = Backup(flush_socket, tmp_path, create_copy).end()

    assert (status, errors) == (1, "copy.db cannot be written: File exists; fix that, or name a file elsewhere.\n")
    assert (tmp_path / "copy.db").read_text("utf-8") == "mine"
    assert names(tmp_path) == {"tasks.db", "copy.db"}


def test_full_disk(source: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o size=16k tmpfs disk; "$@"; echo $?; ls -A disk'
    namespace = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")

    refused = subprocess.run(
        [*namespace, COMMAND, "backup", "disk/copy.db"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert refused.stdout == "1\n"
    assert refused.stderr == (
        "tasks.db cannot be copied to disk/copy.db: database or disk is full; fix that, or name other files.\n"
    )


def corrupt_index(source: SqliteStore) -> None:
    source.execute("CREATE INDEX title ON task (title)")
    ((page,),) = source.execute("SELECT rootpage FROM sqlite_master WHERE name = 'title'")
    with source.path.open("r+b") as file:
        file.seek(page * 4096 - len("kept") - 2)
        file.write(b"lost")


def truncate(source: SqliteStore) -> None:
    os.truncate(source.path, source.path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(corrupt_index, "row 1 missing from index title"), (truncate, "database disk image is mal")],
)
def test_damage_is_reported_and_not_copied(
    source: SqliteStore, tmp_path: Path, damage: Callable[[SqliteStore], None], reason: str
) -> None:
    damage(source)

    with pytest.raises(
        ConfigurationError, match=rf"tasks\.db is damaged, so no copy was made: {reason}.*; restore an ear"
    ):
        backup(source.url, tmp_path / "copy.db", ["task"])

    assert "copy.db" not in names(tmp_path)


def test_wait_for_a_lock_is_limited(source: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database file is not in WAL mode, like a restored copy that no service has opened yet."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    with closing(sqlite3.connect(source.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = delete").fetchone()
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigurationError, match="database is locked; fix that"):
            backup(source.url, tmp_path / "copy.db", ["task"])

    assert names(tmp_path) == {"tasks.db"}


@pytest.fixture
def files_before(source: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Fill the working directory with files that cannot be backed up, and return the contents of all files."""
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("This file is plain text, and not a database.", "utf-8")
    Path("empty").touch()
    with closing(sqlite3.connect("other.db")) as other:
        other.execute("CREATE TABLE task (somebody_elses TEXT)")
    return contents()


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("database", "file", "sentence"),
    [
        (
            "postgresql://localhost/tasks",
            "copy",
            "DATABASE_URL names a server: back it up with its own tools, such as pg_",
        ),
        ("sqlite:///no.db", "copy", "There is no file no.db: name an existing database in DATABASE_URL."),
        ("sqlite:///no/tasks.db", "copy", "The folder of no/tasks.db does not exist: create it"),
        ("sqlite:///text", "copy", "text is not a SQLite database: name another file in DATABASE_URL."),
        (
            "sqlite:///empty",
            "copy",
            "empty is not a database of this service: name another file in DATABASE_URL.",
        ),
        (
            "sqlite:///other.db",
            "copy",
            "other.db is not a database of this service: name another file in DATABASE_URL.",
        ),
        ("sqlite:///tasks.db", "text", "text exists already and was not changed: remove it, or name another file."),
        ("sqlite:///tasks.db", "tasks.db", "tasks.db exists already and was not changed"),
        ("sqlite:///tasks.db", "no/copy", "The folder of no/copy does not exist: create it, or name a file elsewhere."),
        ("sqlite:///tasks.db", "\ud800", "The locale cannot encode the file name \ud800: set LC_ALL=C.UTF-8."),
        ("sqlite:///tasks.db", "/proc/copy", "/proc/copy cannot be written: No such file or directory; fix that"),
    ],
)
def test_invalid_source_or_target_is_refused(
    files_before: dict[str, bytes], database: str, file: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        backup(database, Path(file), ["task"])

    assert str(error.value).startswith(sentence)
    assert contents() == files_before


@pytest.mark.parametrize("content", [b"", b"mine"])
@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_leftover_file_of_the_target_is_refused(
    source: SqliteStore, tmp_path: Path, suffix: str, content: bytes
) -> None:
    """SQLite would treat a write-ahead log or journal beside the copy as a part of the copy."""
    leftover = tmp_path / f"copy.db{suffix}"
    leftover.write_bytes(content)

    with pytest.raises(ConfigurationError) as error:
        backup(source.url, tmp_path / "copy.db", ["task"])

    assert str(error.value) == f"{leftover} exists already and was not changed: remove it, or name another file."
    assert leftover.read_bytes() == content
    assert names(tmp_path) == {"tasks.db", leftover.name}
