"""The contract, fuzzed with everything that Schemathesis has, against a running service."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from handlers import contract
from tests.support.reports import CONTRACT_TESTS
from tests.support.service import Service

EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "50")
SEED = os.environ.get("CONTRACT_SEED", "1")
BACKENDS = ["sqlite", "postgresql"] if "CONTRACT_EXAMPLES" in os.environ else ["sqlite"]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The one that a service has by itself; every night each of them, with many more examples."""
    return str(request.param)


def test_nothing_is_left_out() -> None:
    configuration = tomllib.loads((CONTRACT_TESTS / "schemathesis.toml").read_text())

    statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "429", "5xx"]
    assert configuration["checks"] == {"enabled": True, "positive_data_acceptance": {"expected-statuses": statuses}}
    assert configuration["warnings"] == {"fail-on": True}
    assert configuration["phases"] == {"coverage": {"generate-duplicate-query-parameters": True}}
    assert not {"operations", "project", "baseline", "max-failures"} & configuration.keys()


def test_service_is_what_its_contract_says(service: Service, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    folder = shutil.copytree(CONTRACT_TESTS, tmp_path / "contract")
    command = (str(Path(sys.executable).with_name("schemathesis")), "run", "--no-color")
    options = ("--max-examples", EXAMPLES, "--seed", SEED, "--report", "json", "--report-json-path", str(report))
    run = subprocess.run(
        [*command, *options, f"{service.url}/openapi.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stdout + run.stderr
    said = json.loads(report.read_text())
    assert {name: phase["status"] for name, phase in said["phases"].items()} == dict.fromkeys(
        ("examples", "coverage", "fuzzing", "stateful"), "success"
    )
    assert (said["operations"]["tested"], said["operations"]["skipped"]) == (len(contract.operations()), 0)
    assert said["test_cases"]["generated"] > 3 * int(EXAMPLES)
    assert service.client.get("/api/tasks").json() == []
