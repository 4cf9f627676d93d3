"""Read the arguments of a command into its settings."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource

from handlers import environment
from handlers.arguments import Parser
from handlers.contract.document import PREFIX
from handlers.settings import ServerSettings, Settings, expected, variable

SHORT_VALUE = r"""[\w.,+"' -]{1,20}"""


class Arguments(BaseSettings):
    """The arguments of a command without settings: it ignores the environment."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> Any:
        return (init_settings,)


def read(command: Any, parser: Parser, arguments: Sequence[str]) -> Any:
    """Return an instance of a command for its arguments. If they are invalid, exit with a sentence for each fault."""
    options: Any = {"cli_avoid_json": True, "cli_implicit_flags": "dual", "cli_kebab_case": True}
    try:
        source: CliSettingsSource[Any] = CliSettingsSource(command, root_parser=parser, **options)
        instance = CliApp.run(command, [*arguments], cli_settings_source=source)
    except ValidationError as error:
        sys.exit("\n".join(_sentence(command, fault) for fault in error.errors()))
    if isinstance(instance, Settings):
        for sentence in environment.misspelt(PREFIX, [variable(name) for name in ServerSettings.model_fields]):
            print(sentence, file=sys.stderr)
    return instance


def _sentence(command: type[BaseSettings], fault: ErrorDetails) -> str:
    """Return an error message that starts with the flag and the environment variable of the invalid setting."""
    name = str(fault["loc"][-1])
    flag = f"--{name.replace('_', '-')}"
    if fault["type"] == "missing":
        (description,) = (
            field.description for field in command.model_fields.values() if field.validation_alias == name
        )
        return f"{flag} is missing: name {description}."
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] != "value_error":
        value = fault["input"] or "an empty value"
        # Other values may be URLs with passwords.
        message = f"write {expected(name)}, not {value if re.fullmatch(SHORT_VALUE, value) else 'this value'}"
    places = f"{flag} or {variable(name)}"
    if (other := environment.PLATFORM_VARIABLES.get(name, "")) in os.environ:
        places = f"{flag}, {variable(name)} or {other}"
    return f"{places}: {message}."
