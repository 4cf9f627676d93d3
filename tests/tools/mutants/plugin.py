"""A pytest plugin that skips the tests that would find a mutant for the wrong reason.

These tests edit a copy of the project, and fail because the mutant has changed the text that they edit.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

EDITS = "support/edits.py"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[Any]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo and any(Path(entry.path).match(EDITS) for entry in call.excinfo.traceback):
        report.outcome = "skipped"
        report.longrepr = (report.nodeid, 0, "Skipped: the mutant has changed the text that this test edits")
    return report
