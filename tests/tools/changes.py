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

from tests.adopter import due_date, update_task

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CHANGES: dict[str, Callable[[Path], None]] = {"due_date": due_date.change, "update_task": update_task.change}
# Their subjects are every operation and field: the calls in the README, and the programs for the SDKs.
MAY_FAIL = {"tests.project.test_readme", "tests.sdk.test_sdk"}


def copy(change: str, folder: Path) -> Path:
    """Return a copy of the project in which a change is made."""
    project = folder / change
    shutil.copytree(
        ROOT, project, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", "*.db*", "build", "__pycache__")
    )
    if (ROOT / "build/node").exists():
        (project / "build").mkdir()
        (project / "build/node").symlink_to((ROOT / "build/node").resolve())
    CHANGES[change](project)
    for command in (("datamodel-codegen",), ("ruff", "format", "--quiet"), ("ruff", "check", "--quiet")):
        subprocess.run([BIN / command[0], *command[1:]], cwd=project, check=True)
    return project


def failed(project: Path, *options: str) -> list[str]:
    """Run the tests of a project, and return the modules and names of those that fail."""
    report = project.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *options]
    # The copy comes before the installed project.
    subprocess.run(command, cwd=project, env=os.environ | {"PYTHONPATH": str(project)}, check=False)
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    assert cases, f"No test was run in {project}"
    broken = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return [f"{case.get('classname')}::{case.get('name')}" for case in broken]


def main() -> None:
    """Try each change with the given options of pytest, or with all tests on four processes."""
    options = sys.argv[1:] or ["-n", "4", "--dist", "worksteal"]
    unexpected = []
    with tempfile.TemporaryDirectory(prefix="changes-") as folder:
        for change in CHANGES:
            found = failed(copy(change, Path(folder)), *options)
            unexpected += [f"{change}: {test}" for test in found if test.partition("::")[0] not in MAY_FAIL]
    if unexpected:
        sys.exit("\n".join(["These tests are not about what has changed, and fail:", *unexpected]))
    print("Only tests fail that show every operation and field.")


if __name__ == "__main__":
    main()
