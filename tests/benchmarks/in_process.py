"""Put load on an ASGI application without a server: `python -m tests.benchmarks.in_process APPLICATION METHOD PATH`."""

import asyncio
import json
import sys
import time
from statistics import quantiles
from typing import Any

import uvloop
from starlette.types import ASGIApp, Message, Scope
from uvicorn import Config

CLIENTS = 16
SECONDS = 2.0
TASKS = 1000


def build_request(method: str, path: str, number: int) -> tuple[Scope, bytes]:
    """Return the ASGI scope and the body of the request with this number."""
    path, _, query = path.partition("?")
    body = b""
    if method != "GET":
        body = b'{"title": "Task %d", "description": "Finish the guide", "completed": false}' % number
    if method == "PUT":
        path = f"{path}/{number % TASKS + 1}"
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers += [(b"content-length", b"%d" % len(body))] if body else []
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "state": {},
    }
    scope |= {"method": method, "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": ""}
    scope |= {"query_string": query.encode(), "headers": headers, "server": ("localhost", 80), "client": None}
    return scope, body


async def send_request(app: ASGIApp, method: str, path: str, number: int) -> None:
    scope, body = build_request(method, path, number)

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        assert message.get("status", 200) < 300, message

    await app(scope, receive, send)


async def main(reference: str, method: str, path: str) -> None:
    config = Config(reference, factory=reference.endswith(":create_app"), proxy_headers=False, log_level="warning")
    config.load()
    lifespan = config.lifespan_class(config)
    await lifespan.startup()
    latencies: list[float] = []
    end = time.perf_counter() + SECONDS

    async def run_client() -> None:
        while (before := time.perf_counter()) < end:
            await send_request(config.loaded_app, method, path, len(latencies))
            latencies.append(time.perf_counter() - before)

    cpu = time.process_time()
    await asyncio.gather(*(run_client() for _ in range(CLIENTS)))
    cpu = time.process_time() - cpu
    await lifespan.shutdown()
    percentiles = [cut * 1e6 for cut in quantiles(latencies, n=100)]
    p50, p99 = percentiles[49], percentiles[98]
    count = len(latencies)
    print(json.dumps({"requests": count / SECONDS, "cpu": cpu * 1e6 / count, "p50": p50, "p99": p99}))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
