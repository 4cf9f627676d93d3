"""Fixtures: a real server, on a socket of its own, with a database of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests.stores import PostgresqlStore, SqliteStore, Store, migrated_template, postgresql_server

ROOT = Path(__file__).parents[1]
COMMAND = str(Path(sys.executable).with_name("tasks-api"))
# The command as the code in the working directory has it.
FROM_FOLDER = (sys.executable, "-c", "from handlers.cli import main; main()")

# What the wheel is built from.
SOURCES = ("handlers", "models", "tests/contract", "openapi.yaml", "pyproject.toml", "README.md", "LICENSE")

# Coverage measures each process that it finds this in. Only services are to find it, and not the tools that tests run,
# which would take longer; the process that starts those of pytest-xdist hands it on.
MEASURED = {
    name: os.environ.pop(name)
    for name in ("COVERAGE_PROCESS_CONFIG",)
    if name in os.environ and "PYTEST_XDIST_WORKER" in os.environ
}
# For services that reach no other lines than those of other tests: to measure that takes a third of their time.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}


class Service:
    """A running `tasks-api serve`.

    Args:
        folder: Where it runs, and so keeps its tasks.
        flags: Further flags of the command.
        command: The command, where it is another than the one installed beside this Python.
        variables: Further environment variables.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        command: tuple[str, ...] = (COMMAND,),
        variables: dict[str, str] | None = None,
    ) -> None:
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "serve", "--port", "0", *flags],
                cwd=folder,
                env=environment(variables),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout
        self.announcement = self.process.stdout.readline()
        address = re.search(r"http://[^/]+", self.announcement)
        assert address, self.log()
        self.url = address[0]
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def log(self) -> str:
        """Return what the command has written to its standard error so far."""
        return self._log.read_text()

    def stop(self) -> int:
        """End the command with SIGTERM, and return its exit status."""
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode


def environment(variables: dict[str, str] | None = None) -> dict[str, str]:
    """Return this environment with the given variables for its settings; responses are validated in every test.

    Bytecode is kept, whatever this environment says, since the same code is started some hundred times.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TASKS_", "DATABASE_"))}
    always = {"TASKS_API_VALIDATE_RESPONSES": "true", "PYTHONDONTWRITEBYTECODE": ""}
    return inherited | MEASURED | always | (variables or {})


def run(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command `tasks-api` to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class Alternating(httpx.BaseTransport):
    """Sends each request to the next one of several services, whichever its address names."""

    def __init__(self, services: list[Service]) -> None:
        self._transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=None))
        self._next = cycle([httpx.URL(service.url) for service in services])

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        # `Host` stays what was asked.
        request.url = request.url.copy_with(port=next(self._next).port)
        return self._transport.handle_request(request)

    def close(self) -> None:
        self._transport.close()


class Start(Protocol):
    """Starts a service, as `Service` does; in the test's folder where no other is given."""

    def __call__(self, *flags: str, folder: Path = ..., **options: Any) -> Service: ...


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server: of `TEST_DATABASE_URL`, or of one that runs for the tests."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    # The tests that are about durability have servers of their own.
    with postgresql_server(fsync="off") as started:
        yield started.get_uri()


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a database with the schema of this release."""
    with migrated_template(server) as name:
        yield name


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Where the service keeps its tasks; every test that starts one runs with each."""
    return str(request.param)


@pytest.fixture(scope="module")
def variables(backend: str) -> dict[str, str]:
    """Environment variables that the services of a module have beside those of every test.

    What a server alone leads to is measured by tests of their own.
    """
    return {} if backend == "sqlite" else UNMEASURED


@contextmanager
def opened(backend: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Make an empty store."""
    if backend == "sqlite":
        yield SqliteStore(folder / "tasks.db")
        return
    template = request.getfixturevalue("template")
    with closing(PostgresqlStore(request.getfixturevalue("server"), template)) as store:
        yield store


@pytest.fixture
def store(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Where the service keeps its tasks, without tasks."""
    with opened(backend, tmp_path, request) as store:
        yield store


@contextmanager
def running(backend: str, folder: Path, *flags: str, **options: Any) -> Iterator[Service]:
    """Run a service, or two nodes of it, between which its client alternates."""
    nodes = 2 if backend == "two nodes" else 1
    if nodes > 1:
        options["variables"] |= UNMEASURED
    with ExitStack() as stack:
        services = [Service(folder, *flags, **options) for _ in range(nodes)]
        for service in services:
            stack.callback(service.stop)
        first = services[0]
        if len(services) > 1:
            first.client.close()
            first.client = httpx.Client(base_url=first.url, transport=Alternating(services), timeout=30)
        yield first


@pytest.fixture
def start(backend: str, store: Store, tmp_path: Path, variables: dict[str, str]) -> Iterator[Start]:
    """What starts services on the store, which are stopped when the test ends."""
    with ExitStack() as stack:

        def start(*flags: str, folder: Path = tmp_path, **options: Any) -> Service:
            options["variables"] = {"DATABASE_URL": store.url} | variables | (options.get("variables") or {})
            return stack.enter_context(running(backend, folder, *flags, **options))

        yield start


@pytest.fixture(params=["one worker", "two workers", "two nodes"])
def urls(request: pytest.FixtureRequest, start: Start) -> list[str]:
    """The addresses of services that share their tasks: one with one or two workers, or two."""
    if request.param == "two nodes":
        return [start(variables=UNMEASURED).url, start(variables=UNMEASURED).url]
    return [start("--workers", "1" if request.param == "one worker" else "2", variables=UNMEASURED).url]


@pytest.fixture(scope="module")
def shared(
    backend: str, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Service, Store]]:
    """A service that the tests of a module share, and where it keeps its tasks; it must not log anything."""
    folder = tmp_path_factory.mktemp("shared")
    with opened(backend, folder, request) as store:
        with running(backend, folder, variables={"DATABASE_URL": store.url} | variables) as service:
            yield service, store
            assert service.stop() == 0
        assert service.log() == ""


@pytest.fixture
def service(shared: tuple[Service, Store]) -> Service:
    """A service without tasks."""
    service, store = shared
    store.clear()
    return service


@pytest.fixture
def client(service: Service) -> httpx.Client:
    """A client of a service without tasks."""
    return service.client


@pytest.fixture(scope="module")
def shared_client(shared: tuple[Service, Store]) -> httpx.Client:
    """A client of the service of the module, for tests that do not mind each other's tasks."""
    return shared[0].client


def tool(*paths: str | Path) -> Path:
    """Return the first of the paths to a program that there is; without one the test is skipped, but not in CI."""
    if found := next(filter(None, map(shutil.which, paths)), None):
        return Path(found)
    missing = f"{Path(paths[0]).name} is not installed"
    if "CI" in os.environ:
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def node() -> Path:
    """The folder of the commands that `make node` installs."""
    tool("node")
    return tool(ROOT / "build/node/node_modules/.bin/redocly").parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    copy = tmp_path / "checkout"
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            shutil.copytree(path, copy / path.relative_to(ROOT), ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, copy)
    return copy
