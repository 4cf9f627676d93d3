"""Measures the service beside its peers; then with writers, with a large table and over time: `make bench`."""

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
from tests.benchmarks.load import Figures
from tests.benchmarks.peers import APPLICATIONS, CONNEXION, FASTAPI, FLOOR, SERVICE, fill, running
from tests.support import wire
from tests.support.project import ROOT

# On a disk, which the folder for temporary files may not be.
BUILD = ROOT / "build"
ROUNDS = 5
SLOW = 1000
BEGUN = wire.request("POST", "/api/tasks", {"title": "a"})
OPERATIONS = {
    "GET one": ("GET", "/api/tasks/1"),
    "GET a list of 50": ("GET", "/api/tasks?limit=50"),
    "PUT": ("PUT", "/api/tasks"),
    "POST": ("POST", "/api/tasks"),
}
# How many times as many requests as the peer's the service is meant to answer, in the order of the operations.
TARGETS = {FLOOR: (0.5, 0.8, 2.5, 2.5), FASTAPI: (13, 12, 12, 10), CONNEXION: (8, 5.5, 9, 7)}

Results = dict[tuple[str, str], Figures]


def compare(folder: Path) -> Results:
    """Measure each operation of each peer, in turns, so that a machine that gets slower gets slower for all."""
    rounds: dict[tuple[str, str], list[Figures]] = {}
    with ExitStack() as stack:
        servers = {}
        for number, peer in enumerate(APPLICATIONS):
            (folder / str(number)).mkdir()
            fill(folder / str(number), 1000)
            if load.WRK:
                servers[peer] = stack.enter_context(running(peer, folder / str(number)))
        for turn in range(ROUNDS):
            print(f"Round {turn + 1} of {ROUNDS}", file=sys.stderr)
            for operation, request in OPERATIONS.items():
                for number, peer in enumerate(APPLICATIONS):
                    place = folder / str(number)
                    figures = load.wrk(servers[peer], *request) if servers else load.in_process(peer, place, *request)
                    rounds.setdefault((operation, peer), []).append(figures)
    return {key: load.middle(figures) for key, figures in rounds.items()}


def table(results: Results) -> Iterator[str]:
    """Yield the lines of a table of all figures."""
    yield "| operation | application | requests/s | CPU µs a request | p50 ms | p99 ms | Tasks API answers | target |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for (operation, peer), figures in results.items():
        row = [operation, peer, f"{figures.requests:,.0f}", f"{figures.cpu:.0f}"]
        row += [f"{figures.p50 / 1000:.2f}", f"{figures.p99 / 1000:.2f}"]
        if peer in TARGETS:
            target = TARGETS[peer][list(OPERATIONS).index(operation)]
            row += [f"{results[operation, SERVICE].requests / figures.requests:.2f} ×", f"{target} ×"]
        yield f"| {' | '.join(row)} |" if peer in TARGETS else f"| {' | '.join(row)} | | |"


def reads_beside_writes(folder: Path) -> Iterator[str]:
    fill(folder, 1000)
    with running(SERVICE, folder) as server:
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone.append(load.wrk(server, "GET", "/api/tasks/1").p99)
            writers = load.start_wrk(server, "PUT", "/api/tasks", 4, 8)
            beside.append(load.wrk(server, "GET", "/api/tasks/1").p99)
            load.finish(writers)
    yield (
        f"p99 of GET one on 16 connections: {median(alone) / 1000:.2f} ms, and {median(beside) / 1000:.2f} ms while 8 "
        f"connections write ({median(beside) / median(alone):.1f} ×, target at most 3 ×)."
    )


def beside_slow_callers(folder: Path) -> Iterator[str]:
    fill(folder, 1000)
    with running(SERVICE, folder) as server:
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone.append(load.wrk(server, "GET", "/api/tasks/1").p99)
            with ExitStack() as stack:
                for number in range(SLOW):
                    connection = stack.enter_context(wire.connect(server.url))
                    # A piece of a head, a head, or a head and a piece of a body.
                    connection.sendall(BEGUN[: (10, -5, -1)[number % 3]])
                beside.append(load.wrk(server, "GET", "/api/tasks/1").p99)
    yield (
        f"p99 of GET one on 16 connections: {median(alone) / 1000:.2f} ms, and {median(beside) / 1000:.2f} ms while "
        f"{SLOW:,} other connections wait with the rest of a request."
    )


