"""Contract tests, run against a deployment as users run them, report each finding and leave no tasks behind."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import yaml

from handlers.contract import document
from handlers.contract.document import PREFIX
from tests.support.edits import replace_in
from tests.support.project import ROOT, RUN_FROM_SOURCE
from tests.support.reports import CONTRACT_TESTS, failures, har_entries, make_contract, run_command
from tests.support.service import Service, Start

BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs/contract-testing.md").read_text("utf-8")
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/contract.yml").read_text("utf-8"))
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["contract"]["steps"]
REQUIREMENT = re.compile("schemathesis>=[0-9.]+,<[0-9]+")
KEY = "must-not-appear-in-a-report"
# The seed is fixed, because a run with a random seed and few examples may miss the planted defect.
SEED = "1"


@pytest.fixture
def broken(start: Start, checkout: Path) -> Service:
    """Return a service that breaks its contract: PUT ignores If-Match, and no operation checks the required API key."""
    replace_in(checkout / "handlers/tasks.py", "replace_task", "id, body, versions", "id, body, None")
    published = checkout / "handlers/documentation/pages.py"
    old, new = "published(path, keys.required)", "published(path, True)"
    assert published.read_text("utf-8").count(old) == 1
    published.write_text(published.read_text("utf-8").replace(old, new), "utf-8")
    return start(folder=checkout, command=RUN_FROM_SOURCE, variables={f"{PREFIX}VALIDATE_RESPONSES": "false"})


def test_make_contract_fails_on_a_finding_and_leaves_no_tasks(broken: Service, tmp_path: Path) -> None:
    kept = broken.client.post("/api/tasks", json={"title": "Not created by the run"}).json()

    run = run_command(make_contract(tmp_path, broken.url, KEY=KEY, EXAMPLES=1, SEED=SEED))

    assert run.returncode == 2, run.stdout
    reported = "".join(failures(tmp_path / "junit.xml"))
    assert KEY not in reported + (tmp_path / "har.json").read_text("utf-8")
    assert "tag_is_known_and_stale_tag_is_refused" in reported
    # To find this defect, Schemathesis sends requests without calling the hooks in checks.py, which also create tasks.
    assert "API accepts requests without authentication" in reported
    assert har_entries(tmp_path / "har.json")
    assert broken.client.get("/api/tasks").json() == [kept]


def read_collections(service: Service) -> list[Any]:
    """Return the content of each list of the contract."""
    paths = [path for path, item in document.raw()["paths"].items() if "get" in item and "{" not in path]
    return [service.client.get(path).json() for path in paths]


def test_interrupted_run_leaves_no_tasks(service: Service, tmp_path: Path) -> None:
    before = read_collections(service)
    command = make_contract(tmp_path, service.url, EXAMPLES=1000, SEED=SEED)
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True) as run:
        assert run.stdout
        output = ""
        while "Coverage" not in output:
            output += (line := run.stdout.readline())
            assert line, output
        # Interrupt Schemathesis during a phase: between two phases, it may ignore an interrupt for a while.
        during = read_collections(service)
        while read_collections(service) == during:
            assert run.poll() is None
            sleep(0.01)
        os.killpg(run.pid, signal.SIGINT)
        output += run.stdout.read()

    assert run.returncode != 0
    assert "No issues found" not in output
    assert read_collections(service) == before


def code_blocks(language: str) -> list[str]:
    """Return the code blocks of the documentation page that are in the given language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_documented_commands_need_only_schemathesis(service: Service, tmp_path: Path) -> None:
    commands = code_blocks("sh")[0].replace("https://tasks.example.com", service.url)
    run, found = re.subn(
        "uvx --from '.*' schemathesis run",
        f"{BIN}/schemathesis run --seed {SEED} --max-examples 5 --phases examples",
        commands,
    )
    assert found == 1

    result = run_command(["bash", "-ec", run], cwd=tmp_path)

    assert result.returncode == 0, result.stdout
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} >= {"checks.py", "schemathesis.toml"}
    (junit,) = tmp_path.glob("schemathesis-report/junit-*.xml")
    (har,) = tmp_path.glob("schemathesis-report/har-*.json")
    assert failures(junit) == []
    assert har_entries(har)
    assert service.client.get("/api/tasks").json() == []


def test_custom_configuration_loads_the_checks(broken: Service, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(code_blocks("toml")[0], "utf-8")
    (tmp_path / "checks.py").write_text(broken.client.get("/docs/contract/checks.py").text, "utf-8")
    options = f"--seed {SEED} --max-examples 5 --phases examples --report junit --report-junit-path junit.xml"

    run = run_command([str(BIN / "schemathesis"), "run", f"{broken.url}/openapi.yaml", *options.split()], cwd=tmp_path)

    assert run.returncode == 1, run.stdout
    assert "tag_is_known_and_stale_tag_is_refused" in "".join(failures(tmp_path / "junit.xml"))
    assert broken.client.get("/api/tasks").json() == []


def test_page_lists_every_check_and_is_short() -> None:
    statements = ast.parse((ROOT / "tests/contract/checks.py").read_text("utf-8")).body
    checks = [
        statement.name
        for statement in statements
        if isinstance(statement, ast.FunctionDef | ast.ClassDef)
        and "schemathesis.check" in map(ast.unparse, statement.decorator_list)
    ]

    assert len(checks) > 10
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == checks
    assert len(PAGE.splitlines()) < 120


def test_schemathesis_version_is_the_same_everywhere() -> None:
    (dependency,) = (
        name
        for name in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]["dev"]
        if name.startswith("schemathesis")
    )
    named = {name for text in (PAGE, json.dumps(WORKFLOW)) for name in REQUIREMENT.findall(text)}
    assert named == {dependency}


