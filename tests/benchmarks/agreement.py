"""Check that the ratio of the service to the floor is the same with a client that sleeps and with one that spins."""

from collections.abc import Iterator
from contextlib import ExitStack

from tests.benchmarks import load
from tests.benchmarks.comparison import FIGURES, OPERATIONS
from tests.benchmarks.databases import fill, sqlite_urls
from tests.benchmarks.load import Measurement
from tests.benchmarks.peers import COMMANDS, FLOOR, SERVICE, SQLITE, running

ROUNDS = 11
# In percent.
TARGET = 10


def measure_agreement() -> Iterator[str]:
    """Yield the lines of a Markdown table of the ratios with both clients."""
    yield "| operation | figure | ratio, client spins | ratio, client sleeps | difference | target |"
    yield "|---|---|---:|---:|---:|---:|"
    with sqlite_urls() as urls, ExitStack() as stack:
        servers = {}
        for peer in (SERVICE, FLOOR):
            fill(url := next(urls))
            servers[peer] = stack.enter_context(running(COMMANDS[SQLITE][peer], url))
        for operation in ("GET one", "GET a list of 50"):
            rounds: dict[tuple[str, bool], list[Measurement]] = {}
            for _ in range(ROUNDS):
                for sleeps in (False, True):
                    for peer, server in servers.items():
                        measurement = load.measure(server, *OPERATIONS[operation], *["--sleep"] * sleeps)
                        rounds.setdefault((peer, sleeps), []).append(measurement)
            results = {key: load.medians(measurements) for key, measurements in rounds.items()}
            for figure, name in FIGURES.items():
                spins, sleeps = (
                    getattr(results[SERVICE, mode], figure) / getattr(results[FLOOR, mode], figure)
                    for mode in (False, True)
                )
                difference = round(abs(sleeps / spins - 1) * 100)
                target = (f"≤ {TARGET} %" + ", missed" * (difference > TARGET)) if figure == "user" else ""
                row = operation, name, f"{spins:.2f} ×", f"{sleeps:.2f} ×", f"{difference} %", target
                yield f"| {' | '.join(row)} |"
