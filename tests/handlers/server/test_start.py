"""The start of the service: it announces itself once it can serve, and ends if it cannot."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from handlers.application import create_app
from handlers.contract import document
from models.database.errors import ConfigurationError
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
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


async def fail(_: object) -> None:
    raise OSError(SENTENCE)


@pytest.mark.usefixtures("in_process")
def test_application_that_cannot_be_created_ends_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Any = None) -> Any:
        """Fail when uvicorn creates the application, but not when `serve` checks whether it can be created."""
        if settings:
            return create_app(settings)
        raise ConfigurationError(SENTENCE)

    monkeypatch.setattr("handlers.server.serve.create_app", fail)

    failed = inside.run(tmp_path, "serve", "--port", "0")

    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", f"{SENTENCE}\n")


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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
    assert ended.stdout.startswith(ANNOUNCEMENT)
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
