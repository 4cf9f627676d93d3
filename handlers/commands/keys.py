"""Create, list and revoke API keys."""

import re
import sys

from pydantic_settings import CliPositionalArg

from handlers.contract import document
from handlers.server import output
from handlers.settings import Settings
from models import keys
from models.database.address import existing_database
from models.database.errors import ConfigurationError
from models.database.migrate import prepare


class NewKey(Settings):
    name: CliPositionalArg[str]
    """name of the client: letters, digits, `.`, `_` and `-`"""

    def run(self) -> None:
        _check_name(self.name)
        prepare(self.database_url)
        print(keys.create(self.database_url, self.name, f"{document.NAME}_"))
        if error := output.stdout_error():
            keys.revoke(self.database_url, self.name)
            raise ConfigurationError(
                f"The key could not be shown ({error.strerror}) and was revoked: redirect the output, and try again."
            )
        print("Send it in the header Authorization: Bearer ...; it is not shown again.", file=sys.stderr)


class ListKeys(Settings):
    def run(self) -> None:
        existing_database(self.database_url)
        prepare(self.database_url)
        found = keys.find_all(self.database_url)
        for key in found:
            print(f"{key.name}  created {key.created_at}{f', revoked {key.revoked_at}' if key.revoked_at else ''}")
        if not found:
            print("There are no keys.", file=sys.stderr)


class RevokeKey(Settings):
    name: CliPositionalArg[str]
    """name of the client"""

    def run(self) -> None:
        _check_name(self.name)
        existing_database(self.database_url)
        prepare(self.database_url)
        keys.revoke(self.database_url, self.name)
        print(f"Revoked the key {self.name}.")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ConfigurationError("A key's name has 1 to 64 letters, digits, dots, underscores and hyphens.")
