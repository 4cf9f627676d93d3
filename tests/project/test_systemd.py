"""systemd accepts the project's systemd unit, and the unit matches the project.

The tests do not start the unit. Of the unit's restrictions, only MemoryDenyWriteExecute is tested on a running service.
"""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.settings import ServerSettings, variable
from tests.support.project import COMMAND, ROOT, tool
from tests.support.service import Start, run

UNIT = (ROOT / "docs/tasks-api.service").read_text("utf-8")
# Options of prctl(2), which Linux 6.3 added to /usr/include/linux/prctl.h.
SET_MDWE, GET_MDWE = 65, 66
SERVE_WITH_MDWE = (
    f"import ctypes; assert ctypes.CDLL(None).prctl({SET_MDWE}, 1, 0, 0, 0) == 0; from handlers.cli import main; main()"
)


def directive(name: str) -> str:
    """Return the value of a directive, which the unit must contain exactly once."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def default(name: str) -> int:
    return int(ServerSettings.model_fields[name].default)


@pytest.mark.slow
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    unit = tmp_path / "tasks-api.service"
    unit.write_text(UNIT.replace(directive("ExecStart").split()[0], COMMAND), "utf-8")

    # systemd reports an unknown directive only as a warning on stderr.
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, encoding="utf-8", check=False)

    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.slow
def test_command_exists(tmp_path: Path) -> None:
    path, *arguments = directive("ExecStart").split()

    assert Path(path).is_absolute()
    assert Path(path).name == Path(COMMAND).name
    assert run(tmp_path, *arguments, "--help").returncode == 0
    # The unit's comments, which explain the installation, name the same paths.
    assert f"venv {Path(path).parents[1]} &&" in UNIT
    assert f" {path} key new app" in UNIT


def test_environment_variables_are_settings() -> None:
    named = set(re.findall(r"\b(?:TASKS_API|DATABASE)_\w+", UNIT))

    assert named <= {variable(name) for name in ServerSettings.model_fields}


def test_limits_of_the_unit_exceed_those_of_the_service() -> None:
    # A connection beyond the limit also needs a file descriptor, until the service has refused the connection.
    assert int(directive("LimitNOFILE")) >= 2 * default("max_connections")
    assert int(directive("TimeoutStopSec")) > default("shutdown_timeout")
    assert directive("KillMode") == "mixed"


def test_default_database_is_in_the_writable_folder() -> None:
    """The default DATABASE_URL is relative to the working directory, which systemd creates."""
    assert directive("WorkingDirectory") == f"/var/lib/{directive('StateDirectory')}"
    assert directive("ProtectSystem") == "strict"
    assert f"--home-dir {directive('WorkingDirectory')} " in UNIT
    assert f" {directive('User')}\n" in UNIT


def test_service_works_with_memory_deny_write_execute(start: Start) -> None:
    if ctypes.CDLL(None).prctl(GET_MDWE, 0, 0, 0, 0) < 0:
        pytest.skip("Linux is older than 6.3")

    client = start(command=(sys.executable, "-c", SERVE_WITH_MDWE)).client

    assert directive("MemoryDenyWriteExecute") == "yes"
    assert client.post("/api/tasks", json={"title": "a"}).status_code == 201
    assert client.post("/api/tasks", json={"title": ""}).status_code == 400
    assert client.get("/api/tasks").json()[0]["title"] == "a"
