"""The project's files, and the programs that tests run."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from handlers.contract import document

ROOT = Path(__file__).parents[2]
# The path of the installed command.
COMMAND = str(Path(sys.executable).with_name(document.COMMAND))
# A command line that runs `tasks-api` from the code in the working directory.
RUN_FROM_SOURCE = (sys.executable, "-c", "from handlers.cli import main; main()")
# Timeout in seconds, long enough for a busy machine.
TIMEOUT = 60
# The files and folders from which the wheel is built.
SOURCES = ("handlers", "models", "tests/contract", "openapi.yaml", "pyproject.toml", "README.md", "LICENSE")


def tool(*paths: str | Path) -> Path:
    """Return the first of these programs that is installed. If none is, skip the test, or fail it in CI."""
    if found := next(filter(None, map(shutil.which, paths)), None):
        return Path(found)
    missing = f"{Path(paths[0]).name} is not installed"
    if "CI" in os.environ:
        pytest.fail(missing)
    pytest.skip(missing)


def copy_project(folder: Path) -> Path:
    """Copy the sources of the wheel into a new folder `checkout`, and return the folder."""
    copy = folder / "checkout"
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            shutil.copytree(path, copy / path.relative_to(ROOT))
        else:
            shutil.copy(path, copy)
    return copy
