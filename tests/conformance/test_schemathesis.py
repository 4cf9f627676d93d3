"""The contract, fuzzed with everything that Schemathesis has, against a running service."""

import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from handlers import contract
from tests.support.calls import bearer, make_key
from tests.support.reports import CONTRACT_TESTS, calls, finish
from tests.support.service import Start
from tests.support.stores import Store

EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "15")
SEED = os.environ.get("CONTRACT_SEED", "1")
NIGHTLY = "CONTRACT_EXAMPLES" in os.environ
BACKENDS = ["sqlite", "postgresql"] if NIGHTLY else ["sqlite"]
# Without a key, test_contract_testing.py runs the same.
ACCESS = [True, False] if NIGHTLY else [True]


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


@pytest.mark.parametrize("has_key", ACCESS)
def test_service_is_what_its_contract_says(start: Start, store: Store, tmp_path: Path, has_key: bool) -> None:
    """With a key, Schemathesis also sees for itself that each operation refuses who has none."""
    report, har = tmp_path / "report.json", tmp_path / "har.json"
    folder = shutil.copytree(CONTRACT_TESTS, tmp_path / "contract")
    key = make_key(store, tmp_path) if has_key else ""
    if key:
        with (folder / "schemathesis.toml").open("a") as configuration:
            configuration.write('\n[auth.openapi.ApiKey]\nbearer = "${KEY}"\n')
    service = start()
    command = (str(Path(sys.executable).with_name("schemathesis")), "run", "--no-color", f"{service.url}/openapi.yaml")
    options = ("--max-examples", EXAMPLES, "--seed", SEED, "--report-json-path", report, "--report-har-path", har)
    run = finish([*command, *map(str, options)], cwd=folder, env={**os.environ, "KEY": key})

    assert run.returncode == 0, run.stdout
    said = json.loads(report.read_text())
    assert {name: phase["status"] for name, phase in said["phases"].items()} == dict.fromkeys(
        ("examples", "coverage", "fuzzing", "stateful"), "success"
    )
    assert (said["operations"]["tested"], said["operations"]["skipped"]) == (len(contract.operations()), 0)
    assert said["test_cases"]["generated"] > 3 * int(EXAMPLES)
    assert ({200, 201, 401} if key else {200, 201}) <= {call["response"]["status"] for call in calls(har)}
    assert not key or key not in run.stdout + har.read_text()
    assert service.client.get("/api/tasks", headers=bearer(key) if key else {}).json() == []
