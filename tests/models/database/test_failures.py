"""Real failures of the database: the service's responses, its log, and its recovery."""

import fcntl
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path

import httpx
import pytest

from tests.support import wire
from tests.support.calls import CALLS, assert_unavailable, call, wait_until
from tests.support.project import COMMAND
from tests.support.service import Service, Start, run


def assert_failed(response: httpx.Response, detail: str) -> None:
    """Assert that the response is a 500 that does not reveal the cause of the failure."""
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": detail,
    }


def test_cause_is_in_the_log_with_the_id_of_the_request(start: Start, tmp_path: Path) -> None:
    service = start()
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        database.execute("DROP TABLE task")

    for method, path, detail in CALLS:
        response = call(service.client, method, path)
        assert_failed(response, detail)
        assert f"ERROR:    {response.headers['x-request-id']} {method} {path} failed\n" in service.log()
    assert service.log().count("sqlite3.OperationalError: no such table: task\n") == len(CALLS)


def test_well_formed_request_id_of_the_client_is_echoed(start: Start, tmp_path: Path) -> None:
    service = start()
    service.client.get("/docs")
    (tmp_path / "tasks.db").unlink()

    def request_id(given: str) -> str:
        response = service.client.delete("/api/tasks/1", headers=[(b"X-Request-ID", given.encode())])
        echoed: str = response.headers["x-request-id"]
        assert f" {echoed} DELETE /api/tasks/1: " in service.log()
        return echoed

    for well_formed in ("a", "Ab1._-" * 21 + "ab"):
        assert request_id(well_formed) == well_formed
    generated = [request_id(other) for other in ("a" * 129, "a b", "", "é", "a/b", "a,b")]
    assert all(re.fullmatch("[0-9a-f]{16}-[0-9a-f]+", id) for id in generated)
    assert len(set(generated)) == len(generated)


def test_write_lock_of_another_process(start: Start, tmp_path: Path) -> None:
    """Writes wait for the lock, but reads do not."""
    service = start()
    service.client.post("/api/tasks", json={"title": "a"})
    with (
        closing(sqlite3.connect(tmp_path / "tasks.db", isolation_level=None)) as database,
        wire.connect(service.url) as idle,
        ThreadPoolExecutor(8) as pool,
    ):
        database.execute("BEGIN IMMEDIATE")
        assert wire.call(idle, "GET", "/api/tasks/1").status == 200
        # Send the writes at the same time: if they waited one after another, they would exceed the client's timeout.
        writes = [pool.submit(call, service.client, "PUT", "/api/tasks/1") for _ in range(8)]
        assert service.client.get("/api/tasks/1").json()["title"] == "a"
        for write in writes:
            assert_unavailable(write.result())
        waiting = pool.submit(call, service.client, "PUT", "/api/tasks/1")
        time.sleep(0.5)
        database.execute("ROLLBACK")
        assert waiting.result().status_code == 200
        # The idle connection is still open, because the keep-alive timeout is longer than the wait for a lock.
        assert wire.call(idle, "GET", "/api/tasks/1").status == 200

    assert "database is locked\n" in service.log()
    assert "Traceback" not in service.log()


@contextmanager
def all_locks(path: Path) -> Iterator[None]:
    """Hold every lock of a database in WAL mode, as a recovering process does (sqlite.org/walformat.html)."""
    with Path(f"{path}-shm").open("r+b") as index:
        fcntl.lockf(index, fcntl.LOCK_EX, 8, 120)
        yield


def test_read_lock_of_another_process(start: Start, tmp_path: Path) -> None:
    service = start()
    service.client.post("/api/tasks", json={"title": "a"})
    with all_locks(tmp_path / "tasks.db"):
        assert_unavailable(service.client.get("/api/tasks/1"))

    assert service.client.get("/api/tasks/1").json()["title"] == "a"
    assert service.log().endswith(" GET /api/tasks/1: locking protocol\n")


def test_file_removed_while_serving(start: Start, tmp_path: Path) -> None:
    service = start()
    service.client.post("/api/tasks", json={"title": "kept"})
    path = tmp_path / "tasks.db"
    for count, first in enumerate(CALLS):
        path.with_name("link").hardlink_to(path)
        before = len(service.log())

        path.unlink()

        for method, url, _ in (first, *CALLS):
            assert_unavailable(call(service.client, method, url))
        assert "tasks.db was removed; put it back\n" in service.log()[before:]
        assert "Traceback" not in service.log()
        path.with_name("link").rename(path)
        assert [task["title"] for task in service.client.get("/api/tasks").json()] == ["kept", *"a" * count]
        assert call(service.client, "POST", "/api/tasks").json()["id"] == 2 + count


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


