"""The command `tasks-api`."""

import asyncio
import errno
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import click
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSubCommand,
    CliToggleFlag,
    PydanticBaseSettingsSource,
    SettingsError,
    get_subcommand,
)
from uvicorn import Config, Server
from uvicorn.config import LOGGING_CONFIG
from uvicorn.supervisors import ChangeReload

from handlers.contract import document as contract
from handlers.documentation import pages as documentation
from handlers.observability import access_log
from handlers.server.protocol import Protocol
from handlers.server.serve import BACKLOG, SharedPort, Workers
from handlers.settings import ServerSettings, Settings, variable
from models.database.errors import ConfigurationError
from models.database.migrate import migrate, prepare
from models.keys import create, find_all, revoke
from models.transfer.backup import backup
from models.transfer.copy import copy

# For how many seconds an idle connection stays open: longer than clients and proxies keep one in their pools, which is
# up to a minute, since what they send on a connection that is just being closed is lost.
KEEP_ALIVE = 75
# The exit status of a command that Ctrl-C ended, as shells have it: 128 and the number of the signal.
INTERRUPTED = 128 + signal.SIGINT
# How many files a process has open beside its connections, at the most.
OTHER_FILES = 64
# That of uvicorn, and what it lacks: a place for our own warnings, and the access log, whose lines are ready.
LOGGING: dict[str, Any] = LOGGING_CONFIG | {
    "root": {"handlers": ["default"], "level": "WARNING"},
    "formatters": LOGGING_CONFIG["formatters"] | {"as_it_is": {"format": "%(message)s"}},
    "handlers": LOGGING_CONFIG["handlers"]
    | {"lines": {"class": "logging.StreamHandler", "formatter": "as_it_is", "stream": "ext://sys.stdout"}},
    "loggers": LOGGING_CONFIG["loggers"]
    | {access_log.logger.name: {"handlers": ["lines"], "level": "INFO", "propagate": False}},
}


class Serve(ServerSettings):
    """Serve the contract; a SQLite file is created and migrated by itself."""


class Migrate(Settings):
    """Bring the database's schema up to date."""


def _key_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise ConfigurationError("Name a key with 1 to 64 letters, digits, dots, underscores and hyphens.")
    return text


class NewKey(Settings):
    """Make a key, and print it; it is shown only once."""

    name: Annotated[
        CliPositionalArg[str],
        AfterValidator(_key_name),
        Field(description="whose it is: letters, digits, `.`, `_` and `-`"),
    ]


class ListKeys(Settings):
    """List the keys that were made, by name."""


class RevokeKey(Settings):
    """Let a key be valid no longer, on any node; it takes a second at the most."""

    name: Annotated[CliPositionalArg[str], Field(description="whose it is")]


class Key(BaseModel):
    """Make, list and revoke the keys of callers; once there is one, every call needs one."""

    new: CliSubCommand[NewKey] = Field(description=NewKey.__doc__)
    # Not `list`, which is a type below.
    all: CliSubCommand[ListKeys] = Field(validation_alias="list", description=ListKeys.__doc__)
    revoke: CliSubCommand[RevokeKey] = Field(description=RevokeKey.__doc__)


class Backup(Settings):
    """Copy a SQLite file while the service goes on, and check the copy."""

    file: Annotated[CliPositionalArg[Path], Field(description="the copy, which must not be there yet")]


class Copy(BaseModel):
    """Move all tasks from a SQLite file to an empty database of a server, and compare what it keeps."""

    source: Annotated[str, Field(validation_alias="from", description="the file, as in sqlite:///tasks.db")]
    target: Annotated[str, Field(validation_alias="to", description="the database, as in postgresql://host/tasks")]


