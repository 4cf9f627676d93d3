"""Errors of the configuration: a missing extra."""

import re
import sys

import pytest

from models.database.errors import ConfigurationError, require


def test_missing_extra_is_explained() -> None:
    expected = (
        f"--metrics needs packages that are not installed: run {sys.executable} -m pip install 'tasks-api[metrics]'."
    )

    with pytest.raises(ConfigurationError, match=f"^{re.escape(expected)}$"):
        require("no_such_module", "metrics", "--metrics")


def test_installed_extra_is_accepted() -> None:
    require("sys", "metrics", "--metrics")
