"""Compare the service with peer applications, then measure the service under various conditions: `make bench`."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from tests.benchmarks import load
from tests.benchmarks.chart import draw
from tests.benchmarks.load import Measurement
from tests.benchmarks.peers import APPLICATIONS, CONNEXION, FASTAPI, FLOOR, SERVICE, fill, running
from tests.support import wire
from tests.support.project import ROOT

# The databases of the servers are in this folder, on a disk: the folder for temporary files may be in memory.
BUILD = ROOT / "build"
ROUNDS = 5
SLOW_CLIENTS = 1000
SLOW_REQUEST = wire.request("POST", "/api/tasks", {"title": "a"})
OPERATIONS = {
    "GET one": ("GET", "/api/tasks/1"),
    "GET a list of 50": ("GET", "/api/tasks?limit=50"),
    "PUT": ("PUT", "/api/tasks"),
    "POST": ("POST", "/api/tasks"),
}
# Targets for the service's requests per second divided by the peer's: one ratio for each of OPERATIONS, in that order.
TARGETS = {FLOOR: (0.5, 0.8, 2.5, 2.5), FASTAPI: (13, 12, 12, 10), CONNEXION: (8, 5.5, 9, 7)}

Results = dict[tuple[str, str], Measurement]


def compare(folder: Path) -> Results:
    """Measure the applications in turn, in several rounds, so that a slowdown of the machine affects all of them."""
    rounds: dict[tuple[str, str], list[Measurement]] = {}
    with ExitStack() as stack:
        servers = {}
        for number, peer in enumerate(APPLICATIONS):
            (folder / str(number)).mkdir()
            fill(folder / str(number), 1000)
            if load.WRK:
                servers[peer] = stack.enter_context(running(peer, folder / str(number)))
        for round_number in range(1, ROUNDS + 1):
            print(f"Round {round_number} of {ROUNDS}", file=sys.stderr)
            for operation, request in OPERATIONS.items():
                for number, peer in enumerate(APPLICATIONS):
                    measurement = (
                        load.run_wrk(servers[peer], *request)
                        if servers
                        else load.run_in_process(peer, folder / str(number), *request)
                    )
                    rounds.setdefault((operation, peer), []).append(measurement)
    return {key: load.medians(measurements) for key, measurements in rounds.items()}


def format_table(results: Results) -> Iterator[str]:
    """Yield the lines of a Markdown table of the results."""
    columns = "operation | application | requests/s | CPU µs/request | p50 ms | p99 ms"
    yield f"| {columns} | relative speed of Tasks API | target |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for (operation, peer), result in results.items():
        row = [operation, peer, f"{result.requests:,.0f}", f"{result.cpu:.0f}"]
        row += [f"{result.p50 / 1000:.2f}", f"{result.p99 / 1000:.2f}"]
        if peer in TARGETS:
            target = TARGETS[peer][list(OPERATIONS).index(operation)]
            row += [f"{results[operation, SERVICE].requests / result.requests:.2f} ×", f"{target} ×"]
        yield f"| {' | '.join(row)} |" if peer in TARGETS else f"| {' | '.join(row)} | | |"


def measure_reads_during_writes(folder: Path) -> Iterator[str]:
    fill(folder, 1000)
    with running(SERVICE, folder) as server:
        alone, during = [], []
        for _ in range(ROUNDS):
            alone.append(load.run_wrk(server, "GET", "/api/tasks/1").p99)
            writers = load.start_wrk(server, "PUT", "/api/tasks", 4, 8)
            during.append(load.run_wrk(server, "GET", "/api/tasks/1").p99)
            load.finish(writers)
    yield (
        f"p99 of GET one on 16 connections: {median(alone) / 1000:.2f} ms, and {median(during) / 1000:.2f} ms while 8 "
        f"other connections write ({median(during) / median(alone):.1f} ×, target: at most 3 ×)."
    )


def measure_reads_with_slow_clients(folder: Path) -> Iterator[str]:
    fill(folder, 1000)
    with running(SERVICE, folder) as server:
        alone, during = [], []
        for _ in range(ROUNDS):
            alone.append(load.run_wrk(server, "GET", "/api/tasks/1").p99)
            with ExitStack() as stack:
                for number in range(SLOW_CLIENTS):
                    connection = stack.enter_context(wire.connect(server.url))
                    # Send an incomplete head, a head without its body, or an incomplete body.
                    connection.sendall(SLOW_REQUEST[: (10, -5, -1)[number % 3]])
                during.append(load.run_wrk(server, "GET", "/api/tasks/1").p99)
    yield (
        f"p99 of GET one on 16 connections: {median(alone) / 1000:.2f} ms, and {median(during) / 1000:.2f} ms while "
        f"{SLOW_CLIENTS:,} other connections have sent only part of a request."
    )


def measure_optional_features(folder: Path) -> Iterator[str]:
    features = {
        "`--access-log`": ("--access-log",),
        "`--metrics`": ("--metrics", "127.0.0.1:19464"),
        "`--rate-limit`": ("--rate-limit", "10000000/second"),
    }
    measurements: dict[str, list[Measurement]] = {}
    with ExitStack() as stack:
        servers = {}
        for name, flags in {"none": (), **features}.items():
            database_folder = folder / name.strip("`-")
            database_folder.mkdir()
            fill(database_folder, 1000)
            servers[name] = stack.enter_context(running(SERVICE, database_folder, *flags))
        for _ in range(ROUNDS):
            for name, server in servers.items():
                measurements.setdefault(name, []).append(load.run_wrk(server, "GET", "/api/tasks/1"))
    cpu = {name: load.medians(rounds).cpu for name, rounds in measurements.items()}
    additional = ", ".join(f"{cpu[name] - cpu['none']:.0f} µs for {name}" for name in features)
    yield f"CPU time of GET one: {cpu['none']:.0f} µs without optional features; in addition, {additional}."


def measure_pages_of_a_large_table(folder: Path) -> Iterator[str]:
    for size in (1_000, 1_000_000):
        (folder / str(size)).mkdir()
        fill(folder / str(size), size)
    with running(SERVICE, folder / "1000") as small, running(SERVICE, folder / "1000000") as large:
        for query in ("", "&completed=true"):
            path = f"/api/tasks?limit=100{query}"
            starts = {"the start": 0, "the middle": 500_000, "the end": 999_800 if query else 999_900}
            base: list[float] = []
            costs: dict[str, list[float]] = {position: [] for position in starts}
            for _ in range(ROUNDS):
                base.append(load.run_wrk(small, "GET", path, 1).cpu)
                for position, after in starts.items():
                    costs[position].append(load.run_wrk(large, "GET", f"{path}&after={after}", 1).cpu)
            ratios = ", ".join(f"{median(cost) / median(base):.2f} × at {position}" for position, cost in costs.items())
            yield (
                f"CPU time of a page of 100 {'completed ' if query else ''}tasks in a table of 1,000,000, relative to "
                f"one of 1,000: {ratios} (target: at most 1.3 ×)."
            )


def measure_startup(folder: Path) -> Iterator[str]:
    fill(folder, 1000)
    times = []
    for _ in range(7):
        with running(SERVICE, folder) as server:
            times.append(server.startup_seconds)
    yield f"Time from start to first response, on an existing database: {median(times):.2f} s (target: at most 1.2 s)."


def measure_memory(folder: Path) -> Iterator[str]:
    fill(folder, 1000)
    with running(SERVICE, folder) as server:
        completed, resident = 0.0, []
        for count in (100_000, 500_000, 1_000_000, 1_500_000, 2_000_000):
            while completed < count:
                for request in OPERATIONS.values():
                    completed += load.finish(load.start_wrk(server, *request, seconds=1))["requests"]
            resident.append(f"{megabytes(server.process.memory_info().rss):.1f} MB after {count:,}")
        yield f"Resident memory: {', '.join(resident)} requests (target: at most 90 MB after 100,000)."
    for description in ("Finish the Next.js API routes guide", "b" * 4000):
        database_folder = folder / str(len(description))
        database_folder.mkdir()
        fill(database_folder, 1000, description)
        with running(SERVICE, database_folder) as server:
            before = server.process.memory_info().rss
            page = httpx.get(f"{server.url}/api/tasks?limit=1000").content
            peak = (
                int(Path(f"/proc/{server.process.pid}/status").read_text("utf-8").split("VmHWM:")[1].split()[0]) * 1024
            )
        size, memory = megabytes(len(page)), megabytes(peak - before)
        yield f"Building a page of 1,000 tasks ({size:.2f} MB) takes {memory:.1f} MB of memory."


def megabytes(size: int) -> float:
    return size / 1e6


def main() -> None:
    """Print all measurements as Markdown, and draw a chart of the comparison with the peers."""
    if not load.WRK:
        print("wrk is not installed (apt install wrk), so the applications are called in process, without sockets.\n")
    print(
        f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, Python {platform.python_version()}\n"
    )
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=BUILD) as folder:
        results = compare(Path(folder))
    print(*format_table(results), sep="\n", flush=True)
    if not load.WRK:
        return
    draw({key: result.requests for key, result in results.items()}, ROOT / "docs/benchmark.png")
    for section in (
        measure_reads_during_writes,
        measure_reads_with_slow_clients,
        measure_optional_features,
        measure_pages_of_a_large_table,
        measure_startup,
        measure_memory,
    ):
        with TemporaryDirectory(dir=BUILD) as folder:
            for line in section(Path(folder)):
                print("\n" + line, flush=True)


main()
