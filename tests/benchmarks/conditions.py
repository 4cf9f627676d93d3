"""Measure the service under various conditions: other load, optional features, large tables, its start, its memory."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import httpx

from models.database.address import connected
from tests.benchmarks import load
from tests.benchmarks.comparison import OPERATIONS
from tests.benchmarks.databases import fill, sqlite_urls
from tests.benchmarks.load import Measurement
from tests.benchmarks.peers import COMMAND, CORE_COMMAND, SERVER_CORE, environment_for, pinned, running
from tests.support import wire

ROUNDS = 5
GET_ONE = OPERATIONS["GET one"]
SERVE = (COMMAND, "serve")
SERVE_CORE = (CORE_COMMAND, "serve")
SLOW_CLIENTS = 1000
SLOW_REQUEST = wire.request("POST", "/api/tasks", {"title": "a"})
GZIP = "--header=Accept-Encoding: gzip"


class Row(NamedTuple):
    """A row of the result table."""

    what: str
    value: float
    unit: str
    digits: int = 0
    target: float | None = None

    def __str__(self) -> str:
        target = "" if self.target is None else f"≤ {self.target} {self.unit}"
        if self.target is not None and round(self.value, self.digits) > self.target:
            target += ", missed"
        return f"| {self.what} | {self.value:,.{self.digits}f} {self.unit} | {target} |"


def measure_reads_during_writes(urls: Iterator[str]) -> Iterator[Row]:
    fill(url := next(urls))
    with running(SERVE, url) as server:
        alone, during = [], []
        for _ in range(ROUNDS):
            alone.append(load.measure(server, *GET_ONE, "--sleep").p99)
            writers = load.start_client(server, *OPERATIONS["PUT"], "--sleep", "--connections=8", "--seconds=3")
            during.append(load.measure(server, *GET_ONE, "--sleep").p99)
            load.finish(writers)
    yield Row("p99 of a GET of one task", median(alone) / 1000, "ms", 2)
    limit = round(3 * median(alone) / 1000, 2)
    yield Row("the same while 8 more connections write at full speed", median(during) / 1000, "ms", 2, limit)


def measure_reads_with_slow_clients(urls: Iterator[str]) -> Iterator[Row]:
    fill(url := next(urls))
    with running(SERVE, url) as server:
        alone, during = [], []
        for _ in range(ROUNDS):
            alone.append(load.measure(server, *GET_ONE, "--sleep").p99)
            with ExitStack() as stack:
                for number in range(SLOW_CLIENTS):
                    connection = stack.enter_context(wire.connect(server.url))
                    # Send an incomplete head, a head without its body, or an incomplete body.
                    connection.sendall(SLOW_REQUEST[: (10, -5, -1)[number % 3]])
                during.append(load.measure(server, *GET_ONE, "--sleep").p99)
    yield Row("p99 of a GET of one task", median(alone) / 1000, "ms", 2)
    what = f"the same while {SLOW_CLIENTS:,} other connections have each sent only a part of a request"
    yield Row(what, median(during) / 1000, "ms", 2)


def measure_optional_features(urls: Iterator[str]) -> Iterator[Row]:
    features = {
        "an API key": ((), 8),
        "`--access-log`": (("--access-log",), 15),
        "`--metrics`": (("--metrics", "127.0.0.1:19464"), 8),
        "`--rate-limit`": (("--rate-limit", "10000000/second"), 10),
    }
    measurements: dict[str, list[Measurement]] = {}
    with ExitStack() as stack:
        servers = {}
        for name, flags in {"": (), **{name: flags for name, (flags, _) in features.items()}}.items():
            fill(url := next(urls))
            header = f"--header=Authorization: Bearer {create_key(url)}" if name == "an API key" else "--header=A: b"
            servers[name] = stack.enter_context(running(SERVE, url, *flags)), header
        for _ in range(2 * ROUNDS):
            for name, (server, header) in servers.items():
                measurements.setdefault(name, []).append(load.measure(server, *GET_ONE, header))
    cpu = {name: load.medians(rounds).cpu for name, rounds in measurements.items()}
    yield Row("CPU of a GET of one task with default settings, beside four idle services", cpu[""], "µs")
    for name, (_, limit) in features.items():
        yield Row(f"{name} adds", cpu[name] - cpu[""], "µs", 0, limit)


def create_key(url: str) -> str:
    """Create an API key in a database."""
    command = (COMMAND, "key", "new", "benchmark")
    return subprocess.run(
        command, env=environment_for(url), capture_output=True, encoding="utf-8", check=True
    ).stdout.strip()


def measure_pages_of_a_large_table(urls: Iterator[str]) -> Iterator[Row]:
    fill(small_url := next(urls), 1_000)
    fill(large_url := next(urls), 1_000_000)
    with running(SERVE, small_url) as small, running(SERVE, large_url) as large:
        for query in ("", "&completed=true"):
            path = f"/api/tasks?limit=100{query}"
            starts = {"start": 0, "middle": 500_000, "end": 999_800 if query else 999_900}
            base: list[float] = []
            costs: dict[str, list[float]] = {position: [] for position in starts}
            for _ in range(ROUNDS):
                base.append(load.measure(small, "GET", path).cpu)
                for position, after in starts.items():
                    costs[position].append(load.measure(large, "GET", f"{path}&after={after}").cpu)
            for position, cost in costs.items():
                what = f"CPU of a page of 100 {'completed ' if query else ''}tasks at the {position} of 1,000,000"
                yield Row(f"{what}, compared with 1,000 tasks", median(cost) / median(base), "×", 2, 1.3)


def measure_start(urls: Iterator[str]) -> Iterator[Row]:
    fill(url := next(urls))
    times = []
    for _ in range(ROUNDS):
        with running(SERVE_CORE, url) as server:
            times.append(server.startup_seconds)
    yield Row("time from start to the first response, with an existing database", median(times), "s", 2, 0.4)
    for flag in ("--version", "--help"):
        times = []
        for _ in range(ROUNDS):
            started = time.monotonic()
            with pinned(SERVER_CORE):
                command = (CORE_COMMAND, flag)
                subprocess.run(command, env=environment_for(url), stdout=subprocess.DEVNULL, check=True)
            times.append(time.monotonic() - started)
        yield Row(f"time of `tasks-api {flag}`", median(times), "s", 2, 0.15)


def measure_memory(urls: Iterator[str]) -> Iterator[Row]:
    fill(url := next(urls))
    with running(SERVE_CORE, url) as server:
        completed, resident = 0.0, []
        for count in (100_000, 2_000_000):
            while completed < count:
                for request in OPERATIONS.values():
                    completed += load.finish(load.start_client(server, *request))["requests"]
            resident.append(server.process.memory_info().rss / 1e6)
    yield Row("resident memory after 100,000 requests", resident[0], "MB", 1, 75)
    yield Row("resident memory after 2,000,000 requests", resident[1], "MB", 1, 75)


def measure_memory_of_pages(urls: Iterator[str]) -> Iterator[Row]:
    for description in ("Finish the Next.js API routes guide", "b" * 4000):
        fill(url := next(urls), 1000, description)
        with running(SERVE_CORE, url) as server:
            before = server.process.memory_info().rss
            page = httpx.get(f"{server.url}/api/tasks?limit=1000").content
            status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
            peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
        yield Row(f"memory to build a page of 1,000 tasks, {len(page):,} bytes", (peak - before) / 1e6, "MB", 1)


SECTIONS = (
    measure_reads_during_writes,
    measure_reads_with_slow_clients,
    measure_optional_features,
    measure_pages_of_a_large_table,
    measure_start,
    measure_memory,
    measure_memory_of_pages,
)


def measure_conditions() -> Iterator[str]:
    """Yield the lines of a Markdown table of all measurements."""
    yield "| what | figure | target |"
    yield "|---|---:|---:|"
    for section in SECTIONS:
        with sqlite_urls() as urls:
            yield from map(str, section(urls))


def measure_compression() -> Iterator[str]:
    """Yield the lines of a Markdown table of the CPU time of requests with and without `Accept-Encoding: gzip`."""
    yield "| request | bytes | CPU µs | bytes compressed | CPU µs compressed |"
    yield "|---|---:|---:|---:|---:|"
    with sqlite_urls() as urls:
        fill(short := next(urls))
        fill(long := next(urls))
        with connected(long) as database:
            # Compression halves such a text, as it does with prose.
            database.execute_sql("UPDATE task SET description = hex(randomblob(2000))")
        with running(SERVE, short) as server, running(SERVE, long) as large:
            for what, each, path in (
                ("GET one", server, "/api/tasks/1"),
                ("a page of 50 tasks", server, "/api/tasks?limit=50"),
                ("a page of 1,000 tasks", server, "/api/tasks?limit=1000"),
                ("a page of 1,000 tasks with descriptions of 4,000 characters", large, "/api/tasks?limit=1000"),
            ):
                cells = [what]
                for encoding in ("identity", "gzip"):
                    header = f"Accept-Encoding: {encoding}"
                    rounds = [load.measure(each, "GET", path, f"--header={header}") for _ in range(ROUNDS)]
                    with httpx.stream("GET", each.url + path, headers={"Accept-Encoding": encoding}) as response:
                        size = sum(map(len, response.iter_raw()))
                    cells += [f"{size:,}", f"{load.medians(rounds).cpu:,.0f}"]
                yield f"| {' | '.join(cells)} |"
