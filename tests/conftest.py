"""Fixtures: a real server, on a socket of its own, with a database file of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

ROOT = Path(__file__).parents[1]
COMMAND = str(Path(sys.executable).with_name("tasks-api"))
# The command as the code in the working directory has it.
FROM_FOLDER = (sys.executable, "-c", "from handlers.cli import main; main()")


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
    """Return this environment with the given variables for its settings; responses are validated in every test."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TASKS_", "DATABASE_"))}
    return inherited | {"TASKS_API_VALIDATE_RESPONSES": "true"} | (variables or {})


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


class Start(Protocol):
    """Starts a service, as `Service` does; in the test's folder where no other is given."""

    def __call__(self, *flags: str, folder: Path = ..., **options: Any) -> Service: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """What starts services, which are stopped when the test ends."""
    with ExitStack() as stack:

        def start(*flags: str, folder: Path = tmp_path, **options: Any) -> Service:
            service = Service(folder, *flags, **options)
            stack.callback(service.stop)
            return service

        yield start


@pytest.fixture
def service(start: Start) -> Iterator[Service]:
    """A service without tasks, which must not log anything."""
    service = start()
    yield service
    assert service.log() == ""


@pytest.fixture
def client(service: Service) -> httpx.Client:
    """A client of a service without tasks."""
    return service.client


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    copy = tmp_path / "checkout"
    for name in ("handlers", "models"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("openapi.yaml", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service that the tests of a module share, because they do not mind each other's tasks."""
    service = Service(tmp_path_factory.mktemp("shared"))
    yield service.client
    assert service.stop() == 0
    assert service.log() == ""