@pytest.mark.parametrize("displace", [Path.unlink, replace], ids=["removed", "replaced"])
def test_file_displaced_during_a_write(start: Start, tmp_path: Path, displace: Callable[[Path], None]) -> None:
    service = start()
    service.client.post("/api/tasks", json={"title": "a"})
    path = tmp_path / "tasks.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database, ThreadPoolExecutor() as pool:
        database.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(call, service.client, "PUT", "/api/tasks/1")
        time.sleep(0.5)
        displace(path)
        database.execute("ROLLBACK")
        assert_unavailable(waiting.result())


def stored_titles(path: Path) -> list[str]:
    """Return the titles in a file that no process uses."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [title for (title,) in database.execute("SELECT title FROM task ORDER BY id")]


def back_up_and_go_on(start: Start, path: Path, *flags: str) -> tuple[Service, bytes]:
    """Return a service that has the tasks "kept" and "later", and a copy of its file that has only the first."""
    service = start(*flags)
    service.client.post("/api/tasks", json={"title": "kept"})
    assert run(path.parent, "backup", "copy.db").returncode == 0
    service.client.post("/api/tasks", json={"title": "later"})
    path.with_name("old.db").hardlink_to(path)
    return service, path.with_name("copy.db").read_bytes()


def restore(path: Path, how: Callable[[Path, Path], object]) -> None:
    how(path.with_name("copy.db"), path)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", [Path.rename, shutil.copyfile], ids=["replaced", "overwritten"])
def test_backup_restored_while_serving(
    start: Start, tmp_path: Path, how: Callable[[Path, Path], object], workers: str
) -> None:
    """The service notices it without a request, never touches the restored file, and logs the documented procedure."""
    path = tmp_path / "tasks.db"
    service, copy = back_up_and_go_on(start, path, "--workers", workers)

    restore(path, how)

    advice = (
        f"ERROR:    {path} was replaced while the service was running: stop the service, remove {path}-wal and"
        f" {path}-shm, and start it again\n"
    )
    wait_until(lambda: service.log().count(advice) >= int(workers))
    for method, url, _ in CALLS:
        assert_unavailable(call(service.client, method, url))
    assert service.client.get("/health/ready").status_code == 503
    assert service.stop() == 0
    assert path.read_bytes() == copy
    if how is Path.rename:
        assert stored_titles(tmp_path / "old.db") == ["kept", "later"]
    for name in ("tasks.db-wal", "tasks.db-shm"):
        (tmp_path / name).unlink()
    restored = start()
    assert [task["title"] for task in restored.client.get("/api/tasks").json()] == ["kept"]
    assert "Traceback" not in service.log()
    restored.stop()
    assert stored_titles(path) == ["kept"]


def test_replaced_file_that_is_put_back_is_not_used_again(start: Start, tmp_path: Path) -> None:
    """Another process may have used the WAL meanwhile."""
    path = tmp_path / "tasks.db"
    service, _ = back_up_and_go_on(start, path)
    restore(path, Path.rename)
    wait_until(lambda: "was replaced" in service.log())

    (tmp_path / "old.db").rename(path)

    assert_unavailable(call(service.client, "POST", "/api/tasks"))
    service.stop()
    assert stored_titles(path) == ["kept", "later"]


@pytest.mark.parametrize("how", [Path.rename, shutil.copyfile], ids=["replaced", "overwritten"])
def test_backup_restored_right_before_shutdown(
    start: Start, tmp_path: Path, how: Callable[[Path, Path], object]
) -> None:
    path = tmp_path / "tasks.db"
    service, copy = back_up_and_go_on(start, path)

    restore(path, how)
    service.stop()

    assert path.read_bytes() == copy
    if how is Path.rename:
        assert stored_titles(tmp_path / "old.db") == ["kept", "later"]
        assert [task["title"] for task in start().client.get("/api/tasks").json()] == ["kept"]


def test_file_removed_before_shutdown_is_complete(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    service, _ = back_up_and_go_on(start, path)

    path.unlink()
    service.stop()

    assert (tmp_path / "tasks.db-wal").read_bytes() == b""
    assert stored_titles(tmp_path / "old.db") == ["kept", "later"]


@pytest.mark.parametrize(
    ("removed", "workers"), [(["-wal"], "1"), (["-shm"], "1"), (["-wal", "-shm"], "2")], ids=["wal", "shm", "both"]
)
def test_wal_removed_while_serving(start: Start, tmp_path: Path, removed: list[str], workers: str) -> None:
    """Another process would create a new WAL, so the service first moves all commits into the file."""
    path = tmp_path / "tasks.db"
    service = start("--workers", workers)
    service.client.post("/api/tasks", json={"title": "kept"})

    for suffix in removed:
        Path(f"{path}{suffix}").unlink()

    advice = (
        f"ERROR:    {path}-wal or {path}-shm was removed while the service was running: stop the service, and start it"
        " again\n"
    )
    wait_until(lambda: service.log().count(advice) == int(workers))
    assert_unavailable(call(service.client, "POST", "/api/tasks"))
    service.process.kill()
    service.process.wait(timeout=30)
    assert [task["title"] for task in start().client.get("/api/tasks").json()] == ["kept"]
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("how", [Path.rename, shutil.copyfile, None], ids=["replaced", "overwritten", "removed"])
@pytest.mark.parametrize("put_back", [False, True])
def test_leftover_wal_of_another_file_is_refused(
    start: Start, tmp_path: Path, how: Callable[[Path, Path], object] | None, put_back: bool
) -> None:
    path = tmp_path / "tasks.db"
    service, _ = back_up_and_go_on(start, path)
    service.process.kill()
    service.process.wait(timeout=30)
    shutil.copy(path, tmp_path / "saved.db")
    if how:
        restore(path, how)
    else:
        path.unlink()
    names = ("tasks.db", "tasks.db-wal", "tasks.db-shm")
    before = [(tmp_path / name).read_bytes() for name in names if (tmp_path / name).exists()]

    for command in (["serve"], ["migrate"], ["key", "new", "app"], ["key", "list"], ["backup", "other.db"]):
        refused = run(tmp_path, *command)
        assert (refused.returncode, refused.stdout) == (1, "")
        sentence = (
            "belongs to another file and would damage tasks.db: " if how else "has its last writes: put the file "
        )
        assert sentence in refused.stderr
        assert refused.stderr.endswith("or remove tasks.db-wal and tasks.db-shm.\n")
        assert refused.stderr.count("\n") == 1
        assert [(tmp_path / name).read_bytes() for name in names if (tmp_path / name).exists()] == before

    if put_back:
        (tmp_path / "saved.db").rename(path)
        expected = ["kept", "later"]
    else:
        for name in names[1:]:
            (tmp_path / name).unlink()
        expected = ["kept"] if how else []
    assert [task["title"] for task in start().client.get("/api/tasks").json()] == expected


def test_corrupt_file(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    service = start()
    service.client.post("/api/tasks", json={"title": "a"})
    service.stop()
    service = start()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))

    for method, url, detail in CALLS:
        assert_failed(call(service.client, method, url), detail)
    assert "database disk image is malformed" in service.log()


@pytest.fixture
def small_disk(start: Start, tmp_path: Path) -> Service:
    """Return a service whose database is on a disk of 400 KiB, which is mounted in a separate mount namespace."""
    (tmp_path / "disk").mkdir()
    mount = 'mount -t tmpfs -o size=400k tmpfs disk && exec "$0" "$@"'
    return start(
        "--database-url",
        "sqlite:///disk/tasks.db",
        command=("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, COMMAND),
    )


LARGE = {"title": "a" * 255, "description": "b" * 4000}


def create_until_it_fails(client: httpx.Client) -> list[int]:
    """Create tasks on four connections until a request fails on each; return the ids of the created tasks."""

    def create(_: int) -> list[int]:
        ids: list[int] = []
        while (response := client.post("/api/tasks", json=LARGE)).is_success and len(ids) < 1000:
            ids.append(response.json()["id"])
        assert_failed(response, "Failed to create task")
        return ids

    with ThreadPoolExecutor(4) as pool:
        return sorted(chain(*pool.map(create, range(4))))


def assert_ids(client: httpx.Client, ids: list[int]) -> None:
    assert [task["id"] for task in client.get("/api/tasks?limit=1000").json()] == ids


INTEGRITY_CHECK = (
    "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchall())"
)


def test_full_disk(small_disk: Service, tmp_path: Path) -> None:
    client = small_disk.client
    ids = create_until_it_fails(client)

    assert len(ids) > 10
    changed = [client.put("/api/tasks/1", json={**LARGE, "completed": count % 2 == 0}) for count in range(20)]
    assert_failed(changed[-1], "Failed to update task")
    assert "database or disk is full" in small_disk.log()
    assert "rollback" not in small_disk.log()
    assert_ids(client, ids)

    in_namespace = ("nsenter", "--user", "--mount", f"--target={small_disk.process.pid}")
    subprocess.run([*in_namespace, "mount", "-o", "remount,size=4m", tmp_path / "disk"], check=True)
    more = client.post("/api/tasks", json=LARGE)
    assert more.status_code == 201
    assert_ids(client, [*ids, more.json()["id"]])
    result = subprocess.check_output(
        [*in_namespace, sys.executable, "-c", INTEGRITY_CHECK, tmp_path / "disk/tasks.db"], encoding="utf-8"
    )
    assert result == "[('ok',)]\n"


def test_disk_io_error(start: Start, tmp_path: Path) -> None:
    service = start()
    size = (tmp_path / "tasks.db").stat().st_size
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size + 200_000, resource.RLIM_INFINITY))
    ids = create_until_it_fails(service.client)

    assert "disk I/O error" in service.log()
    assert_ids(service.client, ids)

    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    more = service.client.post("/api/tasks", json=LARGE)
    assert_ids(service.client, [*ids, more.json()["id"]])
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