def what_can_be_turned_on(folder: Path) -> Iterator[str]:
    features = {
        "`--access-log`": ("--access-log",),
        "`--metrics`": ("--metrics", "127.0.0.1:19464"),
        "`--rate-limit`": ("--rate-limit", "10000000/second"),
    }
    figures: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        servers = {}
        for name, flags in {"nothing": (), **features}.items():
            place = folder / name.strip("`-")
            place.mkdir()
            fill(place, 1000)
            servers[name] = stack.enter_context(running(SERVICE, place, *flags))
        for _ in range(ROUNDS):
            for name, server in servers.items():
                figures.setdefault(name, []).append(load.wrk(server, "GET", "/api/tasks/1"))
    cpu = {name: load.middle(rounds).cpu for name, rounds in figures.items()}
    more = ", ".join(f"{cpu[name] - cpu['nothing']:.0f} µs with {name}" for name in features)
    yield f"CPU of GET one: {cpu['nothing']:.0f} µs with nothing turned on, and so much more: {more}."


def pages_of_a_large_table(folder: Path) -> Iterator[str]:
    for size in (1_000, 1_000_000):
        (folder / str(size)).mkdir()
        fill(folder / str(size), size)
    with running(SERVICE, folder / "1000") as small, running(SERVICE, folder / "1000000") as large:
        for query in ("", "&completed=true"):
            path = f"/api/tasks?limit=100{query}"
            starts = {"the start": 0, "the middle": 500_000, "the end": 999_800 if query else 999_900}
            base: list[float] = []
            costs: dict[str, list[float]] = {place: [] for place in starts}
            for _ in range(ROUNDS):
                base.append(load.wrk(small, "GET", path, 1).cpu)
                for place, after in starts.items():
                    costs[place].append(load.wrk(large, "GET", f"{path}&after={after}", 1).cpu)
            ratios = ", ".join(f"at {place} {median(cost) / median(base):.2f} ×" for place, cost in costs.items())
            yield (
                f"CPU of a page of 100 {'completed ' if query else ''}tasks of 1,000,000, compared with the same page "
                f"of 1,000: {ratios} (target at most 1.3 ×)."
            )


def start_up(folder: Path) -> Iterator[str]:
    fill(folder, 1000)
    times = []
    for _ in range(7):
        with running(SERVICE, folder) as server:
            times.append(server.started_in)
    yield f"Start to first answer, on an existing database: {median(times):.2f} s (target at most 1.2 s)."


def memory(folder: Path) -> Iterator[str]:
    fill(folder, 1000)
    with running(SERVICE, folder) as server:
        answered, resident = 0.0, []
        for aim in (100_000, 500_000, 1_000_000, 1_500_000, 2_000_000):
            while answered < aim:
                for request in OPERATIONS.values():
                    answered += load.finish(load.start_wrk(server, *request, seconds=1))["requests"]
            resident.append(f"{megabytes(server.process.memory_info().rss):.1f} MB after {aim:,}")
        yield f"Resident memory: {', '.join(resident)} requests (target at most 90 MB after 100,000)."
    for description in ("Finish the Next.js API routes guide", "b" * 4000):
        place = folder / str(len(description))
        place.mkdir()
        fill(place, 1000, description)
        with running(SERVICE, place) as server:
            before = server.process.memory_info().rss
            page = httpx.get(f"{server.url}/api/tasks?limit=1000").content
            peak = int(Path(f"/proc/{server.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        yield f"A page of 1,000 tasks, {megabytes(len(page)):.2f} MB, is built in {megabytes(peak - before):.1f} MB."


def megabytes(size: int) -> float:
    return size / 1e6


def main() -> None:
    """Print all figures as Markdown, and draw those of the peers."""
    if not load.WRK:
        print("wrk is not installed (apt install wrk): the applications are called in process, without sockets.\n")
    print(
        f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, Python {platform.python_version()}\n"
    )
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=BUILD) as folder:
        results = compare(Path(folder))
    print(*table(results), sep="\n", flush=True)
    if not load.WRK:
        return
    draw({key: figures.requests for key, figures in results.items()}, ROOT / "docs/benchmark.png")
    for section in (
        reads_beside_writes,
        beside_slow_callers,
        what_can_be_turned_on,
        pages_of_a_large_table,
        start_up,
        memory,
    ):
        with TemporaryDirectory(dir=BUILD) as folder:
            for line in section(Path(folder)):
                print("\n" + line, flush=True)


main()
