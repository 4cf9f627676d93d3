"""The metrics, as Prometheus reads them; loaded only where they are wanted.

Each process keeps what it counts in files of a folder that all of them share (PROMETHEUS_MULTIPROC_DIR, which has to be
set before this is loaded), so that nothing is lost with a process, and one address tells of all
(prometheus.github.io/client_python/multiprocess).
"""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import Scope

from handlers.contract.problems import operation_of
from models.database.address import database
from models.database.errors import ConfigurationError

# How many seconds pass between two looks at what there is for the moment.
PAUSE = 0.5
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
WRITES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUESTS = Counter("tasks_api_requests", "Requests, by what they were answered.", ["operation", "status"])
DURATION = Histogram("tasks_api_request_duration_seconds", "How long requests took.", ["operation"], buckets=SECONDS)
BATCH = Histogram("tasks_api_write_batch_size", "How many writes shared a commit of a SQLite file.", buckets=WRITES)
QUEUE = Gauge(
    "tasks_api_write_queue_depth",
    "Writes that wait for their commit, or requests that wait for a connection to a server.",
    multiprocess_mode="livesum",
)
CONNECTIONS = Gauge(
    "tasks_api_database_connections", "Connections to a server.", ["state"], multiprocess_mode="livesum"
)


class Processes:
    """Collects what all processes have counted, and what those that live have at the moment.

    The collector of prometheus_client fails if it comes upon a file that has just been made, and takes a gauge of the
    dead for one of the living.
    """

    def collect(self) -> Iterable[Metric]:
        folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        metrics: Iterable[Metric] = MultiProcessCollector.merge([file for file in folder.glob("*.db") if _tells(file)])
        return metrics


def serve(address: str) -> None:
    """Serve the metrics, as long as this process runs.

    Args:
        address: A host and a port.

    Raises:
        ConfigurationError: Nothing can listen there.
    """
    registry = CollectorRegistry()
    registry.register(Processes())
    host, _, port = address.rpartition(":")
    try:
        start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot serve metrics on {address}: {error.strerror}; choose another address with --metrics."
        ) from error


def count(scope: Scope, status: int | None, seconds: float) -> None:
    """Count a request; a status or an operation that there is not is `none`."""
    operation = operation_of(scope) or "none"
    REQUESTS.labels(operation, status or "none").inc()
    DURATION.labels(operation).observe(seconds)


def _tells(file: Path) -> bool:
    """Return whether a file, which is named after what it holds and its process, is to be read."""
    if not file.stat().st_size:
        return False
    kind, *_, process = file.stem.split("_")
    return kind != "gauge" or _lives(int(process))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


async def watch_database() -> None:
    """Keep, as long as the service runs, to what the database is busy with."""
    database.observe_batches(BATCH.observe)
    while True:
        QUEUE.set(database.queue_depth())
        for state, number in database.connection_states().items():
            CONNECTIONS.labels(state).set(number)
        await asyncio.sleep(PAUSE)
