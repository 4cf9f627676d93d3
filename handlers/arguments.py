"""Parse the command line. Any argument may hold a password, so errors repeat only the names of flags."""

import re
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from models.database.errors import ConfigurationError

FLAG = re.compile(r"(--[a-z][a-z_-]*)(=.*)?", re.DOTALL | re.IGNORECASE | re.ASCII)


class Parser(ArgumentParser):
    """Raises ConfigurationError if the arguments are wrong. Every command has a parser of its own.

    One with the name of a class only keeps the arguments, for the parser of that class.
    """

    def __init__(self, prog: str, description: str, class_name: str = "") -> None:
        formatter = RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=formatter, allow_abbrev=False)
        self.class_name = class_name
        self.set_defaults(parser=self, class_name=class_name)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.class_name:
            return Namespace(parser=self, class_name=self.class_name, arguments=args), []
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown[0], args)
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        # argparse would repeat the value.
        message = re.sub("ignored explicit argument.*", "takes no value", message, flags=re.DOTALL)
        message = message.replace("the following arguments are required:", f"{self.prog} needs")
        raise ConfigurationError(f"{message}; see {self.prog} --help.")

    def _refuse(self, unknown: str, arguments: Sequence[str]) -> NoReturn:
        if flag := FLAG.fullmatch(unknown):
            self._suggest(f"flag {flag[1]}", flag[1], re.findall("--[a-z-]+", self.format_usage()))
        before = arguments[: arguments.index(unknown)]
        flag = FLAG.fullmatch(before[-1]) if before else None
        self.error(f"{flag[1]} takes no value" if flag and not flag[2] else f"{self.prog} has no such argument")

    def _check_value(self, action: Action, value: Any) -> None:
        # Only a command has choices.
        if action.choices is not None and value not in action.choices:
            self._suggest("such command", value, action.choices)

    def _suggest(self, kind: str, name: str, names: Iterable[str]) -> NoReturn:
        message = f"{self.prog} has no {kind}"
        if found := get_close_matches(name.lower(), names, 1):
            raise ConfigurationError(f"{message}; did you mean {found[0]}?")
        self.error(message)
