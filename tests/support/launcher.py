"""A fork server, which imports the service once, and forks a process for each command that tests run.

Importing the service takes half a second of CPU time; forking takes a few milliseconds. Each forked process has its own
arguments, working directory, environment, output and exit status. `Launcher` runs this file as a program, with the
file descriptor of a socket.
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
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

if __name__ == "__main__":
    # Import the modules in the working directory, as the tests do.
    sys.path[0] = str(Path.cwd())

from tests.support.flushes import SOCKET_VARIABLE, give_control_to_test

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in <linux/prctl.h>
MAX_MESSAGE = 1 << 20


class LaunchedProcess:
    """A process that the fork server has forked, with the methods of `subprocess.Popen` that tests use."""

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
        """Wait at most `timeout` seconds until the process ends, and return its exit status."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("tasks-api", timeout or 0)
            received = os.read(self._status, 4)
            assert received, "the fork server has ended"
            (code,) = struct.unpack("i", received)
            os.close(self._status)
            self.returncode = code
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until the process ends, and return its unread standard output; its standard error goes to a file."""
        self.wait(timeout)
        assert self.stdout
        if self.stdout.closed:
            return "", ""
        with self.stdout as stdout:
            return stdout.read(), ""

    def send_signal(self, number: int) -> None:
        # The process may end, and be reaped by the fork server, at any moment.
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Launcher:
    """Starts the fork server, which then starts processes that run `tasks-api`."""

    def __init__(self) -> None:
        self._socket, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server:
            # Measure the coverage of the forked processes, not of the fork server.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(server.fileno())], env=environment, pass_fds=[server.fileno()]
            )

    def start(
        self, arguments: list[str], folder: Path, environment: dict[str, str], errors: IO[Any]
    ) -> LaunchedProcess:
        """Start a process that runs `tasks-api`.

        Args:
            arguments: The arguments of the process.
            folder: The working directory of the process.
            environment: The complete environment of the process.
            errors: The file for the standard error of the process.
        """
        reader, writer = os.pipe()
        status, status_writer = os.pipe()
        message = json.dumps([arguments, str(folder), environment]).encode()
        socket.send_fds(self._socket, [message], [writer, errors.fileno(), status_writer])
        os.close(writer)
        os.close(status_writer)
        (pid,) = struct.unpack("i", os.read(status, 4))
        return LaunchedProcess(pid, os.fdopen(reader, encoding="utf-8"), status)

    def close(self) -> None:
        """End the fork server and every process that it started."""
        self._socket.close()
        self._process.wait()


@cache
def launcher() -> Launcher:
    """Return the fork server of this process; start it at the first call."""
    launcher = Launcher()
    atexit.register(launcher.close)
    return launcher


def _end_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(listener: socket.socket) -> None:
    """Fork a process for each message; return only in the forked process, which must then run the command."""
    # Let the kernel reap the child processes, each of which waits until a command ends.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Ignore Ctrl-C: the tests handle it, and stop the processes that they started.
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
    waiter = os.getpid()
    pid = os.fork()
    if pid:
        for descriptor in (stdout, stderr):
            os.close(descriptor)
        os.write(status, struct.pack("i", pid))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, struct.pack("i", code))
        os._exit(0)
    _end_with_parent(waiter)
    os.close(status)
    _set_up_process(json.loads(message), stdout, stderr)


def _set_up_process(message: Any, stdout: int, stderr: int) -> None:
    arguments, folder, environment = message
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
    for descriptor, number in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # The old object has the properties of the old file, such as whether it can seek.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    # A test run in the background ignores Ctrl-C, but its services must not ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if path := environment.get(SOCKET_VARIABLE):
        give_control_to_test(path)
    sys.argv = ["tasks-api", *arguments]
    if "COVERAGE_PROCESS_CONFIG" in environment:
        import coverage  # noqa: PLC0415, only when coverage is measured

        coverage.process_startup(force=True)
        # Do not measure workers: they would add no coverage, and measuring doubles their start time.
        del os.environ["COVERAGE_PROCESS_CONFIG"]


def _prepare() -> Callable[[], None]:
    """Import the modules that a service needs, validate the contract once, and return the command's entry point."""
    commands = [f"handlers.commands.{name}" for name in ("contract", "database", "keys", "service")]
    for module in ("uvloop", "coverage", "handlers.access.rate_limits", *commands):
        import_module(module)
    from handlers.application import create_app  # noqa: PLC0415, only the server needs these
    from handlers.cli import main  # noqa: PLC0415
    from handlers.contract.framework import Specification  # noqa: PLC0415

    create_app()
    # Every service has the same contract; validating it again would take two thirds of the start time.
    Specification._validate_spec = classmethod(lambda *_: None)
    gc.collect()
    gc.freeze()
    return main


if __name__ == "__main__":
    main = _prepare()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
