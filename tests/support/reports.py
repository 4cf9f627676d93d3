"""Run Schemathesis, and read its reports."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.support.project import ROOT

CONTRACT_TESTS = ROOT / "tests/contract"


def make_contract(folder: Path, url: str, **variables: str | int) -> list[str]:
    """Return a `make contract` command that uses the Python of the tests, and writes its reports to a folder."""
    given = {"VENV": sys.prefix, "REPORTS": folder, "URL": url, **variables}
    command = ("make", "--directory", ROOT, f"--old-file={sys.prefix}/development", "contract")
    return [*map(str, command), *(f"{name}={value}" for name, value in given.items())]


def run_command(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return its exit status and output."""
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False, **options
    )


def failures(junit: Path) -> list[str]:
    """Return the failures in a JUnit report."""
    suites = ElementTree.parse(junit).getroot()
    assert suites.findall(".//testcase")
    return [str(failure.text) for failure in suites.findall(".//failure")]


def har_entries(har: Path) -> list[dict[str, Any]]:
    """Return the entries of a HAR report, one for each request."""
    entries: list[dict[str, Any]] = json.loads(har.read_text("utf-8"))["log"]["entries"]
    return entries
