"""The project's files, and the programs that its tests run."""

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The installed command.
COMMAND = str(Path(sys.executable).with_name("tasks-api"))
# The command, run from the code in the working directory.
FROM_FOLDER = (sys.executable, "-c", "from handlers.cli import main; main()")
# So many seconds something may take on a machine that is busy with other things.
PATIENCE = 60
# What the wheel is built from.
SOURCES = ("handlers", "models", "tests/contract", "openapi.yaml", "pyproject.toml", "README.md", "LICENSE")


def tool(*paths: str | Path) -> Path:
    """Return the first program that exists; skip the test where none does, or fail it in CI."""
    if found := next(filter(None, map(shutil.which, paths)), None):
        return Path(found)
    missing = f"{Path(paths[0]).name} is not installed"
    if "CI" in os.environ:
        pytest.fail(missing)
    pytest.skip(missing)


def copy_project(folder: Path) -> Path:
    """Copy the sources of the wheel into a new folder `checkout`, and return that."""
    copy = folder / "checkout"
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            shutil.copytree(path, copy / path.relative_to(ROOT))
        else:
            shutil.copy(path, copy)
    return copy
