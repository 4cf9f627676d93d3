"""Errors of the configuration: a missing extra."""

import re
import sys

import pytest

from models.database import errors
from models.database.errors import ConfigurationError, require


@pytest.mark.parametrize(
    ("command", "name"), [(errors.COMMAND, "tasks-api"), ("not_installed:main", ".")], ids=["installed", "checkout"]
)
def test_missing_extra_is_explained(monkeypatch: pytest.MonkeyPatch, command: str, name: str) -> None:
    monkeypatch.setattr(errors, "COMMAND", command)
    expected = (
        f"--metrics needs packages that are not installed: run {sys.executable} -m pip install '{name}[metrics]'."
    )

    with pytest.raises(ConfigurationError, match=f"^{re.escape(expected)}$"):
        require("no_such_module", "metrics", "--metrics")


def test_installed_extra_is_accepted() -> None:
    require("sys", "metrics", "--metrics")
