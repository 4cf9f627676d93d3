"""Control the flushes of a service: a test lets each flush through, holds it or fails it.

The kernel notifies the test of each `fsync` and `fdatasync` (seccomp_unotify(2)). Run as a program with the path of the
test's socket and a command, this file executes the command under the control of the test.
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

# The numbers of the system calls seccomp, fsync and fdatasync on each processor architecture.
SYSTEM_CALLS = {"x86_64": (317, 74, 75), "aarch64": (277, 82, 83)}
SET_NO_NEW_PRIVILEGES, SET_MODE_FILTER, NEW_LISTENER = 38, 1, 1 << 3
NOTIFY, ALLOW = 0x7FC00000, 0x7FFF0000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
RECEIVE_NOTIFICATION, SEND_RESPONSE = 0xC0502100, 0xC0182101
CONTINUE = 1
# The environment variable that tells a process of the fork server the path of the test's socket.
SOCKET_VARIABLE = "TASKS_TESTS_FLUSHES"


class Flushes:
    """The flushes of a process and its children; every flush is let through until the test sets `policy`.

    Args:
        listener: The file descriptor from which the kernel's notifications are read.
    """

    def __init__(self, listener: int) -> None:
        self.policy: Callable[[int], None] = self.let_through
        self.held: Queue[int] = Queue()
        self.count = 0
        self._listener = listener
        Thread(target=self._apply_policy, daemon=True).start()

    def hold(self, flush: int) -> None:
        """Block a flush and the thread that requested it, and add the flush to `held`."""
        self.held.put(flush)

    def let_through(self, flush: int) -> None:
        """Let a flush proceed."""
        self._respond(flush, 0, CONTINUE)

    def fail(self, flush: int) -> None:
        """Fail a flush with a disk I/O error."""
        self._respond(flush, -errno.EIO, 0)

    def _apply_policy(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while poll.poll()[0][1] == select.POLLIN:
            notification = bytearray(80)
            fcntl.ioctl(self._listener, RECEIVE_NOTIFICATION, notification)
            self.count += 1
            self.policy(struct.unpack_from("Q", notification)[0])

    def _respond(self, flush: int, error: int, flags: int) -> None:
        fcntl.ioctl(self._listener, SEND_RESPONSE, struct.pack("QqiI", flush, 0, error, flags))


class FlushSocket:
    """The socket where a process registers its flushes.

    To register its flushes, start a program with `command` in front of its own command, or the service with `variables`
    in its environment.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.command = (sys.executable, __file__, str(path))
        self.variables = {SOCKET_VARIABLE: str(path)}

    def close(self) -> None:
        self._socket.close()

    def accept(self) -> Flushes:
        """Wait until the process connects, and return the flushes of the process."""
        connection, _ = self._socket.accept()
        with connection:
            _, (listener,), *_ = socket.recv_fds(connection, 1, 1)
        return Flushes(listener)


def install_flush_filter() -> int:
    """Install a seccomp filter that reports each flush of this process; return the file descriptor of the filter."""
    seccomp, *flushes = SYSTEM_CALLS[platform.machine()]
    steps = [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 1, 0, flushes[0]),
        (JUMP_IF_EQUAL, 0, 1, flushes[1]),
        (RETURN, 0, 0, NOTIFY),
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


def give_control_to_test(path: str) -> None:
    """Let the test that listens on the socket at `path` control the flushes of this process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"\n"], [install_flush_filter()])


if __name__ == "__main__":
    path, *command = sys.argv[1:]
    give_control_to_test(path)
    os.execv(command[0], command)
