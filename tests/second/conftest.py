"""Fixtures of the second API: a running service, and its client."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.other_api import make_project
from tests.support.project import RUN_FROM_SOURCE
from tests.support.service import Service, environment

HERE = Path(__file__).parent
ORIGIN = "https://app.example"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project that serves the Library API."""
    handlers = (HERE / "handlers").glob("*.py")
    return make_project(tmp_path_factory.mktemp("library"), HERE / "openapi.yaml", *handlers)


@pytest.fixture(scope="session")
def library(project: Path) -> Iterator[tuple[Service, str]]:
    """Yield the service of the Library API, and an API key; fail if the service logs anything."""
    command = [*RUN_FROM_SOURCE, "key", "new", "app"]
    key = subprocess.run(command, cwd=project, env=environment(), check=True, capture_output=True, encoding="utf-8")
    service = Service(project, "--validate-responses", "--allowed-origins", ORIGIN, command=RUN_FROM_SOURCE)
    yield service, key.stdout.strip()
    assert service.stop() == 0
    assert service.log() == "", service.log()


@pytest.fixture(scope="session")
def key(library: tuple[Service, str]) -> str:
    """Return an API key of the Library API."""
    return library[1]


@pytest.fixture
def client(library: tuple[Service, str]) -> Iterator[httpx.Client]:
    """Yield a client of the Library API without cookies, whose URL contains the base path of the contract."""
    with httpx.Client(base_url=f"{library[0].url}/central/v2", timeout=30) as client:
        yield client
