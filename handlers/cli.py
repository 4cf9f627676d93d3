"""The command of the service, such as `shop-api` for a Shop API, and its subcommands."""

import signal

# Ctrl-C during the imports, which take half a second, ends the process without a traceback.
_on_interrupt = signal.getsignal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.SIG_DFL if _on_interrupt is signal.default_int_handler else _on_interrupt)

import os
import re
import sys
from argparse import RawDescriptionHelpFormatter
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import click
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSettingsSource,
    CliSubCommand,
    CliToggleFlag,
    get_subcommand,
)

from handlers import environment
from handlers.application import create_app
from handlers.arguments import Parser
from handlers.contract import document
from handlers.contract.document import COMMAND, NAME
from handlers.server import output
from handlers.server.serve import serve
from handlers.settings import PREFIX, ServerSettings, Settings, expected, variable
from models import keys
from models.database.address import existing_database
from models.database.errors import ConfigurationError, require
from models.database.migrate import migrate, prepare
from models.tables import all_tables
from models.transfer.backup import backup

# Unlike `str_strip_whitespace`, this accepts bytes that are no text in the encoding of the locale.
Stripped = Annotated[str, AfterValidator(str.strip)]
SHORT_VALUE = r"""[\w.,+"' -]{1,20}"""


class Serve(ServerSettings):
    """Serve the API; a SQLite file is created and migrated automatically."""

    def cli_cmd(self) -> None:
        if not self.metrics:
            serve(self)
            return
        require("prometheus_client", "metrics", "--metrics")
        # Always use a new folder: one that the environment names may hold the metrics of another program.
        with TemporaryDirectory(prefix=f"{COMMAND}-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            from handlers.observability import metrics  # noqa: PLC0415, after the variable that it needs

            metrics.serve(self.metrics)
            serve(self)


class Check(ServerSettings):
    """Check that the contract can be served, without serving it."""

    def cli_cmd(self) -> None:
        create_app(self.model_copy(update={"validate_responses": True}))
        print(f"{document.PATH.name}: {len(document.operations())} operations, no faults.")


class Contract(BaseModel):
    """Print the contract as the service publishes it: with the standard parts."""

    def cli_cmd(self) -> None:
        # The locale may lack letters of the contract.
        cast("TextIOWrapper", sys.stdout).reconfigure(encoding="utf-8")
        print(document.to_yaml(document.raw()).decode(), end="")


class Migrate(Settings):
    """Migrate the database to the schema of this release."""

    def cli_cmd(self) -> None:
        print("Applied:", ", ".join(migrate(self.database_url)) or "nothing, the schema is up to date")


class NewKey(Settings):
    """Create a key and print it; it is shown only once."""

    name: CliPositionalArg[str]
    """name of the client: letters, digits, `.`, `_` and `-`"""

    def cli_cmd(self) -> None:
        _check_key_name(self.name)
        prepare(self.database_url)
        print(keys.create(self.database_url, self.name, f"{NAME}_"))
        if error := output.stdout_error():
            keys.revoke(self.database_url, self.name)
            raise ConfigurationError(
                f"The key could not be shown ({error.strerror}) and was revoked: redirect the output, and try again."
            )
        print("Send it in the header Authorization: Bearer ...; it is not shown again.", file=sys.stderr)


class ListKeys(Settings):
    """List all keys by name."""

    def cli_cmd(self) -> None:
        existing_database(self.database_url)
        prepare(self.database_url)
        found = keys.find_all(self.database_url)
        for key in found:
            print(f"{key.name}  created {key.created_at}{f', revoked {key.revoked_at}' if key.revoked_at else ''}")
        if not found:
            print("There are no keys.", file=sys.stderr)


class RevokeKey(Settings):
    """Revoke a key; every node rejects it within a second."""

    name: CliPositionalArg[str]
    """name of the client"""

    def cli_cmd(self) -> None:
        _check_key_name(self.name)
        existing_database(self.database_url)
        prepare(self.database_url)
        keys.revoke(self.database_url, self.name)
        print(f"Revoked the key {self.name}.")


class Key(BaseModel):
    """Create, list and revoke API keys; once there is one, every call needs one."""

    new: CliSubCommand[NewKey] = Field(description=NewKey.__doc__)
    # The name `list` would hide the type `list`.
    all: CliSubCommand[ListKeys] = Field(validation_alias="list", description=ListKeys.__doc__)
    revoke: CliSubCommand[RevokeKey] = Field(description=RevokeKey.__doc__)

    def cli_cmd(self) -> None:
        _run_subcommand(self, "key")


class Backup(Settings):
    """Back up a SQLite file that is in use, and check the copy."""

    file: CliPositionalArg[Path]
    """the copy, which must not exist"""

    def cli_cmd(self) -> None:
        # A path has one slash where a URL has two.
        if ":/" in str(self.file):
            raise ConfigurationError(f"Name a file, not a URL, as in {COMMAND} backup copy.db.")
        rows = backup(self.database_url, self.file, [table._meta.table_name for table in all_tables()])
        print(f"Copied {rows} rows to {self.file}, and checked the copy.")


class Copy(BaseModel):
    """Copy all data from a SQLite file to an empty PostgreSQL database, and compare the two."""

    source: Stripped = Field(validation_alias="from", description=f"the file, such as sqlite:///{NAME}.db")
    target: Stripped = Field(validation_alias="to", description=f"the database, such as postgresql://host/{NAME}")

    def cli_cmd(self) -> None:
        require("psycopg_pool", "postgresql", f"{COMMAND} copy")
        from models.transfer.copy import copy  # noqa: PLC0415, installed with an extra

        progress = copy(self.source, self.target, all_tables())
        _, total = next(progress)
        with click.progressbar(length=total, label="Copying and comparing", file=sys.stderr) as bar:
            for done, _ in progress:
                bar.update(done - bar.pos)
        print(f"Copied and compared {bar.pos // 2} rows.")


class Command(BaseSettings, cli_prog_name=COMMAND, cli_avoid_json=True, cli_implicit_flags="dual", cli_kebab_case=True):
    __doc__ = f"""{document.raw()["info"]["title"]}, served from its contract {document.PATH.name}.

Every flag can also be set in the environment or in a .env file: --port as {variable("port")} and so on, but
--database-url as DATABASE_URL.
"""

    version: CliToggleFlag[bool] = Field(default=False, description="print the version and exit")
    serve: CliSubCommand[Serve] = Field(description=Serve.__doc__)
    check: CliSubCommand[Check] = Field(description=Check.__doc__)
    contract: CliSubCommand[Contract] = Field(description=Contract.__doc__)
    migrate: CliSubCommand[Migrate] = Field(description=Migrate.__doc__)
    key: CliSubCommand[Key] = Field(description=Key.__doc__)
    backup: CliSubCommand[Backup] = Field(description=Backup.__doc__)
    # The name `copy` would hide a method of every Pydantic model.
    move: CliSubCommand[Copy] = Field(validation_alias="copy", description=Copy.__doc__)

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> Any:
        """Ignore the environment, where a variable such as `SHOP_API_VERSION` may mean something else."""
        return (init_settings,)

    def cli_cmd(self) -> None:
        if self.version:
            print(COMMAND, document.raw()["info"]["version"])
        else:
            _run_subcommand(self)


@output.guarded()
def main() -> None:
    """Run the command in `sys.argv`. After a user error, print one sentence and exit with status 1."""
    try:
        parser = Parser(
            COMMAND, description=Command.__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False
        )
        CliApp.run(Command, cli_settings_source=CliSettingsSource(Command, root_parser=parser))
    except ValidationError as error:
        sys.exit("\n".join(map(_sentence, error.errors())))
    except ConfigurationError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        # Shells report an interrupted command with this status.
        sys.exit(128 + signal.SIGINT)


def _run_subcommand(command: BaseModel, *name: str) -> None:
    if subcommand := get_subcommand(command, is_required=False):
        if isinstance(subcommand, Settings):
            for sentence in environment.misspelt(PREFIX, [variable(name) for name in ServerSettings.model_fields]):
                print(sentence, file=sys.stderr)
        CliApp.run_subcommand(command)
    else:
        CliApp.run(Command, [*name, "--help"])


def _check_key_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ConfigurationError("A key's name has 1 to 64 letters, digits, dots, underscores and hyphens.")


def _sentence(fault: ErrorDetails) -> str:
    """Return an error message that starts with the flag and the environment variable of the invalid setting."""
    name = str(fault["loc"][-1])
    flag = f"--{name.replace('_', '-')}"
    if fault["type"] == "missing":
        (description,) = (field.description for field in Copy.model_fields.values() if field.validation_alias == name)
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


signal.signal(signal.SIGINT, _on_interrupt)
