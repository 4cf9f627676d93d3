"""Clean up after a test run, however it ends: success, Ctrl-C, SIGTERM or SIGKILL.

All temporary files of a run are in one folder, the `TMPDIR` of its processes. `start_watcher` runs this file as a
program, which waits until the run ends, kills every process whose `TMPDIR` or working directory is in the folder, and
removes the folder.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

TIMEOUT = 10  # seconds until the watcher gives up


def start_watcher() -> Callable[[], None]:
    """Create the temporary folder of this run; return a function that cleans up.

    If this process dies, the watcher cleans up anyway.
    """
    # Keep the path short: the path of a Unix socket has at most 107 bytes.
    folder = tempfile.mkdtemp(prefix="tasks-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    watcher = subprocess.Popen(
        # Start the watcher without `TMPDIR`, or it would kill itself.
        [sys.executable, __file__, folder],
        env={
            name: value for name, value in os.environ.items() if name != "TMPDIR" and not name.startswith("COVERAGE_")
        },
        stdin=subprocess.PIPE,
        start_new_session=True,
    )

    def clean_up() -> None:
        assert watcher.stdin
        watcher.stdin.close()
        watcher.wait()

    return clean_up


def _processes(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            # Include folders within this folder, because the `TMPDIR` of a nested test run is one of them.
            if any(Path(path).is_relative_to(folder) for path in (process.environ().get("TMPDIR", "/"), process.cwd())):
                yield process
        except (psutil.Error, OSError):
            # The process has ended, or belongs to another user.
            continue


def _clean(folder: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    # Repeat the scan, because a process may have started another process during the scan.
    while (left := [*_processes(folder)]) and time.monotonic() < deadline:
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    sys.stdin.buffer.read()
    _clean(Path(sys.argv[1]))
