"""Run the command `tasks-api` inside the test process, which is faster than starting another process."""

import os
import resource
import signal
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from handlers.cli import main
from tests.support.service import environment


def run(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> CompletedProcess[str]:
    """Run `tasks-api` until it ends; this suits only commands that end without serving."""
    message, status, files = "", 0, resource.getrlimit(resource.RLIMIT_NOFILE)
    on_interrupt = signal.getsignal(signal.SIGINT)
    with (
        chdir(folder),
        patch.dict(os.environ, environment(variables), clear=True),
        patch.object(sys, "argv", ["tasks-api", *arguments]),
        redirect_stdout(TextIOWrapper(BytesIO(), "utf-8", write_through=True)) as out,
        redirect_stderr(TextIOWrapper(BytesIO(), "utf-8", write_through=True)) as err,
    ):
        try:
            main()
        except SystemExit as end:
            if isinstance(end.code, str):
                # If a `SystemExit` contains a string, Python prints the string and exits with status 1.
                message, status = f"{end.code}\n", 1
            else:
                status = end.code or 0
        finally:
            # Restore the limit: the command may have raised it, and services started later would inherit it.
            resource.setrlimit(resource.RLIMIT_NOFILE, files)
            # The command ignores Ctrl-C when it is done.
            signal.signal(signal.SIGINT, on_interrupt)
    out.seek(0)
    err.seek(0)
    return CompletedProcess(arguments, status, out.read(), err.read() + message)
