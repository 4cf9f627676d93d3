"""Put load on a server, and measure its throughput, CPU time and latency."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.benchmarks.peers import APPLICATIONS, Server, environment_for, pin

CONNECTIONS = 16
SCRIPT = Path(__file__).with_name("load.lua")
WRK = shutil.which("wrk")


class Measurement(NamedTuple):
    """The performance of a server under load."""

    requests: float  # requests per second
    cpu: float  # CPU time of the server per request, in µs
    p50: float  # median latency, in µs
    p99: float  # 99th percentile of the latency, in µs


def medians(rounds: list[Measurement]) -> Measurement:
    """Return the median of each value over all rounds."""
    return Measurement(*(median(values) for values in zip(*rounds, strict=True)))


def run_wrk(server: Server, method: str, path: str, seconds: float = 2, connections: int = CONNECTIONS) -> Measurement:
    """Measure a server with wrk, which sends one request after another on each connection."""
    cpu_before = server.cpu_seconds()
    totals = finish(start_wrk(server, method, path, seconds, connections))
    cpu = (server.cpu_seconds() - cpu_before) * 1e6 / totals["requests"]
    return Measurement(totals["requests"] / totals["seconds"], cpu, totals["p50"], totals["p99"])


def start_wrk(
    server: Server, method: str, path: str, seconds: float, connections: int = CONNECTIONS
) -> subprocess.Popen[str]:
    """Start wrk on a processor that the server does not use."""
    options = [f"-c{connections}", f"-d{seconds}", "-s", str(SCRIPT), server.url + path, "--", method]
    process = subprocess.Popen([str(WRK), "-t1", *options], stdout=subprocess.PIPE, encoding="utf-8")
    pin(process.pid, 1)
    return process


def finish(process: subprocess.Popen[str]) -> dict[str, float]:
    """Wait until wrk ends, and return its results."""
    output, _ = process.communicate()
    totals: dict[str, float] = json.loads(output.splitlines()[-1])
    if totals["failed"]:
        sys.exit(f"{process.args!r}: {totals['failed']} of {totals['requests']} requests failed.")
    return totals


def run_in_process(peer: str, folder: Path, method: str, path: str) -> Measurement:
    """Measure a peer's application without a server, in a separate process."""
    command = [sys.executable, "-m", "tests.benchmarks.in_process", APPLICATIONS[peer], method, path]
    output = subprocess.run(
        command, env=environment_for(folder), stdout=subprocess.PIPE, encoding="utf-8", check=True
    ).stdout
    return Measurement(**json.loads(output.splitlines()[-1]))
