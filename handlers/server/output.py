"""Standard output and standard error, which may be closed, full, or a pipe that nobody reads.

A command then ends with one sentence. The service goes on without what it cannot write.
"""

import errno
import io
import logging
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

STDOUT, STDERR = 1, 2
NAMES = {STDOUT: "Standard output", STDERR: "Standard error"}
READER_TIMEOUT = 0.25  # seconds to wait for the reader of a full pipe; the event loop waits too
RETRY_DELAY = 60.0  # seconds in which further lines do not wait, and no further error is reported

logger = logging.getLogger(__name__)


class Stream(io.TextIOWrapper):
    """A standard stream of a command. It has no buffer, and keeps its first error instead of raising it.

    Python would write the rest of a buffer again, and fail again, when it starts a process and when it exits. The
    stream escapes what its encoding cannot write.
    """

    def __init__(self, descriptor: int, encoding: str | None) -> None:
        super().__init__(io.FileIO(descriptor, "w", closefd=False), encoding, "backslashreplace", write_through=True)
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write all of the text, or as much as possible."""
        data = text.encode(self.encoding, "backslashreplace")
        try:
            while data:
                data = data[os.write(self.fileno(), data) :]
        except OSError as error:
            self.error = self.error or error
        return len(text)


class OutputHandler(logging.Handler):
    """Writes log records without a buffer. Drops what cannot be written, and reports that at most once a minute."""

    def __init__(self, descriptor: int, encoding: str = "utf-8") -> None:
        super().__init__()
        self._descriptor = descriptor
        self._encoding = encoding
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        # Like the handlers of `logging`: a malformed record must not raise in the code that logs.
        except Exception:
            self.handleError(record)
        else:
            self.write(line)

    def write(self, line: str) -> None:
        """Write a line, or report that this is impossible."""
        data = f"{line}\n".encode(self._encoding, "backslashreplace")
        try:
            while data:
                data = data[self._write(data) :]
        except OSError as error:
            if monotonic() > self._quiet_until:
                self._quiet_until = monotonic() + RETRY_DELAY
                logger.error("%s Until then, lines are dropped.", _sentence(self._descriptor, error))

    def _write(self, data: bytes) -> int:
        is_failing = monotonic() < self._quiet_until
        if not select.select([], [self._descriptor], [], 0 if is_failing else READER_TIMEOUT)[1]:
            raise OSError(errno.ETIMEDOUT, "its reader does not read")
        # A pipe that is ready takes this many bytes without blocking (pipe(7)).
        return os.write(self._descriptor, data[: select.PIPE_BUF])


def stdout_error() -> OSError | None:
    """Return why a command could not write its result."""
    return sys.stdout.error if isinstance(sys.stdout, Stream) else None


@contextmanager
def guarded() -> Iterator[None]:
    """Let no output of a command end in a traceback. If the result cannot be written, end with a sentence."""
    _reserve_descriptors()
    for name, descriptor in (("stdout", STDOUT), ("stderr", STDERR)):
        # Tests replace the streams.
        if (stream := getattr(sys, name)) is getattr(sys, f"__{name}__"):
            setattr(sys, name, Stream(descriptor, stream and stream.encoding))
    try:
        yield
    except SystemExit as end:
        if end.code:
            raise
    finally:
        # The command is done. While the interpreter exits, Ctrl-C would only show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    error = stdout_error()
    if isinstance(error, BrokenPipeError):
        # Python ignores SIGPIPE, which ends other programs.
        sys.exit(128 + signal.SIGPIPE)
    if error:
        sys.exit(_sentence(STDOUT, error))


def _reserve_descriptors() -> None:
    """Reopen closed standard streams. Otherwise a connection would get the descriptor of one, and then its text."""
    for descriptor in (0, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # Only for reading: writing fails, as on a closed stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)


def _sentence(descriptor: int, error: OSError) -> str:
    return f"{NAMES[descriptor]} cannot be written ({error.strerror}): redirect it elsewhere."
