"""Read settings from environment variables and from the file `.env`."""

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, PydanticBaseSettingsSource

from models.database.errors import ConfigurationError

FILE = Path(".env")
# Settings that hosting platforms set under names without the prefix.
PLATFORM_VARIABLES = {"port": "PORT"}
# Variables with another purpose, without the prefix. Those of a Service named `shop-api` begin with SHOP_API_, as do
# those of a Service named `shop-api-metrics`.
FOREIGN = re.compile(
    r"""
      KEY=.*                                                # clients keep an API key in it
    | (\w+_)?SERVICE_(HOST|PORT(_\w+)?)=.*                  # Kubernetes
    | (\w+_)?PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*   # Kubernetes, and `docker --link`
    | (\w+_)?PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp):/.*  # Kubernetes, and `docker --link`
    | (\w+_)?(NAME=/|ENV_\w+=).*                            # `docker --link`
    """,
    re.DOTALL | re.VERBOSE,
)
CLOSE = 0.9  # the similarity from which a variable without the prefix looks like a setting


def sources(settings_class: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:
    """Return the sources of settings, in the order of their precedence."""
    given = {name: os.environ.get(variable, "").strip() for name, variable in PLATFORM_VARIABLES.items()}
    return (
        _source(settings_class, os.environ),
        _source(settings_class, _read_file()),
        InitSettingsSource(settings_class, {name: value for name, value in given.items() if value}),
    )


def misspelt(prefix: str, variables: list[str]) -> Iterator[str]:
    """Yield a sentence for each variable that is set and looks like one of these variables, but is none of them."""
    by_rest = {variable.removeprefix(prefix): variable for variable in variables}
    for name, value in {**_read_file(), **os.environ}.items():
        upper = name.upper()
        if upper in variables or _is_foreign(prefix, name, value):
            continue
        if upper.startswith(prefix):
            close = [by_rest[rest] for rest in get_close_matches(upper.removeprefix(prefix), by_rest, 1)]
        elif not (close := get_close_matches(upper, variables, 1, CLOSE)):
            continue
        yield f"{name} is not a setting and was ignored{f'; did you mean {close[0]}?' if close else '.'}"


def _source(settings_class: type[BaseSettings], variables: Mapping[str, str | None]) -> EnvSettingsSource:
    source = EnvSettingsSource(settings_class)
    prefix = source.env_prefix.upper()
    own = {name: value for name, value in variables.items() if not _is_foreign(prefix, name, value)}
    source.env_vars = {name.lower(): value for name, value in own.items()}
    return source


def _is_foreign(prefix: str, name: str, value: str | None) -> bool:
    return bool(FOREIGN.fullmatch(f"{name.upper().removeprefix(prefix)}={value}"))


def _read_file() -> dict[str, str | None]:
    """Return the variables in `.env`. Raise ConfigurationError if a line cannot be read, instead of ignoring it."""
    try:
        content = FILE.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        message = f"{FILE.absolute()} cannot be read: {error.strerror}; make it a readable file, or remove it."
        raise ConfigurationError(message) from error
    try:
        text = content.decode("utf-8")
        position = content.find(b"\0")
    except UnicodeDecodeError as error:
        position = error.start
    if position >= 0:
        # Not the error as the cause: it contains the file.
        raise _line_error(len(content[: position + 1].splitlines()), "the file is not in UTF-8; save it in UTF-8")
    # Python translates the ends of lines.
    text = StringIO(text.removeprefix("\ufeff"), newline=None).read()
    for binding in parse_stream(StringIO(text)):
        is_assignment = binding.value is not None and re.fullmatch(r"[\w.-]+", binding.key or "")
        if binding.error or (binding.key is not None and not is_assignment):
            statement = binding.original.string
            empty_lines = statement[: len(statement) - len(statement.lstrip())].count("\n")
            raise _line_error(binding.original.line + empty_lines, "write NAME=value, and close every quote")
    return dotenv_values(stream=StringIO(text))


def _line_error(line: int, hint: str) -> ConfigurationError:
    return ConfigurationError(f"{FILE.absolute()}, line {line}: {hint}.")
