"""Commands of Schemathesis, and what their reports say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.support.project import ROOT

CONTRACT_TESTS = ROOT / "tests/contract"


def make_contract(folder: Path, url: str, **variables: str | int) -> list[str]:
    """Return the command `make contract` with its reports in a folder, and with what this Python has installed."""
    given = {"VENV": sys.prefix, "REPORTS": folder, "URL": url, **variables}
    command = ("make", "--directory", ROOT, f"--old-file={sys.prefix}/development", "contract")
    return [*map(str, command), *(f"{name}={value}" for name, value in given.items())]


def finish(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return what it said."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)


def failures(junit: Path) -> list[str]:
    """Return what a JUnit report holds against the service."""
    suites = ElementTree.parse(junit).getroot()
    assert suites.findall(".//testcase")
    return [str(failure.text) for failure in suites.findall(".//failure")]


def calls(har: Path) -> list[dict[str, Any]]:
    """Return the calls of a HAR report."""
    entries: list[dict[str, Any]] = json.loads(har.read_text())["log"]["entries"]
    return entries
