"""The two tiers of tests: those that `make check` runs after every edit, and those that only `make test` runs.

A test of the quick tier starts no process and opens no connection. One that uses a fixture which does is of the other
tier by that alone; any other that starts something has the mark `slow`. A quick test that starts something all the same
fails.
"""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.launcher import Launcher

SLOW_FIXTURES = {"store", "shared", "nodes", "server", "node", "browser"}


def sort(items: list[pytest.Item]) -> None:
    """Give each test that needs a service, a tool or a database server the mark `slow`."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@contextmanager
def watched(item: pytest.Item) -> Iterator[None]:
    """Let a test of the quick tier fail where it starts something."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("This test starts a process or opens a connection: give it the mark slow.")

    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("slow"):
            for owner, name in ((subprocess.Popen, "__init__"), (socket.socket, "connect"), (Launcher, "start")):
                patch.setattr(owner, name, refuse)
        yield