class Command(
    BaseSettings,
    cli_prog_name="tasks-api",
    cli_exit_on_error=False,
    cli_avoid_json=True,
    cli_implicit_flags="dual",
    cli_kebab_case=True,
):
    """A contract-first tasks API.

    What a flag sets can be set in the environment or in a file .env too: --port as TASKS_API_PORT and so on, but
    --database-url as DATABASE_URL.
    """

    version: Annotated[CliToggleFlag[bool], Field(description="print the version and exit")] = False
    serve: CliSubCommand[Serve] = Field(description=Serve.__doc__)
    migrate: CliSubCommand[Migrate] = Field(description=Migrate.__doc__)
    key: CliSubCommand[Key] = Field(description=Key.__doc__)
    backup: CliSubCommand[Backup] = Field(description=Backup.__doc__)
    # Not `copy`, which is a method of every model.
    move: CliSubCommand[Copy] = Field(validation_alias="copy", description=Copy.__doc__)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing from the environment, where `TASKS_API_VERSION` may be a version; commands read settings."""
        return (init_settings,)


def main() -> None:
    """Run the command that the arguments name; a fault of the user's ends it with one sentence and status 1."""
    try:
        command = CliApp.run(Command, cli_exit_on_error=False)
        match get_subcommand(command, is_required=False):
            case Serve() as settings:
                with _metrics_at(settings.metrics):
                    serve(settings)
            case Migrate() as settings:
                print("Applied:", ", ".join(migrate(settings.database_url)) or "nothing, the schema is up to date")
            case Key() as key:
                use_keys(get_subcommand(key, is_required=False))
            case Backup() as settings:
                tasks = backup(settings.database_url, settings.file)
                print(f"Copied to {settings.file}, and checked; tasks in the copy: {tasks}")
            case Copy() as addresses:
                copy_with_progress(addresses.source, addresses.target)
            case _ if command.version:
                print("tasks-api", version("tasks-api"))
            case _:
                CliApp.run(Command, ["--help"])
    except ValidationError as error:
        sys.exit("\n".join(_sentence(fault["loc"][-1], fault["msg"]) for fault in error.errors()))
    except SettingsError as error:
        sys.exit(f"{str(error).removeprefix('error parsing CLI: ')}; see tasks-api --help.")
    except ConfigurationError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: The database or the address cannot be used, or the workers cannot count together.
    """
    if settings.rate_limit and settings.workers > 1 and not settings.rate_limit_storage:
        raise ConfigurationError(
            "Several workers can keep to --rate-limit only together: name a Redis server in --rate-limit-storage."
        )
    _allow_files(settings)
    prepare(settings.database_url)
    listener = _bind(settings.host, settings.port)
    if not settings.insecure_open and not ip_address(listener.getsockname()[0]).is_loopback:
        _ensure_keys(settings.database_url, listener)
    # Processes that uvicorn starts make their application from what the environment says.
    os.environ.update({variable(name): str(value) for name, value in settings.model_dump().items()})
    config = Config(
        "handlers.application:create_app",
        factory=True,
        http=cast(
            type[asyncio.Protocol],
            partial(Protocol, patience=settings.request_timeout, max_connections=settings.max_connections),
        ),
        ws="none",
        workers=settings.workers,
        reload=settings.reload,
        reload_includes=["*.py", contract.PATH.name] if settings.reload else None,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=settings.shutdown_timeout,
        log_level="warning",
        log_config=LOGGING,
    )
    announcement = _announcement(settings.host, listener.getsockname()[1])
    # uvicorn raises the signal again when it has shut down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with suppress(KeyboardInterrupt):
        if settings.workers > 1 and not settings.reload:
            Workers(config, [SharedPort.in_place_of(listener)], announcement).run()
            return
        listener.listen(BACKLOG)
        print(announcement, flush=True)
        if settings.reload:
            ChangeReload(config, target=Server(config).run, sockets=[listener]).run()
        else:
            Server(config).run(sockets=[listener])


def use_keys(command: object) -> None:
    """Make, list or revoke keys.

    Raises:
        ConfigurationError: The database cannot be used, or there is a key with this name, or none.
    """
    match command:
        case NewKey(database_url=url, name=name):
            prepare(url)
            print(create(url, name))
            print("Send it in the header Authorization: Bearer ...; it is not shown again.", file=sys.stderr)
        case RevokeKey(database_url=url, name=name):
            prepare(url)
            revoke(url, name)
            print(f"The key {name} is no longer valid.")
        case ListKeys(database_url=url):
            prepare(url)
            for key in find_all(url):
                print(f"{key.name}  made {key.created_at}{f', revoked {key.revoked_at}' if key.revoked_at else ''}")
        case _:
            CliApp.run(Command, ["key", "--help"])


def copy_with_progress(source: str, target: str) -> None:
    """Move all tasks from a SQLite file to a server, and show how far that is.

    Raises:
        ConfigurationError: One of the two cannot be used, or is not as it should be.
    """
    with click.progressbar(length=1, label="Copying and comparing", file=sys.stderr) as bar:
        for done, total in copy(source, target):
            bar.length = total
            bar.update(done - bar.pos)
    print(f"Copied {bar.pos // 2} rows, each of which was compared.")


@contextmanager
def _metrics_at(address: str) -> Iterator[None]:
    """Serve the metrics of this process and of those that it starts.

    Args:
        address: A host and a port; empty for no metrics.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    if not address:
        yield
        return
    # What another program has counted, and perhaps told us where, is no concern of ours.
    with TemporaryDirectory(prefix="tasks-api-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        from handlers.observability import metrics  # noqa: PLC0415, as in observation.py; and not before the folder is known

        metrics.serve(address)
        yield


def _announcement(host: str, port: int) -> str:
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return f"Tasks API at {address}{contract.path_of('listTasks')}, documentation at {address}{documentation.PATH}"


def _allow_files(settings: ServerSettings) -> None:
    """Let each process have as many open files as its connections need."""
    needed = settings.max_connections + settings.database_connections + OTHER_FILES
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and needed > most:
        raise ConfigurationError(
            f"--max-connections {settings.max_connections} needs {needed} open files, and a process may have {most}:"
            " raise that, as with ulimit -n, or lower the number."
        )
    enough = allowed if allowed == resource.RLIM_INFINITY else max(allowed, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))


def _ensure_keys(database_url: str, listener: socket.socket) -> None:
    if not find_all(database_url):
        address = listener.getsockname()[0]
        listener.close()
        raise ConfigurationError(
            f"Whoever reaches {address} could read and change every task: make a key with tasks-api key new NAME,"
            " or say --insecure-open."
        )


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Connections of a service that has ended may still linger on the port; one that listens is in the way all the same.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        return listener
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Port {port} is taken: stop what listens there, or choose another with --port."
            ) from error
        raise ConfigurationError(f"Cannot listen on {host} port {port}: {error.strerror}.") from error


def _sentence(name: str | int, message: str) -> str:
    flag, message = f"--{str(name).replace('_', '-')}", message.removeprefix("Value error, ")
    return (
        f"{flag} or {variable(str(name))}: {message}." if name in ServerSettings.model_fields else f"{flag}: {message}."
    )
