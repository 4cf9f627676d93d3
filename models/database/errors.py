"""What can go wrong with a database, whichever it is."""


class ConfigurationError(Exception):
    """The service cannot be run as it is configured; the message says what to do."""


class MissingError(Exception):
    """There is no row with this id."""


class ChangedError(Exception):
    """The row has none of the versions that the caller takes it to have."""


class UnavailableError(Exception):
    """The database is busy or out of reach for now; the message says why, and is for the log."""
