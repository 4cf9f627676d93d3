"""Tests that start every kind of process and never end; test_cleanup.py interrupts them."""

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


def report_and_hang(name: str) -> None:
    """Report under this name that the processes of a test have started, and wait forever."""
    Path(os.environ["STARTED"], name).touch()
    while True:
        signal.pause()


def test_servers(start: Start, store: PostgresqlStore) -> None:
    start()
    report_and_hang("server")


def test_browser(browser: Browser) -> None:
    browser.new_page()
    report_and_hang("browser")
