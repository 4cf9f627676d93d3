"""Run the application with uvicorn: listen, start workers, set limits and logging."""

import errno
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from ipaddress import ip_address
from multiprocessing import active_children, parent_process, resource_tracker
from multiprocessing.process import BaseProcess
from threading import Thread
from time import monotonic, sleep
from typing import Any

from uvicorn import Config, Server
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess

from handlers.access.security import without_keys
from handlers.application import create_app
from handlers.contract import document
from handlers.documentation import pages
from handlers.observability import access_log
from handlers.server import output
from handlers.server.protocol import Protocol
from handlers.settings import ServerSettings, variable
from models import keys
from models.database.errors import ConfigurationError
from models.database.migrate import prepare
from models.tables import check_columns

BACKLOG = 2048  # maximum number of connections that wait to be accepted
START_TIMEOUT = 30  # seconds for a worker to start
SHUTDOWN_MARGIN = 5  # seconds after the shutdown timeout in which a process whose parent was killed should end
OTHER_FILES = 64  # maximum number of open files of a process, in addition to its connections
# uvicorn's configuration, with handlers for the warnings of other loggers and for the access log.
LOGGING: dict[str, Any] = deepcopy(LOGGING_CONFIG)
LOGGING["root"] = {"handlers": ["default"], "level": "WARNING"}
OUTPUT_HANDLER = "handlers.server.output.OutputHandler"
LOGGING["handlers"]["default"] = {"class": OUTPUT_HANDLER, "descriptor": output.STDERR, "formatter": "default"}
LOGGING["handlers"]["access_log"] = {"class": OUTPUT_HANDLER, "descriptor": output.STDOUT}
LOGGING["loggers"][access_log.logger.name] = {"handlers": ["access_log"], "level": "INFO", "propagate": False}
# No line names its code, thread or process, so do not look them up (docs.python.org/3/howto/logging.html).
logging._srcfile = None
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class SharedPort(socket.socket):
    """A port for several workers. Every worker that unpickles this object listens with its own socket (SO_REUSEPORT).

    The kernel distributes connections evenly among sockets. With one shared socket, the first worker to wake up would
    accept most of the connections.
    """

    def __init__(self, listener: socket.socket) -> None:
        """Close a bound socket, and bind its port for sharing."""
        super().__init__(listener.family)
        _set_options(self)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        address = listener.getsockname()
        listener.close()
        self.bind(address)

    def __reduce__(self) -> tuple[Any, ...]:
        options: Any = {"family": self.family, "dualstack_ipv6": self.family == socket.AF_INET6}
        return partial(socket.create_server, backlog=BACKLOG, reuse_port=True, **options), (self.getsockname(),)


class AnnouncedServer(Server):
    """uvicorn's server, which here prints an announcement once the application has started."""

    def __init__(self, config: Config, announcement: str) -> None:
        super().__init__(config)
        self.announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _announce(self.announcement)

    def exit_before_start(self, *_: object) -> None:
        """Handle SIGTERM before and after uvicorn does."""
        if not self.should_exit:
            sys.exit()


class Workers(Multiprocess):
    """uvicorn's supervisor of worker processes, which here prints an announcement once all workers are ready."""

    def __init__(self, config: Config, sockets: list[socket.socket], announcement: str) -> None:
        on_hangup = signal.getsignal(signal.SIGHUP)
        super().__init__(config, sockets)
        # uvicorn would restart the workers. As with one worker, a closed terminal ends the service, except after nohup.
        signal.signal(signal.SIGHUP, on_hangup)
        self.announcement = announcement

    def init_processes(self) -> None:
        super().init_processes()
        deadline = monotonic() + START_TIMEOUT
        for process in self.processes:
            while not process.is_ready(timeout=1):
                self.handle_signals()
                # Without an announcement, `run` ends, also because a worker failed.
                if self.should_exit.is_set() or not process.process.is_alive() or monotonic() > deadline:
                    return
                sleep(0.05)
        _announce(self.announcement)

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
    app = create_app(settings)
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
    has_children = settings.workers > 1 or settings.reload
    if has_children:
        # They create the application themselves, and read the settings from the environment.
        os.environ.update({variable(name): str(value) for name, value in settings.model_dump().items()})
    config = _config(settings, "handlers.server.serve:application" if has_children else lambda: app)
    host = settings.host
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    base_url, title = f"{url}{document.base_path()}", contract["info"]["title"]
    announcement = f"{title} at {base_url}, documentation at {url}{pages.PATH}"
    server = AnnouncedServer(config, announcement)
    # uvicorn raises SIGTERM again after its shutdown. Then the process is about to exit anyway.
    signal.signal(signal.SIGTERM, server.exit_before_start)
    _handle_interrupts(has_children)
    with listener:
        if settings.workers > 1 and not settings.reload:
            Workers(config, [SharedPort(listener)], announcement).run()
            return
        listener.listen(BACKLOG)
        if settings.reload:
            ChangeReload(config, target=server.run, sockets=[listener]).run()
            return
        try:
            server.run(sockets=[listener])
        except SystemExit as end:
            # The application has not started, or SIGTERM came before uvicorn handled it.
            sys.exit(1 if end.code else 0)


