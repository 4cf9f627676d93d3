"""`make diff` checks that the version of the contract reflects the changes since its last release."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers.contract import document
from tests.support.project import ROOT
from tests.tools.diff import allow_growth, version_errors

RELEASED = re.sub(r"(?m)^  version: .*", "  version: 1.2.3", document.PATH.read_text("utf-8"))
SMALLER_BODY = ("x-max-bytes: 65536", "x-max-bytes: 6553")
OTHER_DEFAULT = ("default: 100\n", "default: 10\n")
OTHER_EXAMPLE = ("TaskNotFound: Task not found", "TaskNotFound: No such task")
DROPPED_PARAMETER = ("        - $ref: '#/components/parameters/Completed'\n", "")
LOWER_MAXIMUM = ("maximum: 1000\n", "maximum: 500\n")
RENAMED = ("title: Tasks API", "title: The Tasks API")
NO_KEYS = ("security:\n  - ApiKey: []\n", "security: []\n")


@pytest.fixture
def folder(tmp_path: Path, node: Path) -> Path:
    """Return the folder of a Git repository whose last tag is v1.2.3."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/node").symlink_to(node.parents[1])
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/redocly.yaml", tmp_path / "tests")
    (tmp_path / "openapi.yaml").write_text(RELEASED, "utf-8")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (("init", "-q"), ("add", "openapi.yaml"), ("commit", "-qm", "Release"), ("tag", "v1.2.3")):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


def diff(folder: Path, *base: str) -> tuple[int, str]:
    """Run `make diff` on the contract in a folder, and return the exit status and the output."""
    command = [sys.executable, "-m", "tests.tools.diff", *base]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    completed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert "Traceback" not in completed.stderr
    return completed.returncode, completed.stdout + completed.stderr


def contract_with(change: tuple[str, str], version: str) -> str:
    """Return the released contract with one replacement and another version."""
    assert change[0] in RELEASED
    return RELEASED.replace(*change).replace("version: 1.2.3", f"version: {version}")


@pytest.mark.parametrize(
    ("change", "version", "passes"),
    [
        (("", ""), "1.2.3", True),
        # Any change requires a higher version, even a change of an error message, which is only an example.
        (RENAMED, "1.2.3", False),
        (RENAMED, "1.2.2", False),
        (RENAMED, "1.2.4", True),
        (OTHER_EXAMPLE, "1.2.3", False),
        (OTHER_EXAMPLE, "1.2.4", True),
        # A breaking change requires a higher major version.
        (SMALLER_BODY, "1.3.0", False),
        (SMALLER_BODY, "2.0.0", True),
        (OTHER_DEFAULT, "1.3.0", False),
        (OTHER_DEFAULT, "2.0.0", True),
    ],
)
def test_version_must_reflect_the_change(change: tuple[str, str], version: str, passes: bool) -> None:
    errors = list(version_errors(yaml.safe_load(RELEASED), yaml.safe_load(contract_with(change, version))))

    assert (errors == []) is passes
    assert passes or "info.version" in errors[0]


@pytest.mark.parametrize(("version", "passes"), [("1.3.0", False), ("2.0.0", True)])
def test_requiring_a_key_is_a_breaking_change(version: str, passes: bool) -> None:
    released = yaml.safe_load(RELEASED.replace(*NO_KEYS))
    errors = list(version_errors(released, yaml.safe_load(contract_with(("", ""), version))))

    assert (errors == []) is passes
    assert passes or "security requires a key since 1.2.3" in errors[0]


@pytest.mark.parametrize(
    ("change", "version", "passes"),
    [
        (RENAMED, "1.2.3", False),
        (DROPPED_PARAMETER, "1.3.0", False),
        (LOWER_MAXIMUM, "2.0.0", True),
        (SMALLER_BODY, "1.3.0", False),
    ],
)
def test_command_applies_the_rules_of_redocly_too(
    change: tuple[str, str], version: str, passes: bool, folder: Path
) -> None:
    (folder / "openapi.yaml").write_text(contract_with(change, version), "utf-8")

    status, output = diff(folder)

    assert (status == 0) is passes, output
    assert passes or "info.version" in output


@pytest.mark.parametrize(("old", "new", "allowed"), [(2, 3, 3), (3, 2, 3), (3, None, 3)])
def test_closed_object_may_get_more_properties(old: int, new: int | None, allowed: int) -> None:
    def contract(limit: int | None) -> dict[str, Any]:
        closed = {"additionalProperties": False} | ({"maxProperties": limit} if limit else {})
        return {"schemas": [closed, {"maxProperties": limit}]}

    released = contract(old)
    allow_growth(released, contract(new))

    assert released == {"schemas": [{"additionalProperties": False, "maxProperties": allowed}, {"maxProperties": old}]}


def test_unknown_base_is_reported(folder: Path) -> None:
    assert diff(folder, "v9.9.9") == (1, "v9.9.9 is neither a file nor a tag with an openapi.yaml.\n")


def test_first_release_has_no_base(folder: Path) -> None:
    subprocess.run(["git", "tag", "-d", "v1.2.3"], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    status, output = diff(folder)

    assert status == 0
    assert output.startswith("No release has a tag yet")


def test_contract_package_and_changelog_have_the_same_version() -> None:
    changelog = re.search(r"(?m)^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert changelog
    assert changelog[1] == document.raw()["info"]["version"] == project["version"] == version("tasks-api")
