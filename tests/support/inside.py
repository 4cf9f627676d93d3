"""The command inside of the tests' own process, where it says the same but need not be started."""

import os
import resource
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from handlers.cli import main
from tests.support.service import environment


def run(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> CompletedProcess[str]:
    """Run the command `tasks-api` to its end, for what is refused before anything is served."""
    said, status, files = "", 0, resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        chdir(folder),
        patch.dict(os.environ, environment(variables), clear=True),
        patch.object(sys, "argv", ["tasks-api", *arguments]),
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as err,
    ):
        try:
            main()
        except SystemExit as end:
            if isinstance(end.code, str):
                # Python prints the text with which a process exits, whose status is then 1.
                said, status = f"{end.code}\n", 1
            else:
                status = end.code or 0
        finally:
            # It may have allowed itself more, which services that tests start would have from here.
            resource.setrlimit(resource.RLIMIT_NOFILE, files)
    return CompletedProcess(arguments, status, out.getvalue(), err.getvalue() + said)
