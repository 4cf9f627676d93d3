"""Count and publish Prometheus metrics; imported only if `--metrics` is set.

Every process writes its metrics to files in one folder. So one address serves the sum, and the counts of a process are
not lost when it ends (prometheus.github.io/client_python/multiprocess). The environment variable
PROMETHEUS_MULTIPROC_DIR must name the folder before this module is imported.
"""

import asyncio
import os
import signal
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import Scope

from handlers.contract import document
from handlers.contract.scope import operation_id_of
from models.database.address import Database
from models.database.errors import ConfigurationError

INTERVAL = 0.5  # seconds between updates of the gauges
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
WRITES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

PREFIX = document.COMMAND.replace("-", "_")
REQUESTS = Counter(f"{PREFIX}_requests", "Requests by operation and status.", ["operation", "status"])
DURATION = Histogram(f"{PREFIX}_request_duration_seconds", "Duration of requests.", ["operation"], buckets=SECONDS)
BATCH_SIZE = Histogram(f"{PREFIX}_write_batch_size", "Writes per commit of a SQLite file.", buckets=WRITES)
QUEUE_DEPTH = Gauge(
    f"{PREFIX}_write_queue_depth",
    "Writes that wait for a commit, or requests that wait for a PostgreSQL connection.",
    multiprocess_mode="livesum",
)
CONNECTIONS = Gauge(
    f"{PREFIX}_database_connections", "PostgreSQL connections by state.", ["state"], multiprocess_mode="livesum"
)


class AllProcesses:
    """Collects the counters of all processes, and the gauges of running processes.

    The library's collector fails on files that were just created, and includes the gauges of ended processes.
    """

    def collect(self) -> Iterable[Metric]:
        folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        yield from MultiProcessCollector.merge([file for file in folder.glob("*.db") if _counts(file)])


def serve(address: str) -> None:
    """Serve the metrics in a thread until this process ends. Raise ConfigurationError if the address is unusable."""
    registry = CollectorRegistry()
    registry.register(AllProcesses())
    host, _, port = address.rpartition(":")
    # The thread inherits the signal mask. So it never gets Ctrl-C, which other threads handle.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        start_http_server(int(port), host.strip("[]"), registry)
    # UnicodeError: a label of the name is empty or too long.
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", error)
        message = f"Cannot serve metrics on {address}: {reason}; choose another address with --metrics."
        raise ConfigurationError(message) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def count(scope: Scope, status: int | None, seconds: float) -> None:
    """Count a request. A label is `none` if there was no operation or no response."""
    requests, duration = _metrics_for(operation_id_of(scope) or "none", status or "none")
    requests.inc()
    duration.observe(seconds)


@cache
def _metrics_for(operation: str, status: int | str) -> tuple[Counter, Histogram]:
    # The library's lookup of labels takes as long as the rest.
    return REQUESTS.labels(operation, status), DURATION.labels(operation)


async def watch(database: Database) -> None:
    """Keep the metrics of the database up to date until cancelled."""
    database.observe_batch = BATCH_SIZE.observe
    while True:
        QUEUE_DEPTH.set(database.queue_depth())
        for state, number in database.connection_states().items():
            CONNECTIONS.labels(state).set(number)
        await asyncio.sleep(INTERVAL)


def _counts(file: Path) -> bool:
    """Return whether to read a file: it has content, and is not named after gauges of an ended process."""
    kind, *_, process = file.stem.split("_")
    try:
        if kind == "gauge":
            # This raises an error if the process has ended.
            os.kill(int(process), 0)
    except OSError:
        return False
    return file.stat().st_size > 0
