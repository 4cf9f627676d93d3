"""Follow each recipe of docs/your-own-api.md in a copy of the project, and run the tests there: `make changes`.

A correct change breaks no test, so that whoever follows a recipe touches only the files that it lists.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.recipes import RECIPES, can_be_followed, follow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# The recipes, except those that have been followed in this project already, and those about what it does not have.
CHANGES = [change for change, heading in RECIPES.items() if can_be_followed(heading, ROOT)]
# These tests may fail.
MAY_FAIL = {
    # It needs the renamed command, which is not installed.
    "tests.models.database.test_errors::test_missing_extra_is_explained[installed]",
}

# Generated files are not copied.
NOT_COPIED = (".coverage*", ".git", ".venv*", ".*_cache", "*.db*", "build", "dist", "__pycache__")


def copy(project: Path) -> Path:
    """Copy this project to a new folder, and return the folder."""
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (project / "build").mkdir()
    for name in ("node", "json-schema-tests"):
        if (ROOT / "build" / name).exists():
            (project / "build" / name).symlink_to((ROOT / "build" / name).resolve())
    return project


def copy_with_change(change: str, folder: Path) -> Path:
    """Follow a recipe in a copy of this project, which needs no formatting afterwards, and return the copy."""
    project = copy(folder / change)
    follow(RECIPES[change], project)
    for command in (("format", "--check", "--quiet"), ("check", "--quiet")):
        subprocess.run([BIN / "ruff", *command], cwd=project, check=True)
    return project


def find_failures(project: Path, *options: str) -> list[str]:
    """Run the tests of a project, and return the module and name of each test that fails."""
    report = project.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *options]
    # Import the modules of the copy, not the installed ones. Unset CI, to skip tests whose program is not installed.
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"PYTHONPATH": str(project)}
    run = subprocess.run(command, cwd=project, env=environment, check=False)
    if run.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(f"The tests of {project.name} could not be run: pytest exited with status {run.returncode}.")
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return [f"{case.get('classname')}::{case.get('name')}" for case in failed]


def main() -> None:
    """Test each change with the given options of pytest; by default, run all tests on four processes."""
    options = sys.argv[1:] or ["-n", "4", "--dist", "worksteal"]
    unexpected = []
    with tempfile.TemporaryDirectory(prefix="changes-") as folder:
        for change in CHANGES:
            # Most slow tests of another API need its command, which is not installed.
            quick = ("-m", "not slow") if change == "api" else ()
            failures = find_failures(copy_with_change(change, Path(folder)), *options, *quick)
            unexpected += [f"  {change}: {test}" for test in failures if test not in MAY_FAIL]
    if unexpected:
        sys.exit("\n".join(["These tests fail, although the recipes do not change them:", *unexpected]))
    print("No test fails.")


if __name__ == "__main__":
    main()
