"""Fuzz a running service against its contract with every check of Schemathesis, as `make contract` does."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from handlers.contract import document
from tests.support.calls import bearer, create, make_key
from tests.support.reports import CONTRACT_TESTS, failures, har_entries, make_contract, run_command
from tests.support.service import Start
from tests.support.stores import Store

EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "15"))
SEED = os.environ.get("CONTRACT_SEED", "1")
NIGHTLY = "CONTRACT_EXAMPLES" in os.environ
BACKENDS = ["sqlite", "postgresql"] if NIGHTLY else ["sqlite"]
# Only nightly runs also test without an API key, because this covers nothing new: a run with a key also checks 401.
HAS_KEY = [True, False] if NIGHTLY else [True]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Return SQLite, the default backend; a nightly run tests both backends, with many more examples."""
    return str(request.param)


def test_configuration_skips_no_check_or_operation() -> None:
    configuration = tomllib.loads((CONTRACT_TESTS / "schemathesis.toml").read_text("utf-8"))

    statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "429", "5xx"]
    assert configuration["checks"] == {"enabled": True, "positive_data_acceptance": {"expected-statuses": statuses}}
    assert configuration["warnings"] == {"fail-on": True}
    assert configuration["phases"] == {"coverage": {"generate-duplicate-query-parameters": True}}
    assert not {"operations", "project", "baseline", "max-failures"} & configuration.keys()


@pytest.mark.parametrize("has_key", HAS_KEY)
def test_service_conforms_to_its_contract(start: Start, store: Store, tmp_path: Path, has_key: bool) -> None:
    """With an API key, Schemathesis also checks that every operation rejects requests without a key."""
    key = make_key(store, tmp_path) if has_key else ""
    client = start().client
    client.headers.update(bearer(key) if key else {})
    create(client, 3)
    before = client.get("/api/tasks")

    run = run_command(make_contract(tmp_path, str(client.base_url), KEY=key, EXAMPLES=EXAMPLES, SEED=SEED))

    assert run.returncode == 0, run.stdout
    operations = len(document.operations())
    assert f"Selected: {operations}/{operations}" in run.stdout
    assert f"Tested: {operations}" in run.stdout
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert re.search(f"^  ✅ {phase}$", run.stdout, re.MULTILINE), run.stdout
    junit, har = tmp_path / "junit.xml", tmp_path / "har.json"
    assert f"JUnit: {junit}" in run.stdout
    assert f"HAR: {har}" in run.stdout
    assert failures(junit) == []
    entries = har_entries(har)
    assert len(entries) > 3 * EXAMPLES
    statuses = {entry["response"]["status"] for entry in entries}
    assert ({200, 201, 401} if key else {200, 201}) <= statuses
    # The hooks in checks.py must prevent 412: Schemathesis warns about an operation whose valid requests all get 412.
    assert 412 not in statuses
    assert not key or key not in run.stdout + har.read_text("utf-8") + junit.read_text("utf-8")
    after = client.get("/api/tasks")
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])
