"""Fuzz the second API with every check of Schemathesis, and exclude nothing."""

import sys
from pathlib import Path

import pytest

from tests.support.reports import CONTRACT_TESTS, failures, run_command
from tests.support.service import Service

pytestmark = pytest.mark.slow

EXAMPLES = 5
# The credentials of each security scheme.
CREDENTIALS = """
[auth.openapi.ApiKey]
bearer = "{key}"
[auth.openapi.Desk]
username = "ada"
password = "secret"
[auth.openapi.Badge]
api_key = "badge-1"
[auth.openapi.KioskCode]
api_key = "kiosk-1"
[auth.openapi.Session]
api_key = "session-1"
[auth.openapi.Account]
bearer = "token-write"
[auth.openapi.Directory]
bearer = "staff-1"
"""


def test_second_api_conforms_to_its_contract(library: tuple[Service, str], tmp_path: Path) -> None:
    service, key = library
    configuration = (CONTRACT_TESTS / "schemathesis.toml").read_text("utf-8").replace('hooks = "checks.py"\n', "")
    (tmp_path / "schemathesis.toml").write_text(configuration + CREDENTIALS.format(key=key), "utf-8")
    junit = tmp_path / "junit.xml"
    schemathesis = Path(sys.executable).with_name("schemathesis")
    command = [str(schemathesis), "run", f"{service.url}/openapi.yaml", "--url", f"{service.url}/central/v2"]

    options = ["--max-examples", str(EXAMPLES), "--seed", "1", "--report-junit-path", str(junit)]
    run = run_command([*command, *options], cwd=tmp_path)

    assert run.returncode == 0, run.stdout
    assert failures(junit) == []
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"  ✅ {phase}" in run.stdout, run.stdout
