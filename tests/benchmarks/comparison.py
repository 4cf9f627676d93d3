"""Compare the service with its peers on one database."""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx

from tests.benchmarks import load
from tests.benchmarks.databases import URLS, fill
from tests.benchmarks.load import Measurement
from tests.benchmarks.peers import (
    CLIENT_CORE,
    COMMANDS,
    CONNEXION,
    FASTAPI,
    FASTIFY,
    FLOOR,
    LITESTAR,
    POSTGRESQL,
    SERVICE,
    SQLITE,
    pinned,
    running,
)

ROUNDS = 9
OPERATIONS = {
    "GET one": ("GET", "/api/tasks/1"),
    "GET a list of 50": ("GET", "/api/tasks?limit=50"),
    "PUT": ("PUT", "/api/tasks"),
    "POST": ("POST", "/api/tasks"),
}
INVALID_BODIES: list[dict[str, Any]] = [
    {},
    {"title": ""},
    {"title": "a" * 256},
    {"title": "a", "description": "b" * 4001},
    {"title": "a", "completed": "no boolean"},
    {"title": "a", "other": 1},
]

# A measurement by operation and peer.
Results = dict[tuple[str, str], Measurement]


class Target(NamedTuple):
    """A limit for a figure of the service, divided by that of a peer: a minimum for a rate, else a maximum."""

    figure: str
    limit: float

    def ratio(self, service: Measurement, peer: Measurement) -> float:
        return float(getattr(service, self.figure) / getattr(peer, self.figure))

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.figure == "rate" else ratio <= self.limit


FIGURES = {"rate": "requests/s", "user": "user CPU", "cpu": "CPU"}
# The targets by database and peer: one for each of OPERATIONS, in that order.
TARGETS = {
    SQLITE: {
        FLOOR: (Target("user", 1.5), Target("user", 1.15), Target("rate", 3), Target("rate", 3)),
        FASTAPI: (Target("rate", 13), Target("rate", 12), Target("rate", 12), Target("rate", 10)),
        LITESTAR: (Target("rate", 1),) * 4,
        CONNEXION: (Target("rate", 8), Target("rate", 5.5), Target("rate", 9), Target("rate", 7)),
        FASTIFY: (Target("rate", 0.6), Target("rate", 1.1), Target("rate", 1), Target("rate", 1)),
    },
    POSTGRESQL: {
        FLOOR: (Target("cpu", 1.35), Target("cpu", 1.25), Target("cpu", 1.25), Target("cpu", 1.35)),
        FASTAPI: (Target("rate", 6),) * 4,
        LITESTAR: (Target("rate", 1),) * 4,
        FASTIFY: (Target("rate", 0.8), Target("rate", 1), Target("rate", 1), Target("rate", 0.8)),
    },
}


def compare(database: str) -> Results:
    """Measure the peers in turn, in several rounds, so that a slowdown of the machine affects all of them."""
    # The client leaves its core to PostgreSQL. It would get too little time there if it did not sleep.
    options = ["--sleep"] if database == POSTGRESQL else []
    rounds: dict[tuple[str, str], list[Measurement]] = {}
    with ExitStack() as stack:
        with pinned(CLIENT_CORE):
            urls = stack.enter_context(URLS[database]())
        servers = {}
        for peer, command in COMMANDS[database].items():
            fill(url := next(urls))
            servers[peer] = stack.enter_context(running(command, url))
            check(peer, servers[SERVICE].url, servers[peer].url)
        for number in range(1, ROUNDS + 1):
            print(f"{database}: round {number} of {ROUNDS}", file=sys.stderr)
            for operation, request in OPERATIONS.items():
                for peer, server in servers.items():
                    rounds.setdefault((operation, peer), []).append(load.measure(server, *request, *options))
    return {key: load.medians(measurements) for key, measurements in rounds.items()}


def check(peer: str, service_url: str, url: str) -> None:
    """Exit if a peer does not answer as the service does."""
    task = {"title": "A title", "description": "A description", "completed": True}
    for path in ("/api/tasks/2", "/api/tasks?limit=50&after=1"):
        if httpx.get(url + path).json() != httpx.get(service_url + path).json():
            sys.exit(f"{peer} does not answer {path} as the service does.")
    replaced = httpx.put(f"{url}/api/tasks/1", json=task)
    if replaced.json() != {"id": 1, **task, "createdAt": "2026-05-12T10:32:14.000Z"}:
        sys.exit(f"{peer} does not replace a task: {replaced.text}")
    created = httpx.post(f"{url}/api/tasks", json={"title": "A title"})
    created_at = created.json().pop("createdAt")
    expected = {"id": 1001, "title": "A title", "description": None, "completed": False, "createdAt": created_at}
    if created.json() != expected or not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created_at):
        sys.exit(f"{peer} does not create a task: {created.text}")
    for body in INVALID_BODIES if peer != FLOOR else ():
        if not httpx.post(f"{url}/api/tasks", json=body).is_client_error:
            sys.exit(f"{peer} accepts {body}.")


def format_table(database: str, results: Results) -> Iterator[str]:
    """Yield the lines of a Markdown table of the results, with the ratios of the service to its peers."""
    yield "| operation | application | requests/s | user CPU µs | system CPU µs | p50 ms | p99 ms | ratio | target |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for (operation, peer), result in results.items():
        row = [operation, peer, f"{result.rate:,.0f}", f"{result.user:.0f}", f"{result.system:.0f}"]
        row += [
            f"{result.p50 / 1000:.2f}",
            f"{result.p99 / 1000:.2f}",
            *format_target(database, operation, peer, results),
        ]
        yield f"| {' | '.join(row)} |"


def format_target(database: str, operation: str, peer: str, results: Results) -> tuple[str, str]:
    """Return the ratio of the service to a peer, and its target."""
    if peer == SERVICE:
        return "", ""
    target = TARGETS[database][peer][list(OPERATIONS).index(operation)]
    ratio = target.ratio(results[operation, SERVICE], results[operation, peer])
    sign = "≥" if target.figure == "rate" else "≤"
    missed = "" if target.is_met(ratio) else ", missed"
    return f"{ratio:.2f} × {FIGURES[target.figure]}", f"{sign} {target.limit} ×{missed}"
