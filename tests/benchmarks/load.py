"""Puts load on a server, and says how fast it answered."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.benchmarks.peers import APPLICATIONS, Server, pin, variables

CONNECTIONS = 16
SCRIPT = Path(__file__).with_name("load.lua")
WRK = shutil.which("wrk")


class Figures(NamedTuple):
    """How a server did under load."""

    requests: float  # a second
    cpu: float  # µs a request, of the server
    p50: float  # µs
    p99: float  # µs


def middle(rounds: list[Figures]) -> Figures:
    """Return the median of each figure."""
    return Figures(*(median(values) for values in zip(*rounds, strict=True)))


def wrk(server: Server, method: str, path: str, seconds: float = 2, connections: int = CONNECTIONS) -> Figures:
    """Let wrk make one request after the other on each connection."""
    cpu = server.cpu()
    outcome = finish(start_wrk(server, method, path, seconds, connections))
    spent = (server.cpu() - cpu) * 1e6 / outcome["requests"]
    return Figures(outcome["requests"] / outcome["seconds"], spent, outcome["p50"], outcome["p99"])


def start_wrk(
    server: Server, method: str, path: str, seconds: float, connections: int = CONNECTIONS
) -> subprocess.Popen[str]:
    """Start wrk, on another processor than the server's."""
    options = [f"-c{connections}", f"-d{seconds}", "-s", str(SCRIPT), server.url + path, "--", method]
    process = subprocess.Popen([str(WRK), "-t1", *options], stdout=subprocess.PIPE, text=True)
    pin(process.pid, 1)
    return process


def finish(process: subprocess.Popen[str]) -> dict[str, float]:
    """Wait for wrk, and return what it counted."""
    output, _ = process.communicate()
    outcome: dict[str, float] = json.loads(output.splitlines()[-1])
    if outcome["failed"]:
        sys.exit(f"{process.args!r}: {outcome['failed']} of {outcome['requests']} requests failed.")
    return outcome


def in_process(peer: str, folder: Path, method: str, path: str) -> Figures:
    """Let a peer's application be called without a server, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.in_process", APPLICATIONS[peer], method, path]
    output = subprocess.run(command, env=variables(folder), stdout=subprocess.PIPE, text=True, check=True).stdout
    return Figures(**json.loads(output.splitlines()[-1]))
