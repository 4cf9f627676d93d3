"""Run the application with uvicorn: listen, start workers, set limits and logging."""

import errno
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from copy import deepcopy
from functools import partial
from ipaddress import ip_address
from typing import Any, NoReturn

from uvicorn import Config, Server
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.lifespan.on import LifespanOn, LifespanSendMessage
from uvicorn.supervisors import ChangeReload, Multiprocess

from handlers.application import create_app
from handlers.contract import document
from handlers.documentation import pages
from handlers.observability import access_log
from handlers.server.protocol import Protocol
from handlers.settings import ServerSettings, variable
from models import keys
from models.database.errors import ConfigurationError
from models.database.migrate import prepare

# Seconds for which an idle connection stays open. Clients and proxies usually keep connections in their pools for up to
# a minute, and a request on a connection that is being closed would be lost.
KEEP_ALIVE = 75
BACKLOG = 2048  # maximum number of connections that wait to be accepted
START_TIMEOUT = 30  # seconds for a worker to start
OTHER_FILES = 64  # maximum number of open files of a process, in addition to its connections
# uvicorn's configuration, with handlers for the warnings of other loggers and for the access log.
LOGGING: dict[str, Any] = deepcopy(LOGGING_CONFIG)
LOGGING["root"] = {"handlers": ["default"], "level": "WARNING"}
LOGGING["handlers"]["access_log"] = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
LOGGING["loggers"][access_log.logger.name] = {"handlers": ["access_log"], "level": "INFO", "propagate": False}

logger = logging.getLogger(__name__)


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


class Startup(LifespanOn):
    """uvicorn's call of the application's lifespan, which here ends the process if the application does not start."""

    error: Exception | None = None

    async def startup(self) -> None:
        await super().startup()
        if self.error:
            _end_process(self.error)
        if isinstance(self.config, ServerConfig) and self.config.announcement:
            print(self.config.announcement, flush=True)

    async def main(self) -> None:
        try:
            await self.config.loaded_app({"type": "lifespan", "state": self.state}, self.receive, self.send)
        except Exception as error:
            self.error = error
        finally:
            self.startup_event.set()
            self.shutdown_event.set()

    async def send(self, message: LifespanSendMessage) -> None:
        # Starlette raises the exception after this message, which contains only the traceback.
        if message["type"] != "lifespan.startup.failed":
            await super().send(message)


class ServerConfig(Config):
    """uvicorn's configuration. The announcement is printed after each start of the application, unless it is empty."""

    announcement = ""

    def load(self) -> None:
        try:
            super().load()
        except Exception as error:
            _end_process(error)
        self.lifespan_class = Startup


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

    If the application does not start, the process ends with a sentence and status 1. With `--reload`, it waits for a
    change that repairs the application.
    """
    if settings.rate_limit and settings.workers > 1 and not settings.rate_limit_storage:
        raise ConfigurationError(
            "Several workers need a common count for --rate-limit: name a Redis server with --rate-limit-storage."
        )
    create_app(settings)
    _raise_file_limit(settings)
    prepare(settings.database_url)
    listener = _bind(settings.host, settings.port)
    address, port = listener.getsockname()[:2]
    if not settings.insecure_open and not ip_address(address).is_loopback and not keys.find_all(settings.database_url):
        listener.close()
        raise ConfigurationError(
            f"Anyone who reaches {address} could read and change everything: create an API key with"
            f" {document.COMMAND} key new NAME, or allow that with --insecure-open."
        )
    # Worker processes read the settings from the environment.
    os.environ.update({variable(name): str(value) for name, value in settings.model_dump().items()})
    config = _config(settings)
    url = f"http://[{settings.host}]:{port}" if ":" in settings.host else f"http://{settings.host}:{port}"
    base_url, title = f"{url}{document.base_path()}", document.raw()["info"]["title"]
    announcement = f"{title} at {base_url}, documentation at {url}{pages.PATH}"
    # uvicorn raises the signal again after its shutdown. Then exit with status 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with suppress(KeyboardInterrupt):
        if settings.workers > 1 and not settings.reload:
            Workers(config, [SharedPort(listener)], announcement).run()
            return
        listener.listen(BACKLOG)
        config.announcement = announcement
        if settings.reload:
            ChangeReload(config, target=Server(config).run, sockets=[listener]).run()
            return
        server = Server(config)
        try:
            server.run(sockets=[listener])
        except SystemExit:
            sys.exit(0 if server.started else 1)


def _end_process(error: Exception) -> NoReturn:
    """Print why the application does not start, and exit with the status after which uvicorn starts no new worker."""
    if isinstance(error, ConfigurationError):
        print(error, file=sys.stderr)
    else:
        logger.error("The application does not start", exc_info=error)
    sys.exit(STARTUP_FAILURE)


def _config(settings: ServerSettings) -> ServerConfig:
    protocol: Any = partial(Protocol, timeout=settings.request_timeout, max_connections=settings.max_connections)
    return ServerConfig(
        "handlers.application:create_app",
        factory=True,
        http=protocol,
        ws="none",
        workers=settings.workers,
        reload=settings.reload,
        reload_includes=["*.py", document.PATH.name] if settings.reload else None,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=settings.shutdown_timeout,
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


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Allow binding to the port while connections of a stopped service linger on it. A running service still blocks it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        message = f"Cannot listen on {host} port {port}: {error.strerror}."
        if error.errno == errno.EADDRINUSE:
            message = f"Port {port} is taken: stop what listens there, or choose another with --port."
        raise ConfigurationError(message) from error
    return listener
