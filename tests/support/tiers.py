"""The two tiers of tests: quick tests, which `make check` runs, and slow tests, which only `make test` runs.

A quick test fails if it starts a process or opens a connection. Tests that use a slow fixture are marked `slow`
automatically; any other test that starts a process or opens a connection needs an explicit mark.
"""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.launcher import Launcher

SLOW_FIXTURES = {"store", "shared_service", "nodes", "postgresql_url", "node", "browser"}


def mark_slow_tests(items: list[pytest.Item]) -> None:
    """Mark each test that uses a slow fixture as slow."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@contextmanager
def guard_quick_test(item: pytest.Item) -> Iterator[None]:
    """Fail a quick test that starts a process or opens a connection."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("This test starts a process or opens a connection: mark it slow.")

    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("slow"):
            for owner, name in ((subprocess.Popen, "__init__"), (socket.socket, "connect"), (Launcher, "start")):
                patch.setattr(owner, name, refuse)
        yield
