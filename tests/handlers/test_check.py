"""`tasks-api check` and `tasks-api serve` refuse a contract that cannot be served, with a sentence for each fault."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from inflection import underscore

from tests.support.project import RUN_FROM_SOURCE, TIMEOUT

pytestmark = pytest.mark.slow

HANDLERS = """
from handlers.contract.problems import Refusal


async def accept(**_): ...


get_sync = lambda **_: None
get_unknown_argument = accept


async def get_needless(needless): raise Refusal(409, "NoSuchProblem") if needless else Refusal(418)


async def get_stubborn(): ...
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


def contract() -> dict[str, Any]:
    """Return a contract with all these faults."""
    paths: dict[str, Any] = {
        f"/{name}": {"get": {"operationId": name, "tags": ["Cases"], **ANSWERS, **operation}}
        for name, (operation, _) in FAULTS.items()
    }
    paths["/findNamed/{id}"] = {"get": {"operationId": "findNamed", "tags": ["Cases"], "parameters": [ID], **ANSWERS}}
    name = {**ID, "name": "name"}
    paths["/findNamed/{name}"] = {
        "get": {"operationId": "findOther", "tags": ["Cases"], "parameters": [name], **ANSWERS}
    }
    paths["/again"] = {"get": {"operationId": "findFine", "tags": ["Cases"], **ANSWERS}}
    return {"openapi": "3.0.3", "info": {"title": "Cases API", "version": "1"}, "paths": paths}


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the command in a project, and return its exit status and its error output."""
    command = [*RUN_FROM_SOURCE, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    return done.returncode, done.stdout + done.stderr


def test_contract_of_the_project_has_no_faults(checkout: Path) -> None:
    status, output = run(checkout, "check")

    assert (status, output.strip().endswith("operations, no faults.")) == (0, True)
    assert not list(checkout.glob("*.db"))


@pytest.mark.parametrize("command", ["check", "serve"])
def test_all_faults_are_reported_at_once(command: str, checkout: Path) -> None:
    (checkout / "openapi.yaml").write_text(yaml.safe_dump(contract(), sort_keys=False))
    accepting = (f"{underscore(name)} = accept\n" for name in (*FAULTS, "findNamed", "findOther") if name[:4] == "find")
    (checkout / "handlers/cases.py").write_text(HANDLERS + "".join(accepting))

    status, output = run(checkout, command)

    expected = {f"paths./{name}.get{fault}" for name, (_, faults) in FAULTS.items() for fault in faults}
    expected |= set(OTHER_FAULTS)
    assert {line.removeprefix("openapi.yaml: ") for line in output.splitlines()} == expected
    assert status == 1


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("a: [", "openapi.yaml is not valid YAML: "),
        ("\xff", "openapi.yaml is not valid YAML: "),
        ("[]", "openapi.yaml: openapi: None is not supported; write an OpenAPI document of version 3.0 or 3.1.\n"),
        ("swagger: '2.0'", "openapi.yaml: openapi: None is not supported; "),
        ("openapi: 3.0.0\npaths: {}", 'openapi.yaml: the document: "info" is a required property; correct it.\n'),
        (
            "openapi: 3.0.0\ninfo: {title: A, version: '1'}\npaths: {/a: {get: {responses: {'200': {$ref: '#/no'}}}}}",
            'openapi.yaml: paths./a.get.responses.200: the reference "#/no" leads nowhere; ',
        ),
        (
            "openapi: 3.0.0\ninfo: {title: A, version: '1'}\npaths: {/a: {$ref: 'other.yaml'}}",
            'openapi.yaml: paths./a: the reference "other.yaml" leads out of the document; bundle ',
        ),
        (
            "openapi: 3.0.0\ninfo: {title: A, version: '1'}\npaths: {/a: {$ref: '#/paths/~1a'}}",
            'openapi.yaml: paths./a: the reference "#/paths/~1a" leads back to itself; correct it.\n',
        ),
        (
            "openapi: 3.0.0\ninfo: {title: A, version: '1'}\npaths: {/a: {get: {response: {}}}}",
            'openapi.yaml: paths./a.get: "responses" is a required property; correct it.\n'
            "openapi.yaml: paths./a.get: Additional properties are not allowed ('response' was unexpected); ",
        ),
    ],
)
def test_broken_document_is_reported_in_a_sentence(written: str, fault: str, checkout: Path) -> None:
    (checkout / "openapi.yaml").write_text(written, "latin-1")

    status, output = run(checkout, "check")

    assert output.startswith(fault)
    assert "Traceback" not in output
    assert status == 1
