"""Count the instructions of the service and of the floor with valgrind, which neither load nor caches influence."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import load
from tests.benchmarks.comparison import OPERATIONS
from tests.benchmarks.databases import fill, sqlite_urls
from tests.benchmarks.peers import COMMANDS, FLOOR, SERVICE, SQLITE, running

# The instructions of a short run are subtracted from those of a long one, which leaves out the start and the warm-up.
SHORT, LONG = 2, 12


def measure_instructions() -> Iterator[str]:
    """Yield the lines of a Markdown table of the instructions per request in user mode."""
    yield f"| operation | {SERVICE} | {FLOOR} | ratio |"
    yield "|---|---:|---:|---:|"
    # How many writes share a flush depends on time, which passes differently in valgrind.
    for operation in ("GET one", "GET a list of 50"):
        method, path = OPERATIONS[operation]
        service, floor = (count(peer, method, path) for peer in (SERVICE, FLOOR))
        yield f"| {operation} | {service:,.0f} | {floor:,.0f} | {service / floor:.2f} × |"


def count(peer: str, method: str, path: str) -> float:
    """Return the number of instructions per request."""
    counts = []
    for seconds in (SHORT, LONG):
        with sqlite_urls() as urls:
            fill(url := next(urls))
            log = Path(url.removeprefix("sqlite:///")).with_suffix(".log")
            valgrind = "valgrind", "--tool=cachegrind", "--cachegrind-out-file=/dev/null", f"--log-file={log}"
            with running((*valgrind, *COMMANDS[SQLITE][peer]), url) as server:
                client = load.start_client(server, method, path, f"--seconds={seconds}")
                requests = load.finish(client)["requests"]
            instructions = re.search(r"I\s+refs:\s+([\d,]+)", log.read_text("utf-8"))
            assert instructions
            counts.append((int(instructions[1].replace(",", "")), requests))
    (short, fewer), (long, more) = counts
    return (long - short) / (more - fewer)
