"""The linters of the contract: each rule of the house finds what it is for."""

import json
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from handlers.contract import document as contract
from tests.support.project import ROOT

RULES = yaml.safe_load((ROOT / "tests/house-rules.spectral.yaml").read_text())["rules"]
ALWAYS = "operation-answers-401-429-500-503"


def findings(node: Path, document: dict[str, Any], folder: Path) -> set[tuple[str, str]]:
    """Return the rules that Spectral finds broken, each with the place."""
    (folder / "openapi.yaml").write_text(yaml.safe_dump(document))
    command = [str(node / "spectral"), "lint", "--quiet", "--format=json", "--ruleset=.spectral.yaml"]
    said = subprocess.run(
        [*command, str(folder / "openapi.yaml")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {(finding["code"], ".".join(finding["path"])) for finding in json.loads(said.stdout)}


def test_each_rule_of_the_house_finds_what_it_is_for(node: Path, tmp_path: Path) -> None:
    document = deepcopy(contract.document())
    components = document["components"]
    tasks, task = document["paths"]["/api/tasks"], document["paths"]["/api/tasks/{id}"]
    del components["parameters"]["Limit"]["example"]
    del components["headers"]["Location"]["example"]
    del document["x-responses"]["204"]["headers"]["Allow"]["example"]
    del components["schemas"]["TaskInput"]["properties"]["completed"]["example"]
    del components["schemas"]["Problem"]["properties"]["errors"]["example"]
    del components["requestBodies"]["TaskInput"]["content"]["application/json"]["examples"]
    del components["responses"]["TaskDeleted"]["content"]["application/json"]["examples"]
    del tasks["get"]["responses"]["401"]
    del tasks["post"]["responses"]["429"]
    del task["put"]["responses"]["500"]
    del task["delete"]["responses"]["503"]
    del task["get"]["responses"]["404"]
    for item, method, name in ((tasks, "get", "tasks"), (tasks, "post", "create"), (task, "get", "get_task")):
        item[method]["operationId"] = name

    found = {(rule, place) for rule, place in findings(node, document, tmp_path) if rule in RULES}

    assert found == {
        ("parameter-has-example", "components.parameters.Limit"),
        ("header-has-example", "components.headers.Location"),
        ("header-has-example", "x-responses.204.headers.Allow"),
        ("property-has-example", "components.schemas.TaskInput.properties.completed"),
        ("property-has-example", "components.schemas.Problem.properties.errors"),
        ("body-has-example", "components.requestBodies.TaskInput.content.application/json"),
        ("body-has-example", "components.responses.TaskDeleted.content.application/json"),
        (ALWAYS, "paths./api/tasks.get.responses"),
        (ALWAYS, "paths./api/tasks.post.responses"),
        (ALWAYS, "paths./api/tasks/{id}.put.responses"),
        (ALWAYS, "paths./api/tasks/{id}.delete.responses"),
        ("path-with-id-answers-404", "paths./api/tasks/{id}.get.responses"),
        ("operation-id-is-verb-and-noun", "paths./api/tasks.get.operationId"),
        ("operation-id-is-verb-and-noun", "paths./api/tasks.post.operationId"),
        ("operation-id-is-verb-and-noun", "paths./api/tasks/{id}.get.operationId"),
    }
    assert {rule for rule, _ in found} == RULES.keys()
