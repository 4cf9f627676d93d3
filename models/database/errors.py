"""Errors of the configuration and of the databases."""

import sys
from importlib.util import find_spec

# The entry point of the command, by which the distribution that contains this package is found.
COMMAND = "handlers.cli:main"


class ConfigurationError(Exception):
    """The service cannot run with its configuration. The message says how to fix it."""


class MissingError(Exception):
    """No row has this id."""


class ChangedError(Exception):
    """The row has changed since the client read it. `version` is its current version, or 0 if that is unknown."""

    def __init__(self, version: int = 0) -> None:
        self.version = version


class ConstraintError(Exception):
    """The database refuses a write."""


class DuplicateError(ConstraintError):
    """Another row has the same values in unique columns."""


class ForeignKeyError(ConstraintError):
    """The row refers to a row that does not exist, or other rows still refer to the row."""


class UnavailableError(Exception):
    """The database is busy or cannot be reached. The message is for the log."""


def require(module: str, extra: str, setting: str) -> None:
    """Raise ConfigurationError if a setting needs a module that is not installed."""
    if not find_spec(module):
        from importlib.metadata import entry_points  # noqa: PLC0415, slow to import

        commands = entry_points(group="console_scripts")
        # A checkout may be used without installing it.
        name = next((entry.dist.name for entry in commands if entry.value == COMMAND and entry.dist), ".")
        pip = f"{sys.executable} -m pip install '{name}[{extra}]'"
        raise ConfigurationError(f"{setting} needs packages that are not installed: run {pip}.")
