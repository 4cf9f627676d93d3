"""The command inside of the tests' own process, where it says the same but need not be started."""

import os
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from handlers.cli import main
from tests.conftest import environment


def run(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> CompletedProcess[str]:
    """Run the command `tasks-api` to its end, for what is refused before anything is served."""
    said = ""
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
            # Python prints the text with which a process exits, whose status is then 1.
            said = f"{end.code}\n"
    return CompletedProcess(arguments, int(said != ""), out.getvalue(), err.getvalue() + said)
