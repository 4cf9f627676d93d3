"""Makes the changes of tests/adopter in copies of the project, and runs its tests there: `make changes`.

A change that is right breaks only the tests that show the whole API: they say what is to be added to them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from handlers.contract import document as contract
from tests.adopter import due_date, update_task

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Whoever has made one of them for good need not try it.
CHANGES: dict[str, Callable[[Path], None]] = {
    name: module.change
    for name, module in (("due_date", due_date), ("update_task", update_task))
    if not module.is_made(contract.document())
}
# These show every field or call every operation. What they say when they fail names what is to be added, and where.
MAY_FAIL = {
    "tests.project.test_docs::test_recipe_for_a_field_names_the_next_migration",
    "tests.project.test_readme::test_calls_give_the_answers_in_the_readme",
    "tests.sdk.test_sdk::test_programs_use_every_operation_and_stand_in_the_readme",
}

# Beside what is not the project's: a change is not made twice.
LEFT_OUT = (".git", ".venv*", ".*_cache", "*.db*", "build", "dist", "__pycache__", "test_changes.py")


def copy(change: str, folder: Path) -> Path:
    """Return a copy of the project in which a change is made."""
    project = folder / change
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(*LEFT_OUT))
    if (ROOT / "build/node").exists():
        (project / "build").mkdir()
        (project / "build/node").symlink_to((ROOT / "build/node").resolve())
    CHANGES[change](project)
    for command in (("datamodel-codegen",), ("ruff", "format", "--quiet"), ("ruff", "check", "--quiet")):
        subprocess.run([BIN / command[0], *command[1:]], cwd=project, check=True)
    return project


def failed(project: Path, *options: str) -> list[str]:
    """Run the tests of a project with some options of pytest, and return the modules and names of those that fail."""
    report = project.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *options]
    # The copy comes before the installed project. A program that is not installed is no failure here, also in CI.
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"PYTHONPATH": str(project)}
    run = subprocess.run(command, cwd=project, env=environment, check=False)
    if run.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(f"The tests of {project.name} could not be run: pytest ended with {run.returncode}.")
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    broken = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return [f"{case.get('classname')}::{case.get('name')}" for case in broken]


def main() -> None:
    """Try each change with the given options of pytest, or with all tests on four processes."""
    options = sys.argv[1:] or ["-n", "4", "--dist", "worksteal"]
    unexpected = []
    with tempfile.TemporaryDirectory(prefix="changes-") as folder:
        for change in CHANGES:
            found = failed(copy(change, Path(folder)), *options)
            unexpected += [f"  {change}: {test}" for test in found if test not in MAY_FAIL]
    if unexpected:
        sys.exit("\n".join(["These tests are not about what has changed, and fail:", *unexpected]))
    print("Only tests fail that show every operation and field.")


if __name__ == "__main__":
    main()
