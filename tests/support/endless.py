"""Tests that start everything there is to start, and never end; test_cleanup.py ends them."""

import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.service import Start
from tests.support.stores import PostgresqlStore


@pytest.fixture(scope="module")
def backend() -> str:
    return "postgresql"


def wait_for_the_end(name: str) -> None:
    """Say that everything has been started, and wait."""
    Path(os.environ["STARTED"], name).touch()
    while True:
        signal.pause()


def test_servers(start: Start, store: PostgresqlStore) -> None:
    start()
    wait_for_the_end("server")


def test_browser(browser: Browser) -> None:
    browser.new_page()
    wait_for_the_end("browser")
