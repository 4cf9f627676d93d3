"""`make diff`: the version of the contract says what has changed since its last release."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from handlers.contract import document as contract
from tests.support.project import ROOT
from tests.tools.diff import faults

RELEASED = re.sub(r"(?m)^  version: .*", "  version: 1.2.3", contract.PATH.read_text())
LOWER = ("x-max-bytes: 65536", "x-max-bytes: 6553")
DEFAULT = ("default: 100\n", "default: 10\n")
EXAMPLE = ("detail: Task not found", "detail: No such task")
OPTIONAL = ("        - $ref: '#/components/parameters/Completed'\n", "")
NARROWER = ("maximum: 1000\n", "maximum: 500\n")
WORDS = ("title: Tasks API", "title: The Tasks API")
KEYS = ("security:\n  - ApiKey: []\n", "security: []\n")


@pytest.fixture
def folder(tmp_path: Path, node: Path) -> Path:
    """A repository of git whose last tag is of a contract 1.2.3."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/node").symlink_to(node.parents[1])
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/redocly.yaml", tmp_path / "tests")
    (tmp_path / "openapi.yaml").write_text(RELEASED)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (("init", "-q"), ("add", "openapi.yaml"), ("commit", "-qm", "Release"), ("tag", "v1.2.3")):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


def diff(folder: Path, *base: str) -> tuple[int, str]:
    """Compare the contract in a folder, and return the exit status and what is said."""
    command = [sys.executable, str(ROOT / "tests/tools/diff.py"), *base]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Traceback" not in said.stderr
    return said.returncode, said.stdout + said.stderr


def changed(change: tuple[str, str], version: str) -> str:
    """Return the contract with a change and a version."""
    assert change[0] in RELEASED
    return RELEASED.replace(*change).replace("version: 1.2.3", f"version: {version}")


@pytest.mark.parametrize(
    ("change", "raised", "passes"),
    [
        (("", ""), "1.2.3", True),
        # Any change raises the version; the words of a problem stand in an example.
        (WORDS, "1.2.3", False),
        (WORDS, "1.2.2", False),
        (WORDS, "1.2.4", True),
        (EXAMPLE, "1.2.3", False),
        (EXAMPLE, "1.2.4", True),
        # A breaking change raises the major version.
        (LOWER, "1.3.0", False),
        (LOWER, "2.0.0", True),
        (DEFAULT, "1.3.0", False),
        (DEFAULT, "2.0.0", True),
    ],
)
def test_version_says_what_has_changed(change: tuple[str, str], raised: str, passes: bool) -> None:
    found = list(faults(yaml.safe_load(RELEASED), yaml.safe_load(changed(change, raised))))

    assert (found == []) is passes
    assert passes or "info.version" in found[0]


@pytest.mark.parametrize(("raised", "passes"), [("1.3.0", False), ("2.0.0", True)])
def test_keys_that_are_asked_for_break_callers(raised: str, passes: bool) -> None:
    found = list(faults(yaml.safe_load(RELEASED.replace(*KEYS)), yaml.safe_load(changed(("", ""), raised))))

    assert (found == []) is passes
    assert passes or "security asks for a key since 1.2.3" in found[0]


@pytest.mark.parametrize(
    ("change", "raised", "passes"),
    [
        (WORDS, "1.2.3", False),
        (OPTIONAL, "1.3.0", False),
        (NARROWER, "2.0.0", True),
        (LOWER, "1.3.0", False),
    ],
)
def test_command_knows_the_rules_of_redocly_too(
    change: tuple[str, str], raised: str, passes: bool, folder: Path
) -> None:
    (folder / "openapi.yaml").write_text(changed(change, raised))

    status, said = diff(folder)

    assert (status == 0) is passes, said
    assert passes or "info.version" in said


def test_base_that_is_none_is_named(folder: Path) -> None:
    assert diff(folder, "v9.9.9") == (1, "v9.9.9 is neither a file nor a tag with an openapi.yaml.\n")


def test_first_release_has_nothing_to_be_compared_with(folder: Path) -> None:
    subprocess.run(["git", "tag", "-d", "v1.2.3"], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    status, said = diff(folder)

    assert status == 0
    assert said.startswith("No release has a tag yet")


def test_contract_package_and_changelog_have_the_same_version() -> None:
    changelog = re.search(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert changelog
    assert changelog[1] == contract.document()["info"]["version"] == project["version"] == version("tasks-api")