def application() -> Any:
    """Create the application in a child process. After a failure, exit with the status that uvicorn does not retry."""
    try:
        settings = ServerSettings()
        Thread(target=_end_after_parent, args=(parent_process(), settings.shutdown_timeout), daemon=True).start()
        return create_app(settings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(STARTUP_FAILURE)


def _handle_interrupts(has_children: bool) -> None:
    """Handle Ctrl-C in a thread of this process.

    No other thread gets the signal. Child processes inherit that it is blocked: a terminal sends it to them too, which
    would interrupt their imports with a traceback.
    """
    if has_children:
        # This process starts with the first child otherwise, which would unblock the signal.
        resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    Thread(target=_await_interrupts, daemon=True).start()


def _await_interrupts() -> None:
    """Let the first Ctrl-C act like SIGTERM. Let further ones end the service without waiting for requests."""
    signal.sigwait({signal.SIGINT})
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        signal.sigwait({signal.SIGINT})
        children = active_children()
        for child in children:
            child.kill()
        if not children:
            os._exit(0)


def _end_after_parent(parent: BaseProcess, shutdown_timeout: float) -> None:
    """End this process once its parent has ended, as if by SIGTERM. The parent may have been killed."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    sleep(shutdown_timeout + SHUTDOWN_MARGIN)
    os._exit(1)


def _announce(announcement: str) -> None:
    output.OutputHandler(output.STDOUT, sys.stdout.encoding).write(announcement)


def _config(settings: ServerSettings, factory: str | Callable[[], Any]) -> Config:
    protocol: Any = partial(Protocol, timeout=settings.request_timeout, max_connections=settings.max_connections)
    # With 0, uvicorn would always report an error, even if no request runs.
    shutdown_timeout: Any = settings.shutdown_timeout or 0.01
    return Config(
        factory,
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
            f"--max-connections {settings.max_connections} and --database-connections"
            f" {settings.database_connections} need {needed} open files, but a process may have {hard}: raise that"
            " limit, as with ulimit -n, or lower the numbers."
        )
    enough = soft if soft == resource.RLIM_INFINITY else max(soft, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _bind(host: str, port: int, metrics: str) -> socket.socket:
    listener = None
    try:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        _set_options(listener)
        listener.bind((host, port))
    except OSError as error:
        if listener:
            listener.close()
        remedy = "choose a port above 1023 with --port"
        if error.errno != errno.EACCES:
            remedy = "choose an address of this machine, or 0.0.0.0 for all, with --host"
        message = f"Cannot listen on {host} port {port}: {error.strerror}; {remedy}."
        if error.errno == errno.EADDRINUSE:
            message = f"Port {port} is taken: stop what listens there, or choose another with --port."
            if metrics.endswith(f":{port}"):
                message = f"Port {port} is taken by --metrics: choose another with --port."
        raise ConfigurationError(message) from error
    return listener


def _set_options(listener: socket.socket) -> None:
    # Allow binding to the port while connections of a stopped service linger on it. A running service still blocks it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        # The address :: includes IPv4, whatever the system's default is.
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
