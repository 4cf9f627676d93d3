"""The handlers of the second API have the types of its generated models."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_handlers_have_the_types_of_the_generated_models(project: Path) -> None:
    handlers = [f"handlers/{path.name}" for path in (Path(__file__).parent / "handlers").glob("*.py")]
    command = [sys.executable, "-m", "mypy", *handlers]

    checked = subprocess.run(command, cwd=project, capture_output=True, encoding="utf-8", check=False, timeout=300)

    assert checked.returncode == 0, checked.stdout
