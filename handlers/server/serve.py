"""Run the application with uvicorn: listen, start workers, set limits and logging."""

import errno
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from copy import deepcopy
from functools import partial
from ipaddress import ip_address
from typing import Any

from uvicorn import Config, Server
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess

from handlers.access.security import without_keys
from handlers.application import create_app
from handlers.contract import document
from handlers.documentation import pages
from handlers.observability import access_log
from handlers.server.protocol import Protocol
from handlers.settings import ServerSettings, variable
from models import keys
from models.database.errors import ConfigurationError
from models.database.migrate import prepare
from models.tables import check_columns

BACKLOG = 2048  # maximum number of connections that wait to be accepted
START_TIMEOUT = 30  # seconds for a worker to start
OTHER_FILES = 64  # maximum number of open files of a process, in addition to its connections
# uvicorn's configuration, with handlers for the warnings of other loggers and for the access log.
LOGGING: dict[str, Any] = deepcopy(LOGGING_CONFIG)
LOGGING["root"] = {"handlers": ["default"], "level": "WARNING"}
LOGGING["handlers"]["access_log"] = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
LOGGING["loggers"][access_log.logger.name] = {"handlers": ["access_log"], "level": "INFO", "propagate": False}


class SharedPort(socket.socket):
    """A port for several workers. Every worker that unpickles this object listens with its own socket (SO_REUSEPORT).

    The kernel distributes connections evenly among sockets. With one shared socket, the first worker to wake up would
    accept most of the connections.
    """

    def __init__(self, listener: socket.socket) -> None:
        """Close a bound socket, and bind its port for sharing."""
        super().__init__(listener.family)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            self.setsockopt(socket.SOL_SOCKET, option, 1)
        address = listener.getsockname()
        listener.close()
        self.bind(address)

    def __reduce__(self) -> tuple[Any, ...]:
        listen = partial(socket.create_server, family=self.family, backlog=BACKLOG, reuse_port=True)
        return listen, (self.getsockname(),)


class AnnouncedServer(Server):
    """uvicorn's server, which here prints an announcement once the application has started."""

    announcement = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.announcement, flush=True)


class Workers(Multiprocess):
    """uvicorn's supervisor of worker processes, which here prints an announcement once all workers are ready."""

    def __init__(self, config: Config, sockets: list[socket.socket], announcement: str) -> None:
        super().__init__(config, sockets)
        self.announcement = announcement

    def init_processes(self) -> None:
        super().init_processes()
        # Without an announcement, `run` handles a signal, or ends because a worker failed.
        if all(process.wait_until_ready(START_TIMEOUT, self.should_exit) for process in self.processes):
            print(self.announcement, flush=True)

    def run(self) -> None:
        super().run()
        if any(process.exitcode == STARTUP_FAILURE for process in self.processes):
            sys.exit(1)


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raise ConfigurationError if the contract or a setting cannot be used.

    If the application does not start, the process exits with status 1. With `--reload`, it waits for the next change.
    """
    if settings.rate_limit and settings.workers > 1 and not settings.rate_limit_storage:
        raise ConfigurationError(
            "Several workers need a common count for --rate-limit: name a Redis server with --rate-limit-storage."
        )
    create_app(settings)
    _raise_file_limit(settings)
    prepare(settings.database_url)
    check_columns(settings.database_url)
    listener = _bind(settings.host, settings.port, settings.metrics)
    address, port = listener.getsockname()[:2]
    contract = document.raw()
    is_open = without_keys(contract) != contract and not keys.find_all(settings.database_url)
    if is_open and not settings.insecure_open and not ip_address(address).is_loopback:
        listener.close()
        raise ConfigurationError(
            f"Anyone who reaches {address} could read and change everything: create an API key with"
            f" {document.COMMAND} key new NAME, or allow that with --insecure-open."
        )
    # Worker processes read the settings from the environment.
    os.environ.update({variable(name): str(value) for name, value in settings.model_dump().items()})
    config = _config(settings)
    url = f"http://[{settings.host}]:{port}" if ":" in settings.host else f"http://{settings.host}:{port}"
    base_url, title = f"{url}{document.base_path()}", contract["info"]["title"]
    announcement = f"{title} at {base_url}, documentation at {url}{pages.PATH}"
    # uvicorn raises the signal again after its shutdown. Then exit with status 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with suppress(KeyboardInterrupt), listener:
        if settings.workers > 1 and not settings.reload:
            Workers(config, [SharedPort(listener)], announcement).run()
            return
        listener.listen(BACKLOG)
        server = AnnouncedServer(config)
        server.announcement = announcement
        if settings.reload:
            ChangeReload(config, target=server.run, sockets=[listener]).run()
            return
        try:
            server.run(sockets=[listener])
        except SystemExit as end:
            # The application has not started, or SIGTERM ended it.
            sys.exit(1 if end.code else 0)


def application() -> Any:
    """Create the application. If it cannot be configured, exit with the status after which uvicorn does not retry."""
    try:
        return create_app()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(STARTUP_FAILURE)


def _config(settings: ServerSettings) -> Config:
    # With 0, uvicorn would log an error although no request runs.
    shutdown_timeout: Any = settings.shutdown_timeout or 0.001
    protocol: Any = partial(Protocol, timeout=settings.request_timeout, max_connections=settings.max_connections)
    return Config(
        "handlers.server.serve:application",
        factory=True,
        lifespan="on",
        http=protocol,
        ws="none",
        workers=settings.workers,
        reload=settings.reload,
        reload_includes=["*.py", document.PATH.name] if settings.reload else None,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=shutdown_timeout,
        log_level="warning",
        log_config=LOGGING,
    )


def _raise_file_limit(settings: ServerSettings) -> None:
    """Allow each process as many open files as its connections need."""
    needed = settings.max_connections + settings.database_connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ConfigurationError(
            f"--max-connections {settings.max_connections} needs {needed} open files, but a process may have {hard}:"
            " raise that limit, as with ulimit -n, or lower the number."
        )
    enough = soft if soft == resource.RLIM_INFINITY else max(soft, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _bind(host: str, port: int, metrics: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Allow binding to the port while connections of a stopped service linger on it. A running service still blocks it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        remedy = "choose a port above 1023 with --port"
        if error.errno != errno.EACCES:
            remedy = "choose an address of this machine, or 0.0.0.0 for all, with --host"
        message = f"Cannot listen on {host} port {port}: {error.strerror}; {remedy}."
        if error.errno == errno.EADDRINUSE:
            message = f"Port {port} is taken: stop what listens there, or choose another with --port."
            if metrics.endswith(f":{port}"):
                message = f"Port {port} is that of --metrics: choose another with --port."
        raise ConfigurationError(message) from error
    return listener
