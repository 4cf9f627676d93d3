"""Start the service and its peers, each as its users would start it and on its own database."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from models.database.migrate import migrate
from tests.support.project import ROOT
from tests.support.service import environment

SERVICE = "Tasks API"
FLOOR = "bare ASGI function"
FASTAPI = "FastAPI, SQLAlchemy"
CONNEXION = "Connexion, Peewee"
# The import path of each ASGI application, for uvicorn.
APPLICATIONS = {
    SERVICE: "handlers.application:create_app",
    FLOOR: "tests.benchmarks.floor:app",
    FASTAPI: "tests.benchmarks.fastapi_sqlalchemy:app",
    CONNEXION: "tests.benchmarks.stock_connexion:app",
}
COMMAND = str(ROOT / "build/service/bin/tasks-api")
UVICORN = (str(Path(sys.executable).with_name("uvicorn")), "--no-access-log", "--log-level", "warning")


class Server(NamedTuple):
    """A running server."""

    url: str
    process: psutil.Process
    startup_seconds: float  # seconds from the start of the process to its first response

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that all threads of the server have used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def fill(folder: Path, tasks: int, description: str = "Finish the Next.js API routes guide") -> None:
    """Create a database in a folder, with this number of tasks, of which every second is completed."""
    migrate(f"sqlite:///{folder / 'tasks.db'}")
    rows = ((f"Task {number}", description, number % 2, "2026-05-12T10:32:14.000Z") for number in range(tasks))
    with closing(sqlite3.connect(folder / "tasks.db")) as database, database:
        database.executemany("INSERT INTO task (title, description, completed, created_at) VALUES (?, ?, ?, ?)", rows)


def environment_for(folder: Path) -> dict[str, str]:
    """Return the environment of a server with the default settings, whose database is in the given folder."""
    path = str(folder / "tasks.db")
    variables = environment({"DATABASE_URL": f"sqlite:///{path}", "BENCHMARK_DATABASE": path, "PYTHONPATH": str(ROOT)})
    del variables["TASKS_API_VALIDATE_RESPONSES"]
    return variables


@contextmanager
def running(peer: str, folder: Path, *flags: str) -> Iterator[Server]:
    """Run the service or a peer on one processor, and leave any other processor to the load generator."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = (COMMAND, "serve") if peer == SERVICE else (*UVICORN, APPLICATIONS[peer])
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "--port", port, *flags], env=environment_for(folder), stdout=subprocess.DEVNULL
    )
    pin(process.pid, 0)
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
            httpx.get(url).raise_for_status()
        except httpx.ConnectError:
            time.sleep(0.002)
        else:
            return
    sys.exit(f"{process.args!r} exited with status {process.returncode}")


def pin(pid: int, processor: int) -> None:
    """Pin a process to one processor, so that the server and the load generator do not compete for it."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(pid, {processor})
