"""Fixtures: a real server, on a socket of its own, with a database of its own."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support import tiers
from tests.support.cleanup import watch
from tests.support.project import ROOT, copy_project, tool
from tests.support.service import Service, Start, running
from tests.support.stores import Store, migrated_template, opened, postgresql_server

END = pytest.StashKey[Callable[[], None]]()


def pytest_configure(config: pytest.Config) -> None:
    """Watch over what the run makes, in the process that the others belong to."""
    if not hasattr(config, "workerinput"):
        config.stash[END] = watch()
        # Both break off the run, also where it was started in the background, which ignores Ctrl-C.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Do not wait for workers that are in the middle of a test when the run is broken off."""
    if exitstatus == pytest.ExitCode.INTERRUPTED and session.config.getoption("numprocesses", None):
        pytest_unconfigure(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what is left."""
    if END in config.stash:
        config.stash[END]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tiers.sort(items)


# Not its teardown, in which fixtures may end that other tests have started.
@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with tiers.watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with tiers.watched(item):
        return (yield)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server: of `TEST_DATABASE_URL`, or of one that runs for all tests of a run."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    # The tests that are about durability have servers of their own.
    with postgresql_server(Path(tempfile.gettempdir()) / "postgresql", fsync="off") as started:
        yield started.get_uri()


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a database with the schema of this release."""
    with migrated_template(server) as name:
        yield name


@pytest.fixture(scope="module")
def backend() -> str:
    """Where the service keeps its tasks; a module whose results a server may change has a fixture with more of them."""
    return "sqlite"


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """Environment variables that all services of a module have."""
    return {}


@pytest.fixture
def store(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Where the service keeps its tasks, without tasks."""
    with opened(backend, tmp_path, request) as store:
        yield store


@pytest.fixture
def start(backend: str, store: Store, tmp_path: Path, variables: dict[str, str]) -> Iterator[Start]:
    """What starts services on the store, which are stopped when the test ends."""
    with ExitStack() as stack:

        def start(*flags: str, folder: Path = tmp_path, **options: Any) -> Service:
            options["variables"] = {"DATABASE_URL": store.url} | variables | (options.get("variables") or {})
            return stack.enter_context(running(backend, folder, *flags, **options))

        yield start


@pytest.fixture(
    scope="module",
    params=[("sqlite", 1, 1), ("sqlite", 1, 2), ("postgresql", 1, 1), ("postgresql", 2, 1)],
    ids=lambda param: f"{param[0]}-{param[1]}-nodes-{param[2]}-workers",
)
def nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[list[str], Store]]:
    """The addresses of nodes that share their tasks; processes on one machine are to a server what nodes are."""
    backend, count, workers = request.param
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        store = stack.enter_context(opened(backend, folder, request))
        variables = {"DATABASE_URL": store.url}
        run = partial(running, backend, folder, "--workers", str(workers), variables=variables)
        yield [stack.enter_context(run()).url for _ in range(count)], store


@pytest.fixture
def urls(nodes: tuple[list[str], Store]) -> list[str]:
    """The addresses of nodes without tasks."""
    urls, store = nodes
    store.clear()
    return urls


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


@pytest.fixture(scope="session")
def node() -> Path:
    """The folder of the commands that `make node` installs."""
    tool("node")
    return tool(ROOT / "build/node/node_modules/.bin/redocly").parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a screen; as long as it is there, Playwright's event loop runs in this thread."""
    chromium = tool("chromium", "google-chrome")
    # Chromium has no sandbox for root.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=os.getuid() != 0)
        yield browser
        browser.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    return copy_project(tmp_path)
