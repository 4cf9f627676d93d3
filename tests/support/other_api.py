"""Turn a copy of the project into another API, as an adopter does: other contract, other handlers, no tasks."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.project import copy_project


def make_project(folder: Path, contract: Path, *handlers: Path) -> Path:
    """Return a copy of the project that serves a contract with these modules of handlers, and knows no task."""
    project = copy_project(folder)
    for path in (project / "handlers/tasks.py", project / "models/task.py"):
        path.unlink()
    for path in (project / "models/migrations").glob("*.py"):
        if "task" in path.read_text("utf-8"):
            path.unlink()
    shutil.copy(contract, project / "openapi.yaml")
    for module in handlers:
        shutil.copy(module, project / "handlers")
    generate = Path(sys.executable).with_name("datamodel-codegen")
    subprocess.run([generate], cwd=project, check=True, capture_output=True, encoding="utf-8", timeout=60)
    return project
