"""A fork server for the command: it imports the service once, and forks a copy for each service that tests start.

Importing takes half a second of CPU, and forking a few milliseconds. What is forked is the same command in a process of
its own, with its own arguments, folder, environment, output and exit status. Run as a program with the number of a
socket, this file is the server; `Launcher` starts it.
"""

import atexit
import ctypes
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

if __name__ == "__main__":
    # The code in the working directory, as in the tests themselves.
    sys.path[0] = str(Path.cwd())

from tests.support.flushes import VARIABLE, let_a_test_decide

SET_PARENT_DEATH_SIGNAL = 1  # as <linux/prctl.h> has it
MAX_MESSAGE = 1 << 20


class Launched:
    """A process that the fork server started, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, stdout: IO[str], status: int) -> None:
        self.pid = pid
        self.stdout: IO[str] | None = stdout
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, for so many seconds at the most, and return the exit status."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("tasks-api", timeout or 0)
            told = os.read(self._status, 4)
            assert told, "the fork server has ended"
            (code,) = struct.unpack("i", told)
            os.close(self._status)
            self.returncode = code
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what is left of the output; errors go to a file."""
        self.wait(timeout)
        assert self.stdout
        if self.stdout.closed:
            return "", ""
        with self.stdout as stdout:
            return stdout.read(), ""

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Launcher:
    """The fork server of this process."""

    def __init__(self) -> None:
        self._socket, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server:
            # Coverage measures what is forked, and not the server.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(server.fileno())], env=environment, pass_fds=[server.fileno()]
            )

    def start(self, arguments: list[str], folder: Path, environment: dict[str, str], errors: IO[Any]) -> Launched:
        """Start the command.

        Args:
            arguments: Those of the command.
            folder: Its working directory.
            environment: All of its environment variables.
            errors: The file for its standard error.
        """
        reader, writer = os.pipe()
        status, told = os.pipe()
        message = json.dumps([arguments, str(folder), environment]).encode()
        socket.send_fds(self._socket, [message], [writer, errors.fileno(), told])
        os.close(writer)
        os.close(told)
        (pid,) = struct.unpack("i", os.read(status, 4))
        return Launched(pid, os.fdopen(reader), status)

    def close(self) -> None:
        """End the server, and what it has started and still runs."""
        self._socket.close()
        self._process.wait()


@cache
def launcher() -> Launcher:
    """Return the fork server of this process, which starts with the first service."""
    launcher = Launcher()
    atexit.register(launcher.close)
    return launcher


def _end_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(listener: socket.socket) -> None:
    """Fork a command for each message; return in the forked process, which is to run it, or exit."""
    # The processes that wait for the commands are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Ctrl-C is for the tests, which end what they have started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = os.getpid()
    while True:
        message, descriptors, *_ = socket.recv_fds(listener, MAX_MESSAGE, 3)
        if not message:
            os._exit(0)
        stdout, stderr, status = descriptors
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _end_with_parent(server)
    waiting = os.getpid()
    pid = os.fork()
    if pid:
        for descriptor in (stdout, stderr):
            os.close(descriptor)
        os.write(status, struct.pack("i", pid))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, struct.pack("i", code))
        os._exit(0)
    _end_with_parent(waiting)
    os.close(status)
    _become(json.loads(message), stdout, stderr)


def _become(message: Any, stdout: int, stderr: int) -> None:
    arguments, folder, environment = message
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for descriptor, number in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Tests that run in the background ignore Ctrl-C; what they start is not to.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Each process names its requests otherwise.
    vars(sys.modules["handlers.server.protocol"])["PROCESS"] = token_hex(8)
    if path := environment.get(VARIABLE):
        let_a_test_decide(path)
    sys.argv = ["tasks-api", *arguments]
    if "COVERAGE_PROCESS_CONFIG" in environment:
        import coverage  # noqa: PLC0415, only where it is wanted

        coverage.process_startup(force=True)
        # The workers of a service reach the same lines, and to measure them takes as long as to start them.
        del os.environ["COVERAGE_PROCESS_CONFIG"]


def _prepare() -> Callable[[], None]:
    """Import what a service needs, see once that the contract is valid, and return what runs the command."""
    for module in ("uvloop", "coverage", "handlers.access.rate_limits"):
        import_module(module)
    from connexion.spec import OpenAPISpecification  # noqa: PLC0415, these are for the server alone

    from handlers.application import create_app  # noqa: PLC0415
    from handlers.cli import main  # noqa: PLC0415

    create_app()
    # Every service has the same contract, and to look at it again takes two thirds of a start.
    OpenAPISpecification._validate_spec = classmethod(lambda *_: None)
    gc.collect()
    gc.freeze()
    return main


if __name__ == "__main__":
    main = _prepare()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
