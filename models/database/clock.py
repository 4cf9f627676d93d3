"""The current time in the format of the contract."""

from datetime import UTC, datetime, timedelta


def now(ago: timedelta = timedelta(0)) -> str:
    """Return the time now, or some time ago, in RFC 3339 format, in UTC and with milliseconds."""
    return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")
