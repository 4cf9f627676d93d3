"""The load generator: a program that sends one request after another on each of its connections, in one thread.

A client that sleeps until the next response has to be woken by the server, which is expensive on some machines. A fast
server does not pay for this, because it leaves the client no time to sleep. Therefore, this client spins: it polls its
connections without sleeping, at the lowest priority, so that it takes no CPU time from a database server on its core.
"""

import json
import os
import select
import socket
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from urllib.parse import urlsplit

TASKS = 1000
BODY = '{"title": "Task %07d", "description": "Finish the guide", "completed": false}'
BUFFER = 65536
TIMEOUT = 30.0  # seconds to wait for the last responses


def make_requests(method: str, url: str, headers: list[str]) -> Callable[[int], bytes]:
    """Return a function that returns the request with a number; a PUT replaces one task after another."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"Host: {parts.netloc}", *headers]
    if method == "GET":
        request = "\r\n".join([f"GET {target} HTTP/1.1", *lines, "\r\n"]).encode()
        return lambda _: request
    lines += ["Content-Type: application/json", f"Content-Length: {len(BODY % 0)}"]
    if method == "PUT":
        template = "\r\n".join([f"PUT {target}/%d HTTP/1.1", *lines, f"\r\n{BODY}"]).encode()
        return lambda number: template % (number % TASKS + 1, number)
    template = "\r\n".join([f"POST {target} HTTP/1.1", *lines, f"\r\n{BODY}"]).encode()
    return lambda number: template % number


def is_complete(response: bytes) -> bool:
    """Check whether the bytes received so far are a complete response, with a Content-Length or in chunks."""
    end = response.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = response[:end].lower()
    start = head.find(b"\r\ncontent-length:")
    if start >= 0:
        return len(response) >= end + 4 + int(head[start + 17 :].split(b"\r\n", 1)[0])
    position = end + 4
    while (line := response.find(b"\r\n", position)) >= 0:
        size = int(response[position:line], 16)
        position = line + 2 + size + 2
        if size == 0:
            return len(response) >= position
    return False


def run(options: Namespace) -> dict[str, float]:
    """Send requests until the time is up, wait for the last responses, and return the totals."""
    parts = urlsplit(options.url)
    make_request = make_requests(options.method, options.url, options.header)
    timeout = TIMEOUT if options.sleep else 0
    poll = select.epoll()
    connections: dict[int, socket.socket] = {}
    started: dict[int, float] = {}
    partial: dict[int, bytes] = {}
    latencies: list[float] = []
    sent = failed = 0
    clock = time.perf_counter
    for _ in range(options.connections):
        connection = socket.create_connection((parts.hostname, parts.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        poll.register(connection, select.EPOLLIN)
        connections[connection.fileno()] = connection
    deadline = clock() + options.seconds
    for descriptor, connection in connections.items():
        started[descriptor] = clock()
        connection.send(make_request(sent))
        sent += 1
    while started:
        for descriptor, _ in poll.poll(timeout):
            connection = connections[descriptor]
            received = connection.recv(BUFFER)
            if not received:
                sys.exit("The server closed a connection.")
            response = partial.pop(descriptor) + received if descriptor in partial else received
            if not is_complete(response):
                partial[descriptor] = response
                continue
            now = clock()
            latencies.append(now - started[descriptor])
            failed += response[9:10] != b"2"
            if now < deadline:
                started[descriptor] = now
                connection.send(make_request(sent))
                sent += 1
            else:
                del started[descriptor]
        if clock() > deadline + TIMEOUT:
            sys.exit(f"{len(started)} responses did not arrive.")
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] * 1e6 for share in (0.50, 0.99))
    # When the time was up, each connection was waiting for a response.
    rate = (sent - options.connections) / options.seconds
    return {"requests": sent, "rate": rate, "failed": failed, "p50": p50, "p99": p99}


def main() -> None:
    """Print the totals as JSON."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=("GET", "PUT", "POST"))
    parser.add_argument("url")
    parser.add_argument("--header", action="append", default=[], help="a further header of each request")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--sleep", action="store_true", help="sleep until a response arrives, instead of spinning")
    options = parser.parse_args()
    if not options.sleep:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
