"""The unit for systemd: that systemd understands it, and that it agrees with the project.

No systemd runs here. Of all that it would keep the service from, one thing is tried: to run memory that was written.
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

UNIT = (ROOT / "docs/tasks-api.service").read_text()
# As /usr/include/linux/prctl.h has them, from Linux 6.3 on.
SET_MDWE, GET_MDWE = 65, 66
REFUSING = (
    f"import ctypes; assert ctypes.CDLL(None).prctl({SET_MDWE}, 1, 0, 0, 0) == 0; from handlers.cli import main; main()"
)


def directive(name: str) -> str:
    """Return what the unit says of one thing, which it says once."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def default(name: str) -> int:
    return int(ServerSettings.model_fields[name].default)


@pytest.mark.slow
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    unit = tmp_path / "tasks-api.service"
    unit.write_text(UNIT.replace(directive("ExecStart").split()[0], COMMAND))

    # Of what it does not know, it only warns.
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)

    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.slow
def test_command_is_a_command(tmp_path: Path) -> None:
    path, *arguments = directive("ExecStart").split()

    assert Path(path).is_absolute()
    assert Path(path).name == Path(COMMAND).name
    assert run(tmp_path, *arguments, "--help").returncode == 0
    # In the comments, where it is installed.
    assert f"venv {Path(path).parents[1]} &&" in UNIT
    assert f" {path} key new app" in UNIT


def test_variables_are_settings() -> None:
    named = set(re.findall(r"\b(?:TASKS_API|DATABASE)_\w+", UNIT))

    assert named <= {variable(name) for name in ServerSettings.model_fields}


def test_limits_leave_room_for_those_of_the_service() -> None:
    # One that is too many has a file too, until it was told so.
    assert int(directive("LimitNOFILE")) >= 2 * default("max_connections")
    assert int(directive("TimeoutStopSec")) > default("shutdown_timeout")
    assert directive("KillMode") == "mixed"


def test_tasks_are_where_the_service_may_write() -> None:
    """With the default of DATABASE_URL, in the folder that systemd makes for it."""
    assert directive("WorkingDirectory") == f"/var/lib/{directive('StateDirectory')}"
    assert directive("ProtectSystem") == "strict"
    assert f"--home-dir {directive('WorkingDirectory')} " in UNIT
    assert f" {directive('User')}\n" in UNIT


def test_service_runs_no_memory_that_it_has_written(start: Start) -> None:
    if ctypes.CDLL(None).prctl(GET_MDWE, 0, 0, 0, 0) < 0:
        pytest.skip("Linux is older than 6.3")

    client = start(command=(sys.executable, "-c", REFUSING)).client

    assert directive("MemoryDenyWriteExecute") == "yes"
    assert client.post("/api/tasks", json={"title": "a"}).status_code == 201
    assert client.post("/api/tasks", json={"title": ""}).status_code == 400
    assert client.get("/api/tasks").json()[0]["title"] == "a"
