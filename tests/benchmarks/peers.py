"""Start the service and its peers, each as its documentation shows it, in one process on one core."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import psutil

from tests.support.project import ROOT
from tests.support.service import environment

SERVICE = "Tasks API"
FLOOR = "bare ASGI function"
FASTAPI = "FastAPI, SQLAlchemy"
LITESTAR = "Litestar"
CONNEXION = "Connexion, Peewee"
FASTIFY = "Fastify"
SQLITE = "SQLite"
POSTGRESQL = "PostgreSQL"

SERVER_CORE, CLIENT_CORE = 0, 1
# The service with all optional dependencies, and with none.
COMMAND = str(ROOT / "build/service/bin/tasks-api")
CORE_COMMAND = str(ROOT / "build/core/bin/tasks-api")
NODE = shutil.which("node")
NODE_MODULES = ROOT / "build/benchmark/node_modules"
APPLICATIONS = "tests.benchmarks.applications"


def uvicorn(module: str) -> tuple[str, ...]:
    """Return the command that serves a peer with uvicorn."""
    program = sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning"
    return (*program, f"{APPLICATIONS}.{module}:app")


def node(argument: str) -> tuple[str, ...]:
    """Return the command that serves a peer with Node."""
    return str(NODE), str(ROOT / APPLICATIONS.replace(".", "/") / "node/server.js"), argument


# The command of each peer, without its port.
COMMANDS = {
    SQLITE: {
        SERVICE: (COMMAND, "serve"),
        FLOOR: uvicorn("floor_sqlite"),
        FASTAPI: uvicorn("fastapi_sqlite"),
        LITESTAR: uvicorn("litestar_sqlite"),
        CONNEXION: uvicorn("connexion_sqlite"),
        FASTIFY: node("sqlite"),
    },
    POSTGRESQL: {
        SERVICE: (COMMAND, "serve"),
        FLOOR: uvicorn("floor_postgresql"),
        FASTAPI: uvicorn("fastapi_postgresql"),
        LITESTAR: uvicorn("litestar_postgresql"),
        FASTIFY: node("postgresql"),
    },
}
if not NODE:
    for commands in COMMANDS.values():
        del commands[FASTIFY]


class Server(NamedTuple):
    """A running server."""

    url: str
    process: psutil.Process
    startup_seconds: float  # seconds from the start of the process to its first response

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the seconds that all processes and threads of the server have spent in user mode and in the kernel."""
        times = [process.cpu_times() for process in (self.process, *self.process.children(recursive=True))]
        return sum(each.user for each in times), sum(each.system for each in times)


def environment_for(url: str) -> dict[str, str]:
    """Return the environment of a server with the default settings and the given database."""
    variables = environment(
        {
            "DATABASE_URL": url,
            "BENCHMARK_DATABASE": url.removeprefix("sqlite:///"),
            "PYTHONPATH": str(ROOT),
            "NODE_PATH": str(NODE_MODULES),
            "NODE_ENV": "production",
        }
    )
    del variables["TASKS_API_VALIDATE_RESPONSES"]
    return variables


@contextmanager
def running(command: tuple[str, ...], database: str, *flags: str) -> Iterator[Server]:
    """Run the service or a peer on its core, on the database at a URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with pinned(SERVER_CORE):
        started = time.monotonic()
        process = subprocess.Popen(
            [*command, "--port", port, *flags], env=environment_for(database), stdout=subprocess.DEVNULL
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/api/tasks/1", process)
        yield Server(url, psutil.Process(process.pid), time.monotonic() - started)
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server responds."""
    while process.poll() is None:
        try:
            httpx.get(url, timeout=60)
        except httpx.ConnectError:
            time.sleep(0.002)
        else:
            return
    sys.exit(f"{process.args!r} exited with status {process.returncode}")


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Pin the processes that start in this context to one core, so that server and client do not compete for it."""
    before = os.sched_getaffinity(0)
    if len(before) > 1:
        os.sched_setaffinity(0, {sorted(before)[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
