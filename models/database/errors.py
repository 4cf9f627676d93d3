"""Errors of the storage layer, and of the configuration."""


class ConfigurationError(Exception):
    """The configuration cannot work; the message says what to do."""


class MissingError(Exception):
    """No row has this id."""


class ChangedError(Exception):
    """The row changed since the client read it: its version is none of those expected."""


class UnavailableError(Exception):
    """The database is busy or unreachable; the message is for the log."""
