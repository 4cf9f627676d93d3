"""Errors of the configuration and of the storage layer."""

from importlib.util import find_spec


class ConfigurationError(Exception):
    """The configuration cannot work; the message says what to do."""


class MissingError(Exception):
    """No row has this id."""


class ChangedError(Exception):
    """The row changed since the client read it: its version is none of those expected."""


class UnavailableError(Exception):
    """The database is busy or unreachable; the message is for the log."""


def require(module: str, extra: str, setting: str) -> None:
    """Raise ConfigurationError if a module that a setting needs is not installed; an extra installs it."""
    if not find_spec(module):
        raise ConfigurationError(f"{setting} needs more packages: pip install 'tasks-api[{extra}]'.")
