"""The start of the service: it announces itself once it can serve, and ends if it cannot."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from models.database.errors import ConfigurationError
from models.database.sqlite import SqliteFile
from tests.support import inside
from tests.support.calls import wait_until
from tests.support.edits import add_statement
from tests.support.project import ROOT, RUN_FROM_SOURCE, TIMEOUT
from tests.support.service import environment, run

SENTENCE = "The disk is full: delete something."


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a service that runs in the test process changes."""
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda _: None)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("target", ["models.database.sqlite.SqliteFile.start", "handlers.application.create_app"])
def test_failed_start_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    """The application fails in its lifespan, or while uvicorn creates it."""

    def fail(*_: object) -> None:
        raise ConfigurationError(SENTENCE)

    monkeypatch.setattr(target, fail)

    failed = inside.run(tmp_path, "serve", "--port", "0")

    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", f"{SENTENCE}\n")
    assert caplog.records == []


@pytest.mark.usefixtures("in_process")
def test_bug_at_the_start_is_logged_with_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise KeyError("array")

    monkeypatch.setattr(SqliteFile, "start", fail)

    failed = inside.run(tmp_path, "serve", "--port", "0")

    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "")
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "The application does not start")
    assert record.exc_text
    assert "KeyError: 'array'" in record.exc_text


@pytest.mark.usefixtures("in_process")
def test_bug_at_the_end_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the start, the process gets SIGTERM, and the database does not close."""

    start = SqliteFile.start

    async def start_and_stop(database: SqliteFile) -> None:
        await start(database)
        signal.raise_signal(signal.SIGTERM)

    async def fail(_: object) -> None:
        raise KeyError("array")

    monkeypatch.setattr(SqliteFile, "start", start_and_stop)
    monkeypatch.setattr(SqliteFile, "shut_down", fail)

    ended = inside.run(tmp_path, "serve", "--port", "0")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("Tasks API at http://127.0.0.1:")
    assert "KeyError: 'array'" in caplog.text


@pytest.mark.slow
def test_workers_that_do_not_start_end_the_service(tmp_path: Path) -> None:
    """Every new interpreter runs `sitecustomize`, so only the workers meet the error."""
    (tmp_path / "sitecustomize.py").write_text(
        "from models.database.errors import ConfigurationError\n"
        "from models.database.sqlite import SqliteFile\n"
        "def fail(_):\n"
        f"    raise ConfigurationError({SENTENCE!r})\n"
        "SqliteFile.start = fail\n"
    )
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    failed = run(tmp_path, "serve", "--port", "0", "--workers", "2", variables=variables)

    assert (failed.returncode, failed.stdout) == (1, "")
    assert SENTENCE in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_reload_waits_for_a_change_that_repairs_the_application(checkout: Path) -> None:
    file, log = checkout / "handlers/application.py", checkout / "log"
    working = file.read_text()
    add_statement(file, "lifespan", f"raise ConfigurationError({SENTENCE!r})")
    command = [*RUN_FROM_SOURCE, "serve", "--port", "0", "--reload"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=checkout, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        wait_until(lambda: SENTENCE in log.read_text())
        file.write_text(working)
        assert process.stdout
        assert process.stdout.readline().startswith("Tasks API at http://127.0.0.1:")
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()
