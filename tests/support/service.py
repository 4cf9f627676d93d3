"""Running services, on sockets and databases of their own."""

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

from tests.support.launcher import launcher
from tests.support.project import COMMAND, PATIENCE

# Coverage measures each process that it finds this in. Only what the fork server starts is to find it: programs that
# tests run, services among them, would take half as long again, and reach no other lines.
MEASURED = {
    name: os.environ.pop(name)
    for name in ("COVERAGE_PROCESS_CONFIG",)
    if name in os.environ and "PYTEST_XDIST_WORKER" in os.environ
}


class Service:
    """A running `tasks-api serve`.

    Args:
        folder: Where it runs, and so keeps its tasks.
        flags: Further flags of the command.
        command: The command, where it is to be started as a program; by default it is forked by the fork server.
        variables: Further environment variables.
        port: Where it listens; 0 for any that is free.
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
                    text=True,
                )
            else:
                self.process = launcher().start(arguments, folder, environment(variables) | MEASURED, log)
        is_announced = select([self.process.stdout], [], [], PATIENCE)[0]
        self.announcement: str = self.process.stdout.readline() if is_announced else ""
        address = re.search(r"http://[^/]+", self.announcement)
        if not address:
            self.process.kill()
            self.process.communicate()
            pytest.fail(f"The service does not start: {self.log()}")
        self.url = address[0]
        self.client = httpx.Client(base_url=self.url, timeout=30, verify=False)

    def log(self) -> str:
        """Return what the command has written to its standard error so far."""
        return self._log.read_text()

    def stop(self) -> int:
        """End the command with SIGTERM, and return its exit status."""
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=30)
        return int(self.process.returncode)


class Start(Protocol):
    """Starts a service, as `Service` does; in the test's folder where no other is given."""

    def __call__(self, *flags: str, folder: Path = ..., **options: Any) -> Service: ...


def environment(variables: dict[str, str] | None = None) -> dict[str, str]:
    """Return this environment with the given variables for its settings; responses are validated in every test.

    Bytecode is kept, whatever this environment says, since the same code is started some hundred times.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TASKS_", "DATABASE_"))}
    always = {"TASKS_API_VALIDATE_RESPONSES": "true", "PYTHONDONTWRITEBYTECODE": ""}
    return inherited | always | (variables or {})


def run(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in a process that the fork server starts."""
    with TemporaryFile("w+") as errors:
        process = launcher().start([*arguments], folder, environment(variables) | MEASURED, errors)
        output, _ = process.communicate(timeout=30)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, process.wait(), output, errors.read())


def run_installed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class Alternating(httpx.BaseTransport):
    """Sends each request to the next one of several services, whichever its address names."""

    def __init__(self, services: list[Service]) -> None:
        self._transport = httpx.HTTPTransport(verify=False, limits=httpx.Limits(max_connections=None))
        self._next = cycle([httpx.URL(service.url) for service in services])

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        # `Host` stays what was asked.
        request.url = request.url.copy_with(port=next(self._next).port)
        return self._transport.handle_request(request)

    def close(self) -> None:
        self._transport.close()


@contextmanager
def running(backend: str, folder: Path, *flags: str, **options: Any) -> Iterator[Service]:
    """Run a service, or two nodes of it, between which its client alternates."""
    with ExitStack() as stack:
        services = [Service(folder, *flags, **options) for _ in range(2 if backend == "two nodes" else 1)]
        for service in services:
            stack.callback(service.stop)
        first = services[0]
        if len(services) > 1:
            first.client.close()
            first.client = httpx.Client(base_url=first.url, transport=Alternating(services), timeout=30)
        yield first
