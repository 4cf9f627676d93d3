"""Put load on a server, and measure its throughput, CPU time and latency."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.benchmarks.peers import CLIENT_CORE, Server, pinned

CLIENT = Path(__file__).with_name("client.py")


class Measurement(NamedTuple):
    """The performance of a server under load."""

    rate: float  # requests per second
    user: float  # CPU time of the server in user mode per request, in µs
    system: float  # CPU time of the server in the kernel per request, in µs
    p50: float  # median latency, in µs
    p99: float  # 99th percentile of the latency, in µs

    @property
    def cpu(self) -> float:
        """The CPU time of the server per request, in µs."""
        return self.user + self.system


def medians(rounds: list[Measurement]) -> Measurement:
    """Return the median of each value over all rounds."""
    return Measurement(*(median(values) for values in zip(*rounds, strict=True)))


def measure(server: Server, method: str, path: str, *options: str) -> Measurement:
    """Measure a server with the load generator."""
    user, system = server.cpu_seconds()
    totals = finish(start_client(server, method, path, *options))
    user_after, system_after = server.cpu_seconds()
    user, system = ((user_after - user) * 1e6 / totals["requests"], (system_after - system) * 1e6 / totals["requests"])
    return Measurement(totals["rate"], user, system, totals["p50"], totals["p99"])


def start_client(server: Server, method: str, path: str, *options: str) -> subprocess.Popen[str]:
    """Start the load generator on its core."""
    command = [sys.executable, str(CLIENT), method, server.url + path, *options]
    with pinned(CLIENT_CORE):
        return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")


def finish(process: subprocess.Popen[str]) -> dict[str, float]:
    """Wait until the load generator ends, and return its totals."""
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{process.args!r} failed.")
    totals: dict[str, float] = json.loads(output)
    if totals["failed"]:
        sys.exit(f"{process.args!r}: {totals['failed']:.0f} of {totals['requests']:.0f} requests failed.")
    return totals
