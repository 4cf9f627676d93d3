"""The start of the service: it announces itself once it can serve, and ends if it cannot."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from unittest.mock import Mock

import psutil
import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from handlers.contract import document
from handlers.contract.document import PREFIX
from handlers.server import serve
from models.database.sqlite import SqliteFile
from tests.support import inside
from tests.support.calls import wait_until
from tests.support.edits import replace_in
from tests.support.project import ROOT, RUN_FROM_SOURCE
from tests.support.service import Start, run

SENTENCE = "The disk is full: delete something."
ANNOUNCEMENT = f"{document.raw()['info']['title']} at http://127.0.0.1:"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a service that runs in the test process changes."""
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda _: None)
    monkeypatch.setattr("handlers.server.serve._handle_interrupts", Mock())
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


async def fail(_: object) -> None:
    raise OSError(SENTENCE)


def test_worker_names_a_line_of_the_file_that_became_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("NAME: value\n", "utf-8")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as end:
        serve.application()

    assert end.value.code == STARTUP_FAILURE
    assert capsys.readouterr().err.startswith(f"{tmp_path}/.env, line 1: ")


@pytest.mark.usefixtures("in_process")
def test_application_that_does_not_start_ends_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(SqliteFile, "start", fail)

    failed = inside.run(tmp_path, "serve", "--port", "0")

    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "")
    assert caplog.messages[-1] == "Application startup failed. Exiting."
    assert caplog.text.count("Traceback") == 1
    assert SENTENCE in caplog.text


@pytest.mark.usefixtures("in_process")
def test_error_at_the_end_is_logged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """After the start, the process gets SIGTERM, and the database does not close."""
    start = SqliteFile.start

    async def start_and_stop(database: SqliteFile) -> None:
        await start(database)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(SqliteFile, "start", start_and_stop)
    monkeypatch.setattr(SqliteFile, "shut_down", fail)

    ended = inside.run(tmp_path, "serve", "--port", "0")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert capfd.readouterr().out.startswith(ANNOUNCEMENT)
    assert SENTENCE in caplog.text


@pytest.mark.slow
def test_workers_that_do_not_start_end_the_service(tmp_path: Path) -> None:
    """Every new interpreter runs `sitecustomize`, so only the workers meet the error."""
    (tmp_path / "sitecustomize.py").write_text(
        "from models.database.sqlite import SqliteFile\n"
        "async def fail(_):\n"
        f"    raise OSError({SENTENCE!r})\n"
        "SqliteFile.start = fail\n",
        "utf-8",
    )
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    failed = run(tmp_path, "serve", "--port", "0", "--workers", "2", variables=variables)

    assert (failed.returncode, failed.stdout) == (1, "")
    assert SENTENCE in failed.stderr


def test_reload_waits_for_a_change_that_repairs_the_application(start: Start, checkout: Path) -> None:
    service = start("--reload", folder=checkout, command=RUN_FROM_SOURCE)
    file = checkout / "handlers/application.py"
    working = file.read_text("utf-8")

    replace_in(file, "create_app", "keys = KeyCache(database)", f"raise ConfigurationError({SENTENCE!r})")
    wait_until(lambda: f"\n{SENTENCE}\n" in service.log())
    file.write_text(working, "utf-8")

    assert service.process.stdout.readline().startswith(ANNOUNCEMENT)
    assert service.stop() == 0
    assert "Traceback" not in service.log()


def test_service_on_every_address_also_serves_ipv4(start: Start) -> None:
    for flags in ((), ("--workers", "2")):
        service = start("--host", "::", "--insecure-open", *flags)
        port = int(service.url.rpartition(":")[2])
        for host in ("::1", "127.0.0.1"):
            with socket.create_connection((host, port), timeout=30):
                pass
        assert service.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_port_that_is_taken_for_ipv4_is_reported(tmp_path: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        failed = run(tmp_path, "serve", "--host", "::", "--insecure-open", "--port", port, "--workers", workers)

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"Port {port} is taken: ")


def test_system_without_ipv6_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(97, "Address family not supported by protocol")
    monkeypatch.setattr("socket.socket", Mock(side_effect=error))

    failed = inside.run(tmp_path, "serve", "--host", "::1")

    assert failed.returncode == 1
    assert failed.stderr.startswith("Cannot listen on ::1 port 8000: Address family not supported by protocol; ")
    assert failed.stderr.count("\n") == 1


def test_sigterm_before_the_start_ends_the_service(tmp_path: Path) -> None:
    server = serve.AnnouncedServer(uvicorn.Config("a:b", log_config=None), "")

    with pytest.raises(SystemExit) as end:
        server.exit_before_start()

    assert not end.value.code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
@pytest.mark.parametrize("flags", [("--workers", "2"), ("--reload",)])
def test_processes_end_after_their_parent_was_killed(
    start: Start, flags: tuple[str, ...], number: signal.Signals
) -> None:
    """They do so too when the terminal is closed (SIGHUP), and another service can use the port at once."""
    service = start(*flags)
    port = int(service.url.rpartition(":")[2])
    children = psutil.Process(service.process.pid).children()
    assert service.client.post("/api/tasks", json={"title": "a"}).status_code == 201

    service.process.send_signal(number)
    service.process.wait(timeout=10)
    psutil.wait_procs(children, timeout=30)

    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert "Traceback" not in service.log()
    following = start(*flags, port=port)
    assert [task["title"] for task in following.client.get("/api/tasks").json()] == ["a"]


@pytest.mark.usefixtures("in_process")
def test_process_that_does_not_end_after_its_parent_is_forced_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, calls = Event(), Mock()
    calls._exit.side_effect = lambda _: ended.set()
    monkeypatch.setattr(serve, "parent_process", Mock())
    monkeypatch.setattr(serve, "create_app", Mock())
    monkeypatch.setattr(serve, "sleep", calls.sleep)
    for name in ("kill", "_exit"):
        monkeypatch.setattr(os, name, getattr(calls, name))
    monkeypatch.setenv(f"{PREFIX}SHUTDOWN_TIMEOUT", "7")
    monkeypatch.chdir(tmp_path)

    serve.application()

    assert ended.wait(30)
    assert [call[0] for call in calls.method_calls] == ["kill", "sleep", "_exit"]
    calls.kill.assert_called_with(os.getpid(), signal.SIGTERM)
    calls.sleep.assert_called_with(7 + serve.SHUTDOWN_MARGIN)
