"""Ends what a run of the tests has left behind, however the run ends: with success, Ctrl-C, SIGTERM or SIGKILL.

All temporary files of a run are in one folder, the `TMPDIR` of its processes. `watch` starts this file as a program,
which waits until the run is over, kills every process that still has the folder as its `TMPDIR` or works in it, and
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

PATIENCE = 10  # seconds


def watch() -> Callable[[], None]:
    """Make the temporary folder of this run, and return what cleans up, which happens too if this process dies."""
    # The path is short, since that of a Unix socket in it may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="tasks-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    watcher = subprocess.Popen(
        # With no `TMPDIR` of its own, or it would kill itself.
        [sys.executable, __file__, folder],
        env={
            name: value for name, value in os.environ.items() if name != "TMPDIR" and not name.startswith("COVERAGE_")
        },
        stdin=subprocess.PIPE,
        start_new_session=True,
    )

    def end() -> None:
        assert watcher.stdin
        watcher.stdin.close()
        watcher.wait()

    return end


def _processes(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            # What a run within this run has started has a folder within this folder.
            if any(Path(path).is_relative_to(folder) for path in (process.environ().get("TMPDIR", "/"), process.cwd())):
                yield process
        except (psutil.Error, OSError):
            # It has just ended, or it is not ours.
            continue


def _clean(folder: Path) -> None:
    give_up = time.monotonic() + PATIENCE
    # One may have started another while they were looked at.
    while (left := [*_processes(folder)]) and time.monotonic() < give_up:
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