def test_documented_workflow_matches_the_reusable_workflow() -> None:
    (example,) = code_blocks("yaml")
    # YAML 1.1 parses the key `on` as the boolean True.
    called: dict[str, Any] = WORKFLOW[True]["workflow_call"]  # type: ignore[index]

    for job in yaml.safe_load(example)["jobs"].values():
        assert job["uses"].endswith("/.github/workflows/contract.yml@main")
        assert job["with"].keys() <= called["inputs"].keys()
        assert job.get("secrets", {}).keys() <= called["secrets"].keys()


def test_workflow_has_no_permissions_and_no_expressions_in_scripts() -> None:
    assert WORKFLOW["permissions"] == {}
    for step in STEPS:
        assert "${{" not in step.get("run", "")
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0"))
    assert STEPS[-1]["if"] == "always()"
    assert STEPS[-1]["with"]["path"] == "schemathesis-report"


def run_workflow(folder: Path, **inputs: str) -> tuple[str | None, str]:
    """Run the workflow's scripts that need no image; return the name of the failed step, if any, and the output."""
    values = {"inputs.url": "", "inputs.image": "", "inputs.seed": SEED, "inputs.examples": "1", "secrets.key": ""}
    values |= {f"{'secrets' if name == 'key' else 'inputs'}.{name}": value for name, value in inputs.items()}
    values["inputs.url || 'http://127.0.0.1:8000'"] = values["inputs.url"] or "http://127.0.0.1:8000"
    output = ""
    for step in STEPS:
        if "run" not in step or "if" in step:
            assert step.get("if") in (None, "always()", "inputs.image", "failure() && inputs.image")
            continue
        variables = {
            name: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: values[found[1]], value)
            for name, value in (WORKFLOW["jobs"]["contract"]["env"] | step.get("env", {})).items()
        }
        run = run_command(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=folder,
            env=os.environ
            | {"PATH": f"{BIN}:{os.environ['PATH']}", "CI": "true", "GITHUB_ACTIONS": "true"}
            | variables,
        )
        output += run.stdout
        if run.returncode:
            return step["name"], output
    return None, output


class Site(SimpleHTTPRequestHandler):
    """A web site that serves the files of a folder, and answers 500 to requests for `/thing`."""

    def do_GET(self) -> None:
        if self.path == "/thing":
            self.send_error(500)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


@contextmanager
def published(folder: Path, document: dict[str, Any], checks: str, configuration: str) -> Iterator[str]:
    """Serve a contract with its checks and its Schemathesis configuration, and yield the URL of the web site."""
    site = folder / "site"
    (site / "docs/contract").mkdir(parents=True)
    (site / "openapi.yaml").write_text(yaml.safe_dump(document), "utf-8")
    (site / "docs/contract/checks.py").write_text(checks, "utf-8")
    (site / "docs/contract/schemathesis.toml").write_text(configuration, "utf-8")
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=site)) as server,
        ThreadPoolExecutor() as pool,
    ):
        pool.submit(server.serve_forever)
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_workflow_passes(service: Service, tmp_path: Path) -> None:
    """Run only the fast examples phase, with a contract and a configuration that a separate web site publishes."""
    checks = (CONTRACT_TESTS / "checks.py").read_text("utf-8")
    document = yaml.safe_load(service.client.get("/openapi.yaml").text)
    configuration = f'hooks = "checks.py"\nbase-url = "{service.url}"\n'
    phases = (f"[phases.{phase}]\nenabled = false\n" for phase in ("coverage", "fuzzing", "stateful"))
    with published(tmp_path, document, checks, "".join([configuration, *phases])) as url:
        failed, output = run_workflow(tmp_path, url=f"{url}/", key=KEY, seed="7")

    assert failed is None, output
    assert "Seed: 7\n" in output
    (junit,) = tmp_path.glob("schemathesis-report/junit-*.xml")
    (har,) = tmp_path.glob("schemathesis-report/har-*.json")
    assert failures(junit) == []
    assert KEY not in output + har.read_text("utf-8")
    assert service.client.get("/api/tasks").json() == []


@pytest.mark.slow
def test_workflow_fails_on_a_finding(tmp_path: Path) -> None:
    """Run the workflow against a deployment that publishes another contract and its own checks."""
    document = {
        "openapi": "3.0.3",
        "info": {"title": "Things", "version": "1"},
        "paths": {"/thing": {"get": {"responses": {"200": {"description": "A thing."}}}}},
    }
    with published(tmp_path, document, "", 'hooks = "checks.py"\n') as url:
        failed, output = run_workflow(tmp_path, url=url)

    assert failed == "Test it", output
    (junit,) = tmp_path.glob("schemathesis-report/junit-*.xml")
    (har,) = tmp_path.glob("schemathesis-report/har-*.json")
    assert "Server error" in "".join(failures(junit))
    assert har_entries(har)


def test_workflow_fails_if_no_checks_are_published(service: Service, tmp_path: Path) -> None:
    failed, output = run_workflow(tmp_path, url=f"{service.url}/elsewhere")

    assert failed == "Fetch the checks"
    assert "404" in output


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [{}, {"url": "https://tasks.example.com", "image": "tasks-api"}])
def test_workflow_requires_either_a_url_or_an_image(inputs: dict[str, str], tmp_path: Path) -> None:
    failed, output = run_workflow(tmp_path, **inputs)

    assert failed == STEPS[0]["name"]
    assert output == "::error::Name a url or an image to test; one of them, and not both.\n"
