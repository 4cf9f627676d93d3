"""Compare the service with one worker and with two workers, on SQLite and on PostgreSQL: `make bench-scale`.

Two workers, a database server and a load generator need more than two processors. Therefore, every measurement is
repeated with each worker limited to a fifth of a processor. The database server and the load generator then have all
the CPU time that they need. The ratio of two workers to one shows how much the workers slow each other down.
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

import psutil

from tests.benchmarks.comparison import OPERATIONS
from tests.benchmarks.databases import URLS, fill
from tests.benchmarks.load import CLIENT, finish
from tests.benchmarks.peers import COMMAND, environment_for

CGROUP = Path("/sys/fs/cgroup/cpu/tasks-benchmark")
PERIOD = 10_000  # the period in µs over which the kernel enforces the CPU limit
SHARE = 0.2
ROUNDS = 3
CONNECTIONS = 32


@contextmanager
def serving(url: str, workers: int, share: float) -> Iterator[str]:
    """Run a service whose workers may each use a share of a processor, and yield its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = (COMMAND, "serve", "--port", port, "--workers", str(workers))
    process = subprocess.Popen(command, env=environment_for(url), stdout=subprocess.PIPE)
    # The service prints its first line once every worker serves.
    assert process.stdout
    process.stdout.readline()
    children = psutil.Process(process.pid).children()
    worker_pids = [child.pid for child in children if "spawn_main" in child.cmdline()[-2]] or [process.pid]
    with ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.terminate)
        if share < 1:
            for pid in worker_pids:
                stack.enter_context(limit_cpu(pid, share))
        yield f"http://127.0.0.1:{port}"


@contextmanager
def limit_cpu(pid: int, share: float) -> Iterator[None]:
    """Limit all threads of a process to a share of a processor (kernel.org, scheduler/sched-bwc)."""
    group = CGROUP.with_name(f"{CGROUP.name}-{pid}")
    group.mkdir()
    (group / "cpu.cfs_period_us").write_text(str(PERIOD), "utf-8")
    (group / "cpu.cfs_quota_us").write_text(str(int(PERIOD * share)), "utf-8")
    (group / "cgroup.procs").write_text(str(pid), "utf-8")
    try:
        yield
    finally:
        (CGROUP.parent / "cgroup.procs").write_text(str(pid), "utf-8")
        with suppress(OSError):
            group.rmdir()


def measure(address: str, method: str, path: str) -> tuple[float, float, float]:
    """Return the requests per second, the number of cores that the client used, and the number of idle cores."""
    before, idle = resource.getrusage(resource.RUSAGE_CHILDREN), psutil.cpu_times().idle
    started = time.monotonic()
    # A client that spins would take CPU time from the workers.
    command = [
        sys.executable,
        str(CLIENT),
        method,
        address + path,
        f"--connections={CONNECTIONS}",
        "--seconds=2",
        "--sleep",
    ]
    totals = finish(subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8"))
    elapsed = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return totals["rate"], cpu / elapsed, (psutil.cpu_times().idle - idle) / elapsed


def compare(backend: str, url: str, share: float) -> Iterator[str]:
    """Yield the rows of the result table for one database, one row for each operation."""
    measurements: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for _ in range(ROUNDS):
        for workers in (1, 2):
            with serving(url, workers, share) as address:
                for operation, request in OPERATIONS.items():
                    measurements.setdefault((operation, workers), []).append(measure(address, *request))
    for operation in OPERATIONS:
        one, two = (
            [median(values) for values in zip(*measurements[operation, workers], strict=True)] for workers in (1, 2)
        )
        yield (
            f"| {backend} | {share:.0%} | {operation} | {one[0]:,.0f} | {two[0]:,.0f} | {two[0] / one[0]:.2f} × "
            f"| {two[1]:.2f} | {two[2]:.2f} |"
        )


def main() -> None:
    """Print all measurements as Markdown."""
    shares = [1.0]
    if os.access(CGROUP.parent / "cgroup.procs", os.W_OK):
        shares.append(SHARE)
    columns = ("requests/s, 1 worker", "requests/s, 2 workers", "ratio", "cores used by the client", "idle cores")
    print(f"| database | CPU limit per worker | operation | {' | '.join(columns)} |")
    print("|---|---:|---|---:|---:|---:|---:|---:|", flush=True)
    for share in shares:
        for database, open_urls in URLS.items():
            with open_urls() as urls:
                fill(url := next(urls))
                print(*compare(database, url, share), sep="\n", flush=True)
    if len(shares) == 1:
        print("\nThe CPU controller of cgroups v1 is not writable here, so there are no measurements with a CPU limit.")


main()
