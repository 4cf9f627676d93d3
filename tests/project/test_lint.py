"""The linter of the contract finds violations of each house rule."""

import json
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from handlers.contract import document
from tests.support.project import ROOT

RULES = yaml.safe_load((ROOT / "tests/house-rules.spectral.yaml").read_text("utf-8"))["rules"]
REQUIRED_RESPONSES = "operation-answers-401-429-500-503"


def findings(node: Path, document: dict[str, Any], folder: Path) -> set[tuple[str, str]]:
    """Return the broken rules that Spectral reports, each with its location."""
    (folder / "openapi.yaml").write_text(yaml.safe_dump(document), "utf-8")
    command = [str(node / "spectral"), "lint", "--quiet", "--format=json", "--ruleset=.spectral.yaml"]
    completed = subprocess.run(
        [*command, str(folder / "openapi.yaml")], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    return {(finding["code"], ".".join(finding["path"])) for finding in json.loads(completed.stdout)}


def test_each_house_rule_finds_its_violations(node: Path, tmp_path: Path) -> None:
    contract = deepcopy(document.raw())
    components = contract["components"]
    collection, item = contract["paths"]["/api/tasks"], contract["paths"]["/api/tasks/{id}"]
    del components["parameters"]["Limit"]["example"]
    del components["headers"]["Location"]["example"]
    del contract["x-responses"]["204"]["headers"]["Allow"]["example"]
    del components["schemas"]["TaskInput"]["properties"]["completed"]["example"]
    del components["schemas"]["Problem"]["properties"]["errors"]["example"]
    del components["requestBodies"]["TaskInput"]["content"]["application/json"]["examples"]
    del components["responses"]["TaskDeleted"]["content"]["application/json"]["examples"]
    del collection["get"]["responses"]["401"]
    del collection["post"]["responses"]["429"]
    del item["put"]["responses"]["500"]
    del item["delete"]["responses"]["503"]
    del item["get"]["responses"]["404"]
    for path_item, method, name in (
        (collection, "get", "tasks"),
        (collection, "post", "create"),
        (item, "get", "get_task"),
    ):
        path_item[method]["operationId"] = name
    components["schemas"]["TaskDescription"]["pattern"] = r"^[^\u0000]*$"
    components["schemas"]["Task"]["properties"]["createdAt"]["pattern"] = "Z$"
    components["schemas"]["TaskId"]["maximum"] = 2**53
    components["parameters"]["IdempotencyKey"]["schema"]["anyOf"] = [{"maxLength": 255}]
    components["links"]["GetTask"]["parameters"] = {"id": 1}
    item["delete"]["parameters"].reverse()

    found = {(rule, location) for rule, location in findings(node, contract, tmp_path) if rule in RULES}

    assert found == {
        ("parameter-has-example", "components.parameters.Limit"),
        ("header-has-example", "components.headers.Location"),
        ("header-has-example", "x-responses.204.headers.Allow"),
        ("property-has-example", "components.schemas.TaskInput.properties.completed"),
        ("property-has-example", "components.schemas.Problem.properties.errors"),
        ("body-has-example", "components.requestBodies.TaskInput.content.application/json"),
        ("body-has-example", "components.responses.TaskDeleted.content.application/json"),
        (REQUIRED_RESPONSES, "paths./api/tasks.get.responses"),
        (REQUIRED_RESPONSES, "paths./api/tasks.post.responses"),
        (REQUIRED_RESPONSES, "paths./api/tasks/{id}.put.responses"),
        (REQUIRED_RESPONSES, "paths./api/tasks/{id}.delete.responses"),
        ("path-with-id-answers-404", "paths./api/tasks/{id}.get.responses"),
        ("operation-id-is-verb-and-noun", "paths./api/tasks.get.operationId"),
        ("operation-id-is-verb-and-noun", "paths./api/tasks.post.operationId"),
        ("operation-id-is-verb-and-noun", "paths./api/tasks/{id}.get.operationId"),
        ("pattern-is-portable", "components.schemas.TaskDescription.pattern"),
        ("time-has-no-pattern", "components.schemas.Task.properties.createdAt.pattern"),
        ("integer-fits-into-a-double", "components.schemas.TaskId.maximum"),
        ("header-parameter-is-plain", "components.parameters.IdempotencyKey.schema"),
        ("link-names-the-location", "components.links.GetTask.parameters"),
        ("path-parameter-comes-first", "components.parameters.IfMatch.in"),
    }
    assert {rule for rule, _ in found} == RULES.keys()
