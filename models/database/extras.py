"""Check for packages that are installed with an extra."""

from importlib.util import find_spec

from models.database.errors import ConfigurationError


def require(module: str, extra: str, setting: str) -> None:
    """Raise ConfigurationError if a module that a setting needs is not installed; an extra installs it."""
    if not find_spec(module):
        raise ConfigurationError(f"{setting} needs more packages: pip install 'tasks-api[{extra}]'.")
