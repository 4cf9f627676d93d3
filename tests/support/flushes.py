"""The flushes of a service, each of which a test lets through, holds or lets fail.

The kernel asks the test at each `fsync` and `fdatasync` (seccomp_unotify(2)). The service is started by this file, run
as a program with the path of the test's socket and then the command.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from threading import Thread

# The numbers of seccomp, fsync and fdatasync.
SYSTEM_CALLS = {"x86_64": (317, 74, 75), "aarch64": (277, 82, 83)}
SET_NO_NEW_PRIVILEGES, SET_MODE_FILTER, NEW_LISTENER = 38, 1, 1 << 3
ASK, ALLOW = 0x7FC00000, 0x7FFF0000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
RECEIVE, ANSWER = 0xC0502100, 0xC0182101
GO_ON = 1
# Names the socket of a test to what the fork server starts.
VARIABLE = "TASKS_TESTS_FLUSHES"


class Flushes:
    """The flushes of a process and its children; until `policy` is set, all are let through.

    Args:
        listener: What the kernel asks on.
    """

    def __init__(self, listener: int) -> None:
        self.policy: Callable[[int], None] = self.let_through
        self.held: Queue[int] = Queue()
        self.count = 0
        self._listener = listener
        Thread(target=self._decide, daemon=True).start()

    def hold(self, flush: int) -> None:
        """Keep a flush waiting, and with it the thread that asked for it; it is then one of those `held`."""
        self.held.put(flush)

    def let_through(self, flush: int) -> None:
        """Let a flush happen."""
        self._answer(flush, 0, GO_ON)

    def fail(self, flush: int) -> None:
        """Let a flush end with an error of the disk."""
        self._answer(flush, -errno.EIO, 0)

    def _decide(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while poll.poll()[0][1] == select.POLLIN:
            question = bytearray(80)
            fcntl.ioctl(self._listener, RECEIVE, question)
            self.count += 1
            self.policy(struct.unpack_from("Q", question)[0])

    def _answer(self, flush: int, error: int, flags: int) -> None:
        fcntl.ioctl(self._listener, ANSWER, struct.pack("QqiI", flush, 0, error, flags))


class Switchboard:
    """Where a process says on what the kernel asks: a program with `command` in front, a service with `variables`."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.command = (sys.executable, __file__, str(path))
        self.variables = {VARIABLE: str(path)}

    def close(self) -> None:
        self._socket.close()

    def flushes(self) -> Flushes:
        """Wait for the process, and return its flushes."""
        connection, _ = self._socket.accept()
        with connection:
            _, (listener,), *_ = socket.recv_fds(connection, 1, 1)
        return Flushes(listener)


def ask_at_flushes() -> int:
    """Let the kernel ask at each flush of this process from now on, and return the descriptor that it asks on."""
    seccomp, *flushes = SYSTEM_CALLS[platform.machine()]
    steps = [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 1, 0, flushes[0]),
        (JUMP_IF_EQUAL, 0, 1, flushes[1]),
        (RETURN, 0, 0, ASK),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener: int = system.syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def let_a_test_decide(path: str) -> None:
    """Let the test with a socket at this path decide on the flushes of this process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"\n"], [ask_at_flushes()])


if __name__ == "__main__":
    path, *command = sys.argv[1:]
    let_a_test_decide(path)
    os.execv(command[0], command)
