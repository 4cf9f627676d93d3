"""Fixtures that many tests share, such as a running service with its own port and its own database."""

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
from tests.support.cleanup import start_watcher
from tests.support.project import ROOT, copy_project, tool
from tests.support.service import Service, Start, running
from tests.support.stores import Store, migrated_template, open_store, postgresql_server

CLEAN_UP = pytest.StashKey[Callable[[], None]]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the cleanup watcher in the main process of the run, but not in the workers of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        config.stash[CLEAN_UP] = start_watcher()
        # Both signals interrupt the run, even a run in the background, which ignores Ctrl-C by default.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """When the run is interrupted, do not wait until the workers have finished their current tests."""
    if exitstatus == pytest.ExitCode.INTERRUPTED and session.config.getoption("numprocesses", None):
        pytest_unconfigure(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Kill the remaining processes of the run, and remove its temporary folder."""
    if CLEAN_UP in config.stash:
        config.stash[CLEAN_UP]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tiers.mark_slow_tests(items)


# Guard the setup and call of quick tests, but not the teardown, which may end fixtures that slow tests started.
@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with tiers.guard_quick_test(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with tiers.guard_quick_test(item):
        return (yield)


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """Yield `TEST_DATABASE_URL` if it is set, otherwise the URL of a PostgreSQL server that is started for this run."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    # This server needs no fsync: the durability tests start their own server, with fsync on.
    with postgresql_server(Path(tempfile.gettempdir()) / "postgresql", fsync="off") as started:
        yield started.get_uri()


@pytest.fixture(scope="session")
def template_database(postgresql_url: str) -> Iterator[str]:
    """Yield the name of a database with the current schema, from which the databases of tests are copied."""
    with migrated_template(postgresql_url) as name:
        yield name


@pytest.fixture(scope="module")
def backend() -> str:
    """Return the default database backend; test modules whose results depend on the backend override this fixture."""
    return "sqlite"


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """Return no environment variables; a test module overrides this fixture to set variables for all its services."""
    return {}


@pytest.fixture
def store(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Yield the store of an empty database for the service."""
    with open_store(backend, tmp_path, request) as store:
        yield store


@pytest.fixture
def start(backend: str, store: Store, tmp_path: Path, variables: dict[str, str]) -> Iterator[Start]:
    """Yield a function that starts services on the store; the services stop when the test ends."""
    with ExitStack() as stack:

        def start(*flags: str, folder: Path = tmp_path, **options: Any) -> Service:
            options["variables"] = {"DATABASE_URL": store.url} | variables | (options.get("variables") or {})
            return stack.enter_context(running(backend, folder, *flags, **options))

        yield start


@pytest.fixture(
    scope="module",
    params=[("sqlite", 1, 1), ("sqlite", 1, 2), ("postgresql", 1, 1), ("postgresql", 2, 1), ("pgbouncer", 2, 1)],
    ids=lambda param: f"{param[0]}-{param[1]}-nodes-{param[2]}-workers",
)
def nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[list[str], Store]]:
    """Yield the URLs of nodes, and the database that the nodes share; each node is a process on this machine."""
    backend, count, workers = request.param
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        store = stack.enter_context(open_store(backend, folder, request))
        variables = {"DATABASE_URL": store.url}
        run = partial(running, backend, folder, "--workers", str(workers), variables=variables)
        yield [stack.enter_context(run()).url for _ in range(count)], store


@pytest.fixture
def urls(nodes: tuple[list[str], Store]) -> list[str]:
    """Clear the database that the nodes share, and return the URLs of the nodes."""
    urls, store = nodes
    store.clear()
    return urls


@pytest.fixture(scope="module")
def shared_service(
    backend: str, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Service, Store]]:
    """Yield a service that the tests of a module share, and its database; fail if the service logs anything."""
    folder = tmp_path_factory.mktemp("shared")
    with open_store(backend, folder, request) as store:
        with running(backend, folder, variables={"DATABASE_URL": store.url} | variables) as service:
            yield service, store
            assert service.stop() == 0
        assert service.log() == ""


@pytest.fixture
def service(shared_service: tuple[Service, Store]) -> Service:
    """Clear the database of the shared service, and return the service."""
    service, store = shared_service
    store.clear()
    return service


@pytest.fixture
def client(service: Service) -> httpx.Client:
    """Return a client of the shared service, whose database is empty."""
    return service.client


@pytest.fixture(scope="module")
def shared_client(shared_service: tuple[Service, Store]) -> httpx.Client:
    """Return a client of the shared service, for tests that tolerate each other's tasks."""
    return shared_service[0].client


@pytest.fixture(scope="session")
def node() -> Path:
    """Return the folder of the commands that `make node` installs."""
    tool("node")
    return tool(ROOT / "build/node/node_modules/.bin/redocly").parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield headless Chromium; while it is open, Playwright's event loop runs in this thread."""
    chromium = tool("chromium", "google-chrome")
    # The sandbox is off if root runs the tests, because Chromium's sandbox does not work for root.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=os.getuid() != 0)
        yield browser
        browser.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the project that the test may change."""
    return copy_project(tmp_path)
