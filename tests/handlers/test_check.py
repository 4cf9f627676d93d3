"""`tasks-api check` and `tasks-api serve` refuse a contract that cannot be served, with a sentence for each fault."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from inflection import underscore

from handlers.contract import document
from tests.support.application import other_contract
from tests.support.inside import run
from tests.support.project import RUN_FROM_SOURCE, TIMEOUT

HANDLERS = """
from handlers.contract.problems import Refusal


async def accept(**_): ...


get_sync = lambda **_: None
get_unknown_argument = accept


async def get_needless(needless): raise Refusal(409, "NoSuchProblem") if needless else Refusal(418)


async def get_stubborn(): ...


async def get_strange(x: "Strange"): ...
"""
ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
ANSWERS = {"responses": {"200": {"description": "Fine."}}}


def parameter(**fields: Any) -> dict[str, Any]:
    described = {"name": "x", "in": "query", "schema": {"type": "string"}, **fields}
    return {"parameters": [{key: value for key, value in described.items() if value is not None}]}


NESTED = (
    '.parameters[0]: objects and nested arrays in style "form" are not supported; use style "deepObject" or content.'
)
NO_SCHEMA = ".parameters[0]: it needs either a schema, or content: application/json."
# For each operation id, the operation, and the faults that are reported, after the place of the operation.
FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "findFine": ({}, []),
    "findMatrix": (
        parameter(style="matrix"),
        ['.parameters[0]: style "matrix" is not supported; use "form".'],
    ),
    "findObject": (
        parameter(schema={"type": "object"}),
        [NESTED],
    ),
    "findNested": (
        parameter(schema={"type": "array", "items": {"type": "array", "items": {}}}),
        [NESTED],
    ),
    "findXml": (
        parameter(schema=None, content={"application/xml": {}}),
        [NO_SCHEMA],
    ),
    "findInBody": (
        parameter(**{"in": "body"}),
        ['.parameters[0].in: "body" is not supported; use path, query, header, cookie.'],
    ),
    "findCookies": (
        parameter(**{"in": "cookie", "schema": {"type": "array", "items": {"type": "string"}}}),
        [".parameters[0]: an exploded array in a cookie is not supported; add explode: false."],
    ),
    "findDefault": (
        parameter(schema={"type": "integer", "minimum": 1, "default": 0}),
        [".parameters[0].schema.default: the default violates the schema; correct it."],
    ),
    "findDeepText": (
        parameter(style="deepObject"),
        ['.parameters[0]: style "deepObject" is for objects; use "form".'],
    ),
    "getStrange": (
        parameter(),
        [": an annotation of its handler cannot be read: name 'Strange' is not defined; import what it names."],
    ),
    "findOptional": (
        {"parameters": [{**ID, "required": False}]},
        [".parameters[0]: a path parameter is always required; add required: true."],
    ),
    "getSetting": (
        {"tags": ["Settings"]},
        [": the module handlers/settings_operations.py is missing; add it with the handler."],
    ),
    "getBroken": (
        {"tags": ["Broken"]},
        [
            ": handlers/broken.py cannot be imported: No module named 'missing_library'; if the contract has changed,"
            " run make generate."
        ],
    ),
    "getInvalid": (
        {"tags": ["Invalid"]},
        [": handlers/invalid.py cannot be imported: invalid syntax (invalid.py, line 1); correct it."],
    ),
    "findFailure": (
        {"responses": {"409": {"description": "Never."}}},
        [".responses: it has no successful response; add one."],
    ),
    "findTwice": (
        {"parameters": [*parameter(name="a-b")["parameters"], *parameter(name="a_b")["parameters"]]},
        [": two parameters become the argument a_b; rename one."],
    ),
    "findById": (
        {"parameters": [ID]},
        [": the path has the parameters [], but describes ['id']; write each once in both."],
    ),
    "getMissing": (
        {},
        [": handlers/cases.py has no handler get_missing; add async def get_missing."],
    ),
    "getSync": ({}, [": the handler handlers.cases.<lambda> is not asynchronous; write async def."]),
    "getStubborn": (
        parameter(),
        [
            ": the handler handlers.cases.get_stubborn does not fit: got an unexpected keyword argument 'x';"
            " its arguments must be x."
        ],
    ),
    "getNeedless": (
        {},
        [
            ": the handler handlers.cases.get_needless does not fit: missing a required argument: 'needless';"
            " its arguments must be none."
        ],
    ),
    "untagged": (
        {"tags": []},
        [": the module handlers/operations.py is missing; add it with the handler."],
    ),
}
OTHER_FAULTS = [
    'handlers/cases.py:12: no operation has a problem "NoSuchProblem" of status 409; add it to x-problems.',
    "handlers/cases.py:12: no operation has a response 418; add it.",
    "paths./findNamed/{name}.get: /findNamed/{id} matches the same requests; give the parameters the same names.",
    "paths./again.get: another operation has the same operationId; change one.",
]


def path_of(name: str) -> str:
    """Return the path of an operation in the contract with all faults."""
    return f"/{name}/{{id}}" if name == "findOptional" else f"/{name}"


def contract() -> dict[str, Any]:
    """Return a contract with all these faults."""
    paths: dict[str, Any] = {
        f"/{name}{'/{id}' * (name == 'findOptional')}": {
            "get": {"operationId": name, "tags": ["Cases"], **ANSWERS, **operation}
        }
        for name, (operation, _) in FAULTS.items()
    }
    paths["/findNamed/{id}"] = {"get": {"operationId": "findNamed", "tags": ["Cases"], "parameters": [ID], **ANSWERS}}
    name = {**ID, "name": "name"}
    paths["/findNamed/{name}"] = {
        "get": {"operationId": "findOther", "tags": ["Cases"], "parameters": [name], **ANSWERS}
    }
    paths["/again"] = {"get": {"operationId": "findFine", "tags": ["Cases"], **ANSWERS}}
    return {"openapi": "3.0.3", "info": {"title": "Cases API", "version": "1"}, "paths": paths}


@pytest.mark.slow
def test_contract_of_the_project_has_no_faults(tmp_path: Path) -> None:
    checked = run(tmp_path, "check")

    assert (checked.returncode, checked.stdout) == (
        0,
        f"openapi.yaml: {len(document.operations())} operations, no faults.\n",
    )
    assert not list(tmp_path.iterdir())


def test_published_contract_is_printed(tmp_path: Path) -> None:
    assert yaml.safe_load(run(tmp_path, "contract").stdout) == document.raw()


def modules() -> dict[str, str]:
    """Return the modules of handlers for the contract with all faults."""
    accepting = (f"{underscore(name)} = accept\n" for name in (*FAULTS, "findNamed", "findOther") if name[:4] == "find")
    return {"cases": HANDLERS + "".join(accepting), "broken": "import missing_library", "invalid": "def"}


def assert_all_faults_are_reported(output: str) -> None:
    expected = {
        f"paths./{name}{'/{id}' * (name == 'findOptional')}.get{fault}"
        for name, (_, faults) in FAULTS.items()
        for fault in faults
    }
    assert {line.removeprefix("openapi.yaml: ") for line in output.splitlines()} == expected | set(OTHER_FAULTS)


def test_check_reports_all_faults_at_once(tmp_path: Path) -> None:
    with other_contract(tmp_path, contract(), **modules()):
        checked = run(tmp_path, "check")

    assert checked.returncode == 1
    assert_all_faults_are_reported(checked.stderr)


@pytest.mark.slow
def test_faulty_contract_is_not_served(checkout: Path) -> None:
    (checkout / "openapi.yaml").write_text(yaml.safe_dump(contract(), sort_keys=False), "utf-8")
    for name, source in modules().items():
        (checkout / f"handlers/{name}.py").write_text(source, "utf-8")
    command = [*RUN_FROM_SOURCE, "serve"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, encoding="utf-8", check=False, timeout=TIMEOUT)

    assert (done.returncode, done.stdout) == (1, "")
    assert_all_faults_are_reported(done.stderr)


HEAD = "openapi: 3.0.0\ninfo: {title: A, version: '1'}\n"


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("a: [", "openapi.yaml is not valid YAML: "),
        ("\udcff", "openapi.yaml is not valid YAML: "),
        ("a: 1\na: 2", "openapi.yaml is not valid YAML: a occurs twice in"),
        ("[]", "openapi.yaml: openapi: None is not supported; write an OpenAPI document of version 3.0 or 3.1.\n"),
        ("swagger: '2.0'", "openapi.yaml: openapi: None is not supported; "),
        ("openapi: 3.0.0\npaths: {}", 'openapi.yaml: the document: "info" is a required property; correct it.\n'),
        (HEAD + "paths: {}\n" + "x-a: &a [*a]", "openapi.yaml is nested too deeply, or an anchor contains itself; "),
        (
            HEAD + "paths: {/a: {get: {responses: {'200': {$ref: '#/no'}}}}}",
            'openapi.yaml: paths./a.get.responses.200: the reference "#/no" leads nowhere; ',
        ),
        (
            HEAD + "paths: {}\ncomponents: {schemas: {A: {$ref: '#/components/schemas/B'}, B: {$ref: '#/no'}}}",
            'openapi.yaml: components.schemas.A: the reference "#/no" leads nowhere; ',
        ),
        (
            HEAD + "paths: {/a: {$ref: 'other.yaml'}}",
            'openapi.yaml: paths./a: the reference "other.yaml" leads out of the document; bundle ',
        ),
        (
            HEAD + "paths: {/a: {$ref: '#/paths/~1a'}}",
            'openapi.yaml: paths./a: the reference "#/paths/~1a" leads back to itself; correct it.\n',
        ),
        (
            HEAD + "paths: {/a: {parameters: [$ref: '#/components/headers/A']}}",
            'openapi.yaml: paths./a.parameters[0]: the reference "#/components/headers/A" leads to another kind of',
        ),
        (
            HEAD + "paths: {/a: {get: {response: {}}}}",
            'openapi.yaml: paths./a.get: "responses" is a required property; correct it.\n'
            "openapi.yaml: paths./a.get: Additional properties are not allowed ('response' was unexpected); ",
        ),
        (HEAD + "paths: {}\nx-messages: {type: '{what} is wrong'}", "openapi.yaml: x-messages.type: "),
        (
            HEAD + "paths: {}\nx-max-bytes: many",
            'openapi.yaml: x-max-bytes: "many" is not of type "integer"; correct it.\n',
        ),
        (HEAD.replace("0.0", "1.0") + "x-name: 3", 'openapi.yaml: x-name: 3 is not of type "string"; correct it.\n'),
    ],
)
def test_broken_document_is_reported_in_a_sentence(written: str, fault: str, tmp_path: Path) -> None:
    with other_contract(tmp_path, written):
        checked = run(tmp_path, "check")

    assert checked.stderr.startswith(fault)
    assert checked.returncode == 1


def test_missing_document_is_reported(tmp_path: Path) -> None:
    with other_contract(tmp_path, ""):
        (tmp_path / "openapi.yaml").unlink()
        checked = run(tmp_path, "check")

    assert (
        checked.stderr
        == f"{tmp_path}/openapi.yaml cannot be read: No such file or directory; add the contract there.\n"
    )


def test_models_that_are_older_than_the_contract_are_reported(tmp_path: Path) -> None:
    contract = document.PATH.read_text("utf-8")
    place = "      properties:\n        title:\n"
    newer = contract.replace(place, place.replace("title:", "dueDate: {type: string}\n        title:"), 1)
    with other_contract(tmp_path, newer):
        checked = run(tmp_path, "check")

    assert "the model TaskInput has no dueDate; run make generate.\n" in checked.stderr


def test_own_problem_schema_must_fit(tmp_path: Path) -> None:
    parts = {"paths": {}, "components": {"schemas": {"Problem": {"type": "string"}}}}
    with other_contract(tmp_path, {"openapi": "3.0.3", **parts}):
        checked = run(tmp_path, "check")

    assert checked.stderr.startswith("openapi.yaml: components.schemas.Problem: it must allow {")
