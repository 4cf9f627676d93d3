"""The current time, as the contract writes it."""

from datetime import UTC, datetime, timedelta


def now(ago: timedelta = timedelta(0)) -> str:
    """Return the current time, or a time in the past, in RFC 3339, UTC, with milliseconds.

    Args:
        ago: How long before the current time.
    """
    return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")
