"""Print measurements as Markdown tables: `python -m tests.benchmarks [SECTION ...]`."""

import os
import platform
import sys
from collections.abc import Iterable, Iterator

from tests.benchmarks.agreement import measure_agreement
from tests.benchmarks.chart import draw
from tests.benchmarks.comparison import OPERATIONS, Results, compare, format_table
from tests.benchmarks.conditions import measure_compression, measure_conditions
from tests.benchmarks.instructions import measure_instructions
from tests.benchmarks.peers import FASTAPI, POSTGRESQL, SERVICE, SQLITE
from tests.support.project import ROOT

SECTIONS = ("sqlite", "postgresql", "clients", "service")
# It needs valgrind.
OPTIONAL_SECTIONS = ("instructions",)


def format_summary(results: dict[str, Results]) -> Iterator[str]:
    """Yield the lines of the Markdown table in the README: the service compared with FastAPI on each database."""
    yield f"| operation | {' | '.join(results)} |"
    yield f"|---|{'---:|' * len(results)}"
    for operation in OPERATIONS:
        rates = [(each[operation, SERVICE].rate, each[operation, FASTAPI].rate) for each in results.values()]
        yield f"| {operation} | {' | '.join(f'{service / peer:.1f} ×' for service, peer in rates)} |"


def show(title: str, lines: Iterable[str]) -> None:
    """Print lines as soon as they are known."""
    print(f"\n### {title}\n")
    for line in lines:
        print(line, flush=True)


def main() -> None:
    chosen = sys.argv[1:] or SECTIONS
    if unknown := set(chosen).difference(SECTIONS, OPTIONAL_SECTIONS):
        sys.exit(f"Unknown: {', '.join(unknown)}. Choose from {', '.join(SECTIONS + OPTIONAL_SECTIONS)}.")
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}")
    if (busy := os.getloadavg()[0]) > 0.5:
        print(
            f"The figures will be wrong: other programs run on this machine (load average {busy:.1f}).", file=sys.stderr
        )
    results = {database: compare(database) for database in (SQLITE, POSTGRESQL) if database.lower() in chosen}
    for database, measurements in results.items():
        show(database, format_table(database, measurements))
    if len(results) == 2:
        show("Compared with FastAPI and SQLAlchemy", format_summary(results))
        draw(results, ROOT / "docs/benchmark.png")
    if "clients" in chosen:
        show("Client that spins, and client that sleeps", measure_agreement())
    if "instructions" in chosen:
        show("Instructions a request", measure_instructions())
    if "service" in chosen:
        show("Conditions", measure_conditions())
        show("Compression", measure_compression())


main()
