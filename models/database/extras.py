"""Check for packages that are installed with an extra."""

from importlib.util import find_spec

from models.database.errors import ConfigurationError


def require(module: str, extra: str, setting: str) -> None:
    """Check that a package is installed.

    Args:
        module: The name under which it is imported.
        extra: The extra of this project that installs it.
        setting: The setting that needs it.

    Raises:
        ConfigurationError: It is not installed.
    """
    if not find_spec(module):
        raise ConfigurationError(f"{setting} needs more packages: pip install 'tasks-api[{extra}]'.")
