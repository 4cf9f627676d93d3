"""Measures one worker and two, on SQLite and on PostgreSQL: `make bench-scale`.

Two workers, a database server and what puts load on them want more than two processors. So each worker is also
measured with a fifth of one, which leaves the others all that they can use, and shows what workers cost each other.
"""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil
import psycopg

from models.database.migrate import migrate
from tests.benchmarks import load
from tests.benchmarks.peers import COMMAND, fill
from tests.support.project import ROOT
from tests.support.service import environment
from tests.support.stores import postgresql_server

GROUP = Path("/sys/fs/cgroup/cpu/tasks-benchmark")
PERIOD = 10_000  # µs, of which a worker may use a share
SHARE = 0.2
ROUNDS = 3
SECONDS = 2
CONNECTIONS = 32
OPERATIONS = {
    "GET one": ("GET", "/api/tasks/1"),
    "GET a list of 50": ("GET", "/api/tasks?limit=50"),
    "PUT": ("PUT", "/api/tasks"),
    "POST": ("POST", "/api/tasks"),
}


@contextmanager
def serving(url: str, workers: int, share: float) -> Iterator[str]:
    """Serve the tasks of a database with some workers, which may use a share of a processor each; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    variables = environment({"DATABASE_URL": url})
    del variables["TASKS_API_VALIDATE_RESPONSES"]
    command = (COMMAND, "serve", "--port", port, "--workers", str(workers))
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE)
    # It announces itself once every worker serves.
    assert process.stdout
    process.stdout.readline()
    children = psutil.Process(process.pid).children()
    serving = [child.pid for child in children if "spawn_main" in child.cmdline()[-2]] or [process.pid]
    with ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.terminate)
        if share < 1:
            for pid in serving:
                stack.enter_context(limited(pid, share))
        yield f"http://127.0.0.1:{port}"


@contextmanager
def limited(pid: int, share: float) -> Iterator[None]:
    """Let all threads of a process use no more than a share of a processor (kernel.org, scheduler/sched-bwc)."""
    group = GROUP.with_name(f"{GROUP.name}-{pid}")
    group.mkdir()
    (group / "cpu.cfs_period_us").write_text(str(PERIOD))
    (group / "cpu.cfs_quota_us").write_text(str(int(PERIOD * share)))
    (group / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        (GROUP.parent / "cgroup.procs").write_text(str(pid))
        with suppress(OSError):
            group.rmdir()


def measure(address: str, method: str, path: str) -> tuple[float, float, float]:
    """Return requests a second, and how many processors the load took and how many were idle."""
    before, idle = resource.getrusage(resource.RUSAGE_CHILDREN), psutil.cpu_times().idle
    started = time.monotonic()
    command = [str(load.WRK), "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", "-s", str(load.SCRIPT), address + path]
    outcome = load.finish(subprocess.Popen([*command, "--", method], stdout=subprocess.PIPE, text=True))
    passed = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return outcome["requests"] / outcome["seconds"], spent / passed, (psutil.cpu_times().idle - idle) / passed


def compare(backend: str, url: str, share: float) -> Iterator[str]:
    """Yield the lines of one database, in the order of the operations."""
    figures: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for _ in range(ROUNDS):
        for workers in (1, 2):
            with serving(url, workers, share) as address:
                for operation, request in OPERATIONS.items():
                    figures.setdefault((operation, workers), []).append(measure(address, *request))
    for operation in OPERATIONS:
        one, two = ([median(values) for values in zip(*figures[operation, workers], strict=True)] for workers in (1, 2))
        yield (
            f"| {backend} | {share:.0%} | {operation} | {one[0]:,.0f} | {two[0]:,.0f} | {two[0] / one[0]:.2f} × "
            f"| {two[1]:.2f} | {two[2]:.2f} |"
        )


def main() -> None:
    """Print all figures as Markdown."""
    if not load.WRK:
        sys.exit("wrk is needed: apt install wrk.")
    shares = [1.0]
    if os.access(GROUP.parent / "cgroup.procs", os.W_OK):
        shares.append(SHARE)
    print("| database | of a processor | operation | one worker/s | two workers/s | ratio | load takes | idle |")
    print("|---|---:|---|---:|---:|---:|---:|---:|", flush=True)
    for share in shares:
        (ROOT / "build").mkdir(exist_ok=True)
        with TemporaryDirectory(dir=ROOT / "build") as folder:
            fill(Path(folder), 1000)
            print(*compare("SQLite", f"sqlite:///{folder}/tasks.db", share), sep="\n", flush=True)
        with TemporaryDirectory() as folder, postgresql_server(Path(folder) / "data") as server:
            url = server.get_uri()
            migrate(url)
            insert = (
                "INSERT INTO task (title, description, completed, created_at) SELECT 'Task ' || n,"
                " 'Finish the Next.js API routes guide', n % 2 = 1, '2026-05-12T10:32:14.000Z'"
                " FROM generate_series(1, 1000) n"
            )
            with psycopg.connect(url) as connection:
                connection.execute(insert)
            print(*compare("PostgreSQL", url, share), sep="\n", flush=True)
    if len(shares) == 1:
        print("\nThe CPU controller of cgroups (version 1) cannot be used here, so no worker was limited to a share.")


main()
