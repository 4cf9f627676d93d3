"""Migrate, back up and copy a database."""

import sys
from pathlib import Path
from typing import Annotated

import click
from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg

from handlers.commands.parsing import Arguments
from handlers.contract.document import COMMAND, NAME
from handlers.settings import Settings
from models.database.errors import ConfigurationError, require
from models.database.migrate import migrate
from models.tables import all_tables
from models.transfer.backup import backup

# Unlike `str_strip_whitespace`, this accepts bytes that are no text in the encoding of the locale.
Stripped = Annotated[str, AfterValidator(str.strip)]


class Migrate(Settings):
    def run(self) -> None:
        print("Applied:", ", ".join(migrate(self.database_url)) or "nothing, the schema is up to date")


class Backup(Settings):
    file: CliPositionalArg[Path]
    """the copy, which must not exist"""

    def run(self) -> None:
        # A path has one slash where a URL has two.
        if ":/" in str(self.file):
            raise ConfigurationError(f"Name a file, not a URL, as in {COMMAND} backup copy.db.")
        rows = backup(self.database_url, self.file, [table._meta.table_name for table in all_tables()])
        print(f"Copied {rows} rows to {self.file}, and checked the copy.")


class Copy(Arguments):
    source: Stripped = Field(validation_alias="from", description=f"the file, such as sqlite:///{NAME}.db")
    target: Stripped = Field(validation_alias="to", description=f"the database, such as postgresql://host/{NAME}")

    def run(self) -> None:
        require("psycopg_pool", "postgresql", f"{COMMAND} copy")
        from models.transfer.copy import copy  # noqa: PLC0415, installed with an extra

        progress = copy(self.source, self.target, all_tables())
        _, total = next(progress)
        with click.progressbar(length=total, label="Copying and comparing", file=sys.stderr) as bar:
            for done, _ in progress:
                bar.update(done - bar.pos)
        print(f"Copied and compared {bar.pos // 2} rows.")
