"""Output that cannot be written: commands end with a sentence, and the service goes on."""

import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from handlers.server import output
from handlers.server.output import STDOUT, OutputHandler, Stream
from tests.support import inside
from tests.support.calls import wait_until
from tests.support.project import COMMAND
from tests.support.service import Start, environment

FULL = Path("/dev/full")
SENTENCE = "Standard output cannot be written (No space left on device): redirect it elsewhere.\n"


@pytest.fixture
def broken_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def unread_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def full_file() -> Iterator[int]:
    with FULL.open("wb") as file:
        yield file.fileno()


@pytest.fixture
def as_standard_output(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what `guarded` does to this process."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    yield


def use(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> None:
    monkeypatch.setattr(output, "STDOUT", descriptor)
    monkeypatch.setattr(output, "NAMES", {descriptor: "Standard output"})
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)


@pytest.mark.usefixtures("as_standard_output")
@pytest.mark.parametrize("ends", [None, 0, "A sentence."])
def test_full_output_ends_a_command_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, full_file: int, ends: int | str | None
) -> None:
    """An error of the command itself has precedence."""
    use(monkeypatch, full_file)

    with pytest.raises(SystemExit) as raised, output.guarded():
        sys.stdout.write("a" * 100_000)
        if ends is not None:
            sys.exit(ends)

    assert raised.value.code == (ends or SENTENCE.strip())
    assert isinstance(sys.stdout, Stream)
    sys.stdout.flush()


@pytest.mark.usefixtures("as_standard_output")
def test_broken_pipe_ends_a_command_quietly(monkeypatch: pytest.MonkeyPatch, broken_pipe: int) -> None:
    use(monkeypatch, broken_pipe)

    with pytest.raises(SystemExit) as raised, output.guarded():
        sys.stdout.write("a")
        sys.stdout.write("b")

    assert raised.value.code == 141


def test_closed_streams_are_reopened_for_child_processes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, only standard output is closed, and gets the lowest free descriptor."""
    opened: list[int] = []

    def fstat(descriptor: int) -> None:
        if descriptor == STDOUT:
            raise OSError

    real_open = os.open

    def open_and_record(path: str, flags: int) -> int:
        opened.append(real_open(path, flags))
        return opened[-1]

    with ExitStack() as stack, monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        patch.setattr(os, "open", open_and_record)
        output._reserve_descriptors()
        stack.callback(os.close, *opened)
        assert os.get_inheritable(*opened)


def test_handler_waits_no_longer_for_a_long_line(
    caplog: pytest.LogCaptureFixture, unread_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that is ready may not take a whole line, such as a traceback."""
    reader, writer = unread_pipe
    monkeypatch.setattr(output, "NAMES", {writer: "Standard output"})

    OutputHandler(writer).write("a" * 10_000)

    assert os.read(reader, 20_000) == b"a" * 4096
    assert len(caplog.messages) == 1


def test_handler_writes_all_of_a_long_line(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        OutputHandler(log.fileno()).write("a" * 10_000)

    assert (tmp_path / "log").read_text("utf-8") == f"{'a' * 10_000}\n"


def test_malformed_log_call_raises_nothing(full_file: int, capsys: pytest.CaptureFixture[str]) -> None:
    OutputHandler(full_file).handle(logging.makeLogRecord({"msg": "%d", "args": ("a",)}))

    assert "Logging error" in capsys.readouterr().err


def test_handler_reports_an_error_once_and_resumes(
    caplog: pytest.LogCaptureFixture, unread_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full pipe delays one line, not every line."""
    reader, writer = unread_pipe
    monkeypatch.setattr(output, "NAMES", {writer: "Standard output"})
    handler = OutputHandler(writer)
    line = "a" * 100
    record = logging.makeLogRecord({"msg": line})
    began = monotonic()
    for _ in range(1000):
        handler.emit(record)
    assert monotonic() - began < 100 * output.READER_TIMEOUT
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Standard output cannot be written (its reader does not read): ")

    assert set(os.read(reader, 4096).decode().split()) == {line}
    handler.write("é")
    assert os.read(reader, 4096).decode() == "é\n"
    assert len(caplog.messages) == 1


def test_handler_reports_a_full_disk_once(
    caplog: pytest.LogCaptureFixture, full_file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "NAMES", {full_file: "Standard output"})
    handler = OutputHandler(full_file)
    for _ in range(3):
        handler.write("a")

    assert caplog.messages == [f"{SENTENCE.strip()} Until then, lines are dropped."]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        (">/dev/full", 1, SENTENCE),
        (">&-", 1, SENTENCE.replace("No space left on device", "Bad file descriptor")),
        ("| true", 141, ""),
        ("2>/dev/full", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_command_ends_without_a_traceback(tmp_path: Path, kind: str, status: int, message: str) -> None:
    """`sleep` lets the reader of the pipe end first. `key list` also writes to standard error."""
    for arguments in ("contract", "--help", "key list"):
        (tmp_path / "tasks.db").touch()
        script = f'{{ sleep 0.1; "{COMMAND}" {arguments}; echo $? >status; }} {kind}'
        if kind != "| true":
            script = f'"{COMMAND}" {arguments} {kind}; echo $? >status'
        ended = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        empty = arguments == "key list"
        expected = 0 if empty else status
        assert (tmp_path / "status").read_text("utf-8") == f"{expected}\n", ended.stderr
        hint = "" if kind.startswith("2>") else "There are no keys.\n"
        assert ended.stderr == (hint if empty else message)


def test_revokes_a_key_that_cannot_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "stdout_error", lambda: OSError(28, "No space left on device"))

    failed = inside.run(tmp_path, "key", "new", "app")

    assert failed.returncode == 1
    assert failed.stderr.startswith("The key could not be shown (No space left on device) and was revoked: ")
    assert failed.stderr.count("\n") == 1
    assert "revoked" in inside.run(tmp_path, "key", "list").stdout
    monkeypatch.undo()
    assert inside.run(tmp_path, "key", "new", "app").returncode == 0


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
def test_service_goes_on_when_nobody_reads_its_access_log(start: Start, flags: tuple[str, ...]) -> None:
    service = start("--access-log", *flags)
    service.process.stdout.close()

    assert {service.client.get("/api/tasks").status_code for _ in range(50)} == {200}
    wait_until(lambda: "Standard output cannot be written (Broken pipe)" in service.log())
    assert service.log().count("\n") <= 2
    assert service.stop() == 0
    assert "Traceback" not in service.log()


def test_service_does_not_wait_for_the_reader_of_its_access_log(start: Start) -> None:
    service = start("--access-log")
    fcntl.fcntl(service.process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 4096)

    assert {service.client.get("/api/tasks").status_code for _ in range(50)} == {200}

    assert service.log().count("its reader does not read") == 1
    assert json.loads(service.process.stdout.readline())["status"] == 200
    assert service.stop() == 0
