"""The command of the service, such as `shop-api` for a Shop API, and the descriptions of its subcommands.

A subcommand is imported when it runs, so that `--version` and `--help` respond at once.
"""

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _importing() -> Iterator[None]:
    """Let Ctrl-C end the process without a traceback, and collect no garbage, of which imports leave little."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL if on_interrupt is signal.default_int_handler else on_interrupt)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, on_interrupt)


with _importing():
    import sys
    from importlib import import_module
    from typing import Any

    from handlers.arguments import Parser
    from handlers.contract import document
    from handlers.contract.document import COMMAND, PREFIX
    from handlers.server import output
    from models.database.errors import ConfigurationError

# Each with its class in the package `handlers.commands`, unless it has subcommands itself.
COMMANDS = {
    "serve": ("Serve the API; a SQLite file is created and migrated automatically.", "service.Serve"),
    "check": ("Check that the contract can be served, without serving it.", "service.Check"),
    "contract": ("Print the contract as the service publishes it: with the standard parts.", "contract.Contract"),
    "migrate": ("Migrate the database to the schema of this release.", "database.Migrate"),
    "key": ("Create, list and revoke API keys; once there is one, every call needs one.", ""),
    "key new": ("Create a key and print it; it is shown only once.", "keys.NewKey"),
    "key list": ("List all keys by name.", "keys.ListKeys"),
    "key revoke": ("Revoke a key; every node rejects it within a second.", "keys.RevokeKey"),
    "backup": ("Back up a SQLite file that is in use, and check the copy.", "database.Backup"),
    "copy": (
        "Copy all data from a SQLite file to an empty PostgreSQL database, and compare the two.",
        "database.Copy",
    ),
}


@output.guarded()
def main() -> None:
    """Run the command in `sys.argv`. After a user error, print one sentence and exit with status 1."""
    try:
        parsed = _parser().parse_args(sys.argv[1:])
        if parsed.version:
            print(COMMAND, document.raw()["info"]["version"])
        elif parsed.class_name:
            _instance(parsed).run()
        else:
            parsed.parser.print_help()
    except ConfigurationError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        # Shells report an interrupted command with this status.
        sys.exit(128 + signal.SIGINT)


def _parser() -> Parser:
    description = f"""{document.raw()["info"]["title"]}, served from its contract {document.PATH.name}.

Every flag can also be set in the environment or in a .env file: --port as {PREFIX}PORT and so on, but
--database-url as DATABASE_URL.
"""
    parser = Parser(COMMAND, description)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    groups = {"": parser.add_subparsers(title="subcommands")}
    for name, (text, class_name) in COMMANDS.items():
        group, _, word = name.rpartition(" ")
        subparser = groups[group].add_parser(word, help=text, description=text, class_name=class_name)
        if not class_name:
            groups[name] = subparser.add_subparsers(title="subcommands")
    return parser


def _instance(parsed: Any) -> Any:
    """Return the subcommand with its settings."""
    with _importing():
        module, _, class_name = parsed.class_name.rpartition(".")
        command = getattr(import_module(f"handlers.commands.{module}"), class_name)
        from handlers.commands.parsing import read  # noqa: PLC0415, only needed by subcommands
    return read(command, Parser(parsed.parser.prog, parsed.parser.description), parsed.arguments)
