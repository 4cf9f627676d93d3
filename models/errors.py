"""What can go wrong with a database, whichever it is."""


class ConfigurationError(Exception):
    """The database cannot be used as it is configured; the message says what to do."""


class UnavailableError(Exception):
    """The database is busy or out of reach for now; the message says why, and is for the log."""
