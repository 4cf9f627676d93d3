"""The command line: its output, exit codes, and error messages for invalid settings."""

import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import httpx
import psutil
import pytest
import yaml

from handlers.contract import document
from handlers.contract.document import COMMAND, PREFIX
from models.database.migrate import DIRECTORY
from tests.support import inside
from tests.support.calls import wait_until
from tests.support.project import COMMAND as COMMAND_PATH
from tests.support.project import ROOT, RUN_FROM_SOURCE
from tests.support.service import Start, environment, run, run_installed
from tests.support.wire import call, connect

TITLE = document.raw()["info"]["title"]
MIGRATIONS = sorted(path.stem for path in DIRECTORY.glob("[0-9]*.py"))


@pytest.mark.slow
def test_version_and_help(tmp_path: Path) -> None:
    for runner in (run, run_installed):
        assert runner(tmp_path, "--version").stdout == f"{COMMAND} {version(COMMAND)}\n"
    for arguments in ([], ["--help"]):
        result = run(tmp_path, *arguments)
        assert result.returncode == 0
        assert "serve" in result.stdout
        assert "migrate" in result.stdout
    assert list(tmp_path.iterdir()) == []


def imported_modules(folder: Path, *arguments: str) -> set[str]:
    """Return the modules that a command imports, which ends with status 0."""
    command = [sys.executable, "-X", "importtime", *RUN_FROM_SOURCE[1:], *arguments]
    variables = environment({"PYTHONPATH": str(ROOT)})
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, encoding="utf-8", check=True)
    return {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--version",), (), ("--help",), ("key",), ("key", "--help")])
def test_version_and_help_import_no_library_of_the_service(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    libraries = {"asyncio", "connexion", "peewee", "pydantic", "pydantic_core", "pydantic_settings", "uvicorn"}

    assert not libraries & imported_modules(tmp_path, *arguments)


@pytest.mark.slow
def test_commands_for_the_database_do_not_import_the_server(tmp_path: Path) -> None:
    for arguments in (("migrate",), ("key", "new", "app"), ("backup", "copy.db")):
        assert not {"connexion", "uvicorn"} & imported_modules(tmp_path, *arguments)


def test_serve_announces_itself_and_ends_on_sigterm(start: Start, tmp_path: Path) -> None:
    service = start()
    url = service.url
    assert service.announcement == f"{TITLE} at {url}, documentation at {url}/docs\n"
    assert url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{url}/docs").status_code == 200

    assert service.stop() == 0
    assert service.log() == ""
    assert [path.name for path in tmp_path.iterdir() if path.name != "log"] == ["tasks.db"]


@pytest.mark.parametrize("arguments", [("key", "new", "app"), ("key", "revoke", "app")])
def test_database_that_refuses_a_write_is_reported(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """An unknown format version makes a file read-only for SQLite (sqlite.org/fileformat2.html)."""
    assert inside.run(tmp_path, "migrate").returncode == 0
    with (tmp_path / "tasks.db").open("r+b") as file:
        file.seek(18)
        file.write(b"\3")

    failed = inside.run(tmp_path, *arguments)

    sentence = "The database cannot be used: attempt to write a readonly database; fix that, or change DATABASE_URL.\n"
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", sentence)


@pytest.mark.parametrize("flags", [(), ("--workers", "2"), ("--reload",)])
def test_serve_ends_on_ctrl_c(start: Start, flags: tuple[str, ...]) -> None:
    service = start(*flags)
    service.client.get("/api/tasks")
    service.process.send_signal(2)
    service.process.wait(timeout=30)

    assert service.process.returncode == 0
    assert service.log() == ""


def test_serve_completes_started_requests_on_sigterm(start: Start) -> None:
    service = start()
    with socket.create_connection(("127.0.0.1", httpx.URL(service.url).port or 80), timeout=30) as connection:
        connection.sendall(
            b"POST /api/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
        )
        assert service.client.get("/api/tasks").json() == []
        service.process.terminate()
        connection.sendall(b'{"title": "a"}')
        response = connection.recv(65536)

    assert response.startswith(b"HTTP/1.1 201 Created\r\n")
    assert service.process.wait(timeout=30) == 0
    assert service.log() == ""


def test_serve_on_ipv6(start: Start) -> None:
    service = start("--host", "::1")

    assert service.url.startswith("http://[::1]:")
    assert service.client.get("/api/tasks").json() == []


def test_serve_on_ipv6_with_several_workers(start: Start) -> None:
    """Every connection is served, and the kernel distributes the connections over both workers."""
    service = start("--host", "::1", "--workers", "2")
    url = service.url
    assert url.startswith("http://[::1]:")
    assert service.announcement == f"{TITLE} at {url}, documentation at {url}/docs\n"

    with ExitStack() as stack:
        for _ in range(64):
            connection = stack.enter_context(connect(url))
            assert call(connection, "GET", "/api/tasks").status == 200
        counts = [
            sum(socket_.status == psutil.CONN_ESTABLISHED for socket_ in child.net_connections("tcp6"))
            for child in psutil.Process(service.process.pid).children()
        ]

    assert sorted(count > 0 for count in counts)[-2:] == [True, True]
    assert sum(counts) == 64
    assert service.stop() == 0
    assert service.log() == ""


@pytest.mark.slow
def test_migrate_reports_applied_migrations(tmp_path: Path) -> None:
    assert run(tmp_path, "migrate").stdout == f"Applied: {', '.join(MIGRATIONS)}\n"
    assert run(tmp_path, "migrate").stdout == "Applied: nothing, the schema is up to date\n"


@pytest.mark.slow
def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=sqlite:///file.db\nSOMETHING_ELSE=1\n", "utf-8")
    variables = {"DATABASE_URL": "sqlite:///environment.db"}

    run(tmp_path, "migrate")
    run(tmp_path, "migrate", variables=variables)
    run(tmp_path, "migrate", "--database-url", "sqlite:///flag.db", variables=variables)

    assert {path.name for path in tmp_path.glob("*.db")} == {"file.db", "environment.db", "flag.db"}


def test_environment_configures_serve(start: Start) -> None:
    service = start(variables={f"{PREFIX}HOST": "127.0.0.2", f"{PREFIX}WORKERS": "1"})

    assert service.url.startswith("http://127.0.0.2:")


def test_absolute_sqlite_path_has_four_slashes(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "here it is.db"
    service = start("--database-url", f"sqlite:///{path}")

    assert service.client.post("/api/tasks", json={"title": "a"}).status_code == 201
    assert path.exists()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.slow
def test_taken_port_is_reported(tmp_path: Path, taken_port: int) -> None:
    failed = run(tmp_path, "serve", "--port", str(taken_port))

    assert failed.returncode == 1
    assert failed.stderr == (f"Port {taken_port} is taken: stop what listens there, or choose another with --port.\n")


@pytest.mark.slow
def test_port_that_metrics_have_taken_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    failed = run(tmp_path, "serve", "--port", str(port), "--metrics", f"127.0.0.1:{port}")

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == f"Port {port} is taken by --metrics: choose another with --port.\n"


def test_forbidden_port_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(socket.socket, "bind", Mock(side_effect=error))

    failed = inside.run(tmp_path, "serve", "--port", "80")

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == (
        "Cannot listen on 127.0.0.1 port 80: Permission denied; choose a port above 1023 with --port.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            (["serve", f"--public-url={url}"], f"--public-url or {PREFIX}PUBLIC_URL: write it as https://")
            for url in (
                "tasks.example.com",
                "ftp://example.com",
                "https://",
                "https://example.com/?a=1",
                "https://example.com/#a",
            )
        ),
        *(
            (["serve", f"--rate-limit={limit}"], f"--rate-limit or {PREFIX}RATE_LIMIT: write it as 100/second;")
            for limit in ("many/second", "0/second", "9/hour;9/2 days")
        ),
        *(
            (["serve", f"--rate-limit-storage={url}"], f"--rate-limit-storage or {PREFIX}RATE_LIMIT_STORAGE: ")
            for url in ("memory://h:1/0", "redis://:secret@h", "redis://h:99999", "redis://h:1/one", "redis://h:1?a=b")
        ),
        (
            ["serve", "--rate-limit", "100/second", "--workers", "2"],
            "Several workers need a common count for --rate-limit: name a Redis server with --rate-limit-storage.",
        ),
        (
            ["serve", "--host", "192.0.2.1"],
            "Cannot listen on 192.0.2.1 port 8000: Cannot assign requested address; choose an address of this machine,",
        ),
        (["serve", "--host", "no.such.host.invalid"], "Cannot listen on no.such.host.invalid port 8000: "),
        (
            ["migrate", "--database-url", "tasks.db"],
            "DATABASE_URL must name a SQLite file, such as sqlite:///data.db, or a s",
        ),
        (["migrate", "--database-url", "mysql://u:secret@h/d"], "DATABASE_URL must name a SQLite file"),
        (["migrate", "--database-url", "sqlite://"], "DATABASE_URL must name a SQLite file"),
        (["migrate", "--database-url", "sqlite:///"], "DATABASE_URL must name a SQLite file"),
        (["migrate", "--database-url", "sqlite:///:memory:"], "DATABASE_URL must name a SQLite file"),
        (["migrate", "--database-url", "sqlite:///a.db?mode=ro"], "DATABASE_URL must name a SQLite file"),
        (["serve", "--database-url", "sqlite:///no/tasks.db"], "The folder of no/tasks.db does not exist: create it"),
        (["serve", "--database-url", "sqlite:///folder"], "folder is a folder: name a file in DATABASE_URL."),
        (["serve", "--database-url", "sqlite:///log/a.db"], "The folder of log/a.db does not exist: create it"),
        (
            ["serve", "--database-url", "sqlite:///log"],
            "log is not a SQLite database: name another file in DATABASE_URL.",
        ),
        (
            ["serve", "--database-url", "sqlite:////proc/tasks.db"],
            "The database cannot be used: unable to open database file; ",
        ),
        (["serve", "--database-url", "sqlite:///read-only.db"], "read-only.db is read-only: make it writable"),
        *(
            (
                [*command, "--database-url", "sqlite:///other.db"],
                "other.db is not a database of this service: name another file in DATABASE_URL.",
            )
            for command in (["serve"], ["migrate"], ["key", "new", "a"], ["key", "list"], ["key", "revoke", "a"])
        ),
    ],
)
def test_invalid_setting_is_reported_in_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "log").write_text("This is a log file, not an SQLite database.", "utf-8")
    (tmp_path / "read-only.db").touch(mode=0o444)
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE TABLE task (unrelated TEXT)")

    failed = inside.run(tmp_path, *arguments)

    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.startswith(message)
    assert failed.stderr.count("\n") == 1
    assert "secret" not in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--port", "0"],
        ["migrate"],
        ["key", "new", "app"],
        ["key", "list"],
        ["key", "revoke", "app"],
        ["backup", "copy.db"],
        ["copy", "--from", "sqlite:///tasks.db", "--to", "postgresql://localhost/tasks"],
    ],
)
def test_every_command_ends_on_ctrl_c_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Ctrl-C interrupts each command while it opens the database file, which is its first step."""
    (tmp_path / "tasks.db").touch()
    monkeypatch.setattr(sqlite3, "connect", Mock(side_effect=KeyboardInterrupt))

    try:
        result = inside.run(tmp_path, *arguments)
    except KeyboardInterrupt:
        # If the KeyboardInterrupt propagated, it would end the whole test run.
        pytest.fail("Ctrl-C shows a traceback.")

    assert (result.returncode, result.stdout) == (130, "")


def count_importers(pid: int, library: str) -> int:
    """Return how many of a process and its descendants have imported a library."""
    process = psutil.Process(pid)
    maps = [Path(f"/proc/{each.pid}/maps") for each in (process, *process.children(recursive=True))]
    return sum(library in path.read_text("utf-8") for path in maps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "library", "importers"),
    [
        # Before it imports this one, Python itself shows a traceback.
        ("check", "yaml", 1),
        ("check", "jsonschema_rs", 1),
        ("check", "pydantic_core", 1),
        ("check", "httptools", 1),
        ("serve --port 0 --workers 2", "httptools", 1),
        ("serve --port 0 --workers 2", "pydantic_core", 3),
        ("serve --port 0 --workers 2", "httptools", 3),
    ],
)
def test_ctrl_c_during_the_start_shows_no_traceback(
    tmp_path: Path, arguments: str, library: str, importers: int
) -> None:
    """A terminal sends it to all processes of the group; nothing of the group remains."""
    process = subprocess.Popen(
        [COMMAND_PATH, *arguments.split()],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    wait_until(lambda: count_importers(process.pid, library) == importers)
    os.killpg(process.pid, signal.SIGINT)
    # This waits for all processes that have the pipes.
    _, errors = process.communicate(timeout=60)

    assert errors == ""
    assert process.returncode in (0, 130, -signal.SIGINT)


@pytest.mark.slow
def test_invalid_variable_is_reported_in_one_sentence(tmp_path: Path) -> None:
    failed = run(tmp_path, "serve", variables={f"{PREFIX}PORT": "http"})

    assert failed.returncode == 1
    assert failed.stderr.startswith(f"--port or {PREFIX}PORT: write an integer from 0 to 65535, not http")


@pytest.mark.parametrize(
    ("proxies", "scheme"),
    [("127.0.0.1", "https"), ("10.0.0.0/8, ::1,127.0.0.0/8", "https"), ("10.0.0.0/8", "http"), ("", "http")],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_link_has_the_scheme_from_a_trusted_proxy(start: Start, host: str, proxies: str, scheme: str) -> None:
    """A socket for IPv6 and IPv4 reports IPv4 addresses in the form ::ffff:127.0.0.1."""
    client = start("--host", host, "--insecure-open", "--trusted-proxies", proxies).client
    for title in "ab":
        client.post("/api/tasks", json={"title": title})
    headers = {"Host": "tasks.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}

    page = client.get("/api/tasks?limit=1", headers=headers)

    assert page.links["next"]["url"] == f"{scheme}://tasks.example.com/api/tasks?limit=1&after=1"


def test_reload_applies_a_changed_contract(start: Start, checkout: Path) -> None:
    service = start("--reload", folder=checkout, command=RUN_FROM_SOURCE)
    assert service.client.get("/api/tasks/1").json()["detail"] == "Task not found"

    contract = checkout / "openapi.yaml"
    contract.write_text(contract.read_text("utf-8").replace("Task not found", "No such task"), "utf-8")

    deadline = time.monotonic() + 60
    detail = ""
    while detail != "No such task":
        assert time.monotonic() < deadline, service.log()
        # A request may fail, because the old process closes its connections when it ends.
        with suppress(httpx.TransportError):
            time.sleep(0.05)
            detail = service.client.get("/api/tasks/1").json()["detail"]


# A locale with the encoding ASCII, which Python would otherwise replace by UTF-8. Every machine has it.
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
# Also find files that are opened in the encoding of the locale, by libraries too.
STRICT = ASCII_LOCALE | {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONWARNINGS": "error::EncodingWarning"}
FOREIGN = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{CHECK MARK}"


@pytest.fixture
def foreign_checkout(checkout: Path) -> Path:
    """Return a checkout whose contract and `.env` contain letters that the locale does not have."""
    contract = checkout / "openapi.yaml"
    text = contract.read_text("utf-8").replace(f"  title: {TITLE}\n", f"  title: {TITLE} {FOREIGN}\n", 1)
    contract.write_text(f"x-name: {document.NAME}\n{text}", "utf-8")
    (checkout / ".env").write_text(f"# {FOREIGN}\nOTHER={FOREIGN}\n", "utf-8")
    return checkout


@pytest.mark.slow
def test_commands_work_in_any_locale(foreign_checkout: Path) -> None:
    def result(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        variables = environment(STRICT)
        command = [*RUN_FROM_SOURCE, *arguments]
        return subprocess.run(command, cwd=foreign_checkout, env=variables, capture_output=True, check=False)

    def output(*arguments: str) -> bytes:
        completed = result(*arguments)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    assert rf"{TITLE} caf\xe9 \u2713".encode() in output("--help")
    assert output("--version").isascii()
    assert b"no faults" in output("check")
    published = yaml.safe_load(output("contract").decode())
    assert published["info"]["title"] == f"{TITLE} {FOREIGN}"
    output("migrate")
    output("key", "new", "app")
    assert output("key", "list").startswith(b"app ")
    assert output("backup", f"{FOREIGN}.db").startswith(b"Copied 1 rows to ")
    assert (foreign_checkout / f"{FOREIGN}.db").exists()
    unknown = result("serve", "--public-url", FOREIGN)
    assert (unknown.returncode, unknown.stderr.count(b"\n")) == (1, 1)
    (foreign_checkout / ".env").write_text(f"DATABASE_URL=sqlite:///{FOREIGN}.db\n", "utf-8")
    unusable = result("migrate")
    assert (unusable.returncode, unusable.stderr.count(b"\n")) == (1, 1)
    assert unusable.stderr.endswith(b"set LC_ALL=C.UTF-8.\n")


@pytest.mark.parametrize(
    ("flags", "variables"),
    # In workers, uvicorn opens the standard input in the encoding of the locale.
    [(("--access-log",), STRICT), (("--workers", "2"), ASCII_LOCALE)],
)
def test_service_works_in_any_locale(
    start: Start, foreign_checkout: Path, flags: tuple[str, ...], variables: dict[str, str]
) -> None:
    service = start(*flags, folder=foreign_checkout, command=RUN_FROM_SOURCE, variables=variables)

    assert service.announcement.startswith(rf"{TITLE} caf\xe9 \u2713 at ")
    assert service.client.post("/api/tasks", json={"title": FOREIGN}).json()["title"] == FOREIGN
    assert FOREIGN in service.client.get("/docs").text
    assert FOREIGN in service.client.get("/openapi.yaml").text
    assert service.stop() == 0
    assert service.log() == ""
