"""Start services, each with its own port and database."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from select import select
from tempfile import TemporaryFile
from typing import Any, Protocol

import httpx
import pytest

from handlers.contract.document import PREFIX
from handlers.environment import PLATFORM_VARIABLES
from tests.support.launcher import launcher
from tests.support.project import COMMAND, TIMEOUT

# coverage.py measures every process that has this variable. Only processes of the fork server get it: measuring other
# programs would make them much slower, and would add no coverage.
COVERAGE_VARIABLES = {
    name: os.environ.pop(name)
    for name in ("COVERAGE_PROCESS_CONFIG",)
    if name in os.environ and "PYTEST_XDIST_WORKER" in os.environ
}


class Service:
    """A running `tasks-api serve`.

    Args:
        folder: The working directory of the service, where it also keeps its SQLite file.
        flags: Further flags of `tasks-api serve`.
        command: A program to start instead of a process of the fork server.
        variables: Further environment variables of the service.
        port: The port to listen on, or 0 for any free port.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        command: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self._log = folder / "log"
        arguments = ["serve", "--port", str(port), *flags]
        self.process: Any
        with self._log.open("ab") as log:
            if command:
                self.process = subprocess.Popen(
                    [*command, *arguments],
                    cwd=folder,
                    env=environment(variables),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    encoding="utf-8",
                )
            else:
                self.process = launcher().start(arguments, folder, environment(variables) | COVERAGE_VARIABLES, log)
        is_announced = select([self.process.stdout], [], [], TIMEOUT)[0]
        self.announcement: str = self.process.stdout.readline() if is_announced else ""
        address = re.search(r"http://[^/,]+", self.announcement)
        if not address:
            self.process.kill()
            self.process.communicate()
            pytest.fail(f"The service did not start: {self.log()}")
        self.url = address[0]
        self.client = httpx.Client(base_url=self.url, timeout=30, verify=False)

    def log(self) -> str:
        """Return the text that the service has written to standard error so far."""
        return self._log.read_text("utf-8")

    def stop(self) -> int:
        """Stop the service with SIGTERM, and return its exit status."""
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=30)
        return int(self.process.returncode)


class Start(Protocol):
    """A function that starts a service; it takes the arguments of `Service`, but uses the test's folder by default."""

    def __call__(self, *flags: str, folder: Path = ..., **options: Any) -> Service: ...


def environment(variables: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of this process without the settings of the service, plus the given variables.

    Every service in the tests validates its responses. Processes always write bytecode files, since the tests start the
    same code hundreds of times.
    """
    prefixes, others = (PREFIX, "DATABASE_"), PLATFORM_VARIABLES.values()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(prefixes) and name not in others
    }
    always = {f"{PREFIX}VALIDATE_RESPONSES": "true", "PYTHONDONTWRITEBYTECODE": ""}
    return inherited | always | (variables or {})


def run(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `tasks-api` to its end, in a process of the fork server."""
    with TemporaryFile("w+", encoding="utf-8") as errors:
        process = launcher().start([*arguments], folder, environment(variables) | COVERAGE_VARIABLES, errors)
        output, _ = process.communicate(timeout=30)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, process.wait(), output, errors.read())


def run_installed(
    folder: Path, *arguments: str, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the installed command `tasks-api` to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment(variables),
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


class RoundRobinTransport(httpx.BaseTransport):
    """An HTTPX transport that sends requests to several services in turn, whatever the URLs of the requests are."""

    def __init__(self, services: list[Service]) -> None:
        self._transport = httpx.HTTPTransport(verify=False, limits=httpx.Limits(max_connections=None))
        self._next = cycle([httpx.URL(service.url) for service in services])

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        # Change only the port to connect to; the `Host` header stays unchanged.
        request.url = request.url.copy_with(port=next(self._next).port)
        return self._transport.handle_request(request)

    def close(self) -> None:
        self._transport.close()


@contextmanager
def running(backend: str, folder: Path, *flags: str, **options: Any) -> Iterator[Service]:
    """Run a service, or two nodes with a common client that alternates between them."""
    with ExitStack() as stack:
        services = [Service(folder, *flags, **options) for _ in range(2 if backend == "two nodes" else 1)]
        for service in services:
            stack.callback(service.stop)
        first = services[0]
        if len(services) > 1:
            first.client.close()
            first.client = httpx.Client(base_url=first.url, transport=RoundRobinTransport(services), timeout=30)
        yield first
