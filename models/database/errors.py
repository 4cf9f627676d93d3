"""Errors of the configuration and of the databases."""

import sys
from importlib.util import find_spec


class ConfigurationError(Exception):
    """The service cannot run with its configuration. The message says how to fix it."""


class MissingError(Exception):
    """No row has this id."""


class ChangedError(Exception):
    """The row has changed since the client read it: it has another version than expected."""


class UnavailableError(Exception):
    """The database is busy or cannot be reached. The message is for the log."""


def require(module: str, extra: str, setting: str) -> None:
    """Raise ConfigurationError if a setting needs a module that is not installed."""
    if not find_spec(module):
        pip = f"{sys.executable} -m pip install 'tasks-api[{extra}]'"
        raise ConfigurationError(f"{setting} needs packages that are not installed: run {pip}.")
