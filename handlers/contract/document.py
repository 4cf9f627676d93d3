"""Load the contract, `openapi.yaml`, and look up operations, responses and headers in it."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from connexion.spec import OpenAPISpecification

# In a wheel, the contract and its tests are in the folder `handlers`; in a checkout, they are one folder up.
PATH = next(path for folder in Path(__file__).parents[1:3] if (path := folder / "openapi.yaml").exists())
TESTS = next(path for name in ("contract_tests", "tests/contract") if (path := PATH.parent / name).exists())


class ResolvedContract(OpenAPISpecification):
    """The contract with every reference resolved by Connexion."""

    @classmethod
    def _validate_spec(cls, spec: dict[str, Any]) -> None:
        """Do nothing: Connexion validates the contract in `create_app`, and a second validation takes time."""


class Operation(NamedTuple):
    """An operation: its full path, its method in upper case, and its description with references resolved."""

    path: str
    method: str
    description: dict[str, Any]


@cache
def raw() -> dict[str, Any]:
    """Return the contract as it is written, with references."""
    return cast(dict[str, Any], yaml.load(PATH.read_bytes(), Loader=yaml.CSafeLoader))


@cache
def resolved() -> ResolvedContract:
    """Return the contract with every reference resolved."""
    return ResolvedContract(deepcopy(raw()))


def resolve(node: Any) -> Any:
    """Return the node that a reference leads to. Return any other node as it is."""
    while isinstance(node, dict) and isinstance(reference := node.get("$ref"), str):
        node = raw()
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    return node


@cache
def operations() -> dict[str, Operation]:
    """Return every operation by operation id."""
    return {
        operation["operationId"]: Operation(resolved().base_path + path, method.upper(), operation)
        for path, item in resolved()["paths"].items()
        for method, operation in item.items()
        if "operationId" in operation
    }


def responses(operation_id: str | None) -> dict[str, dict[str, Any]]:
    """Return an operation's responses by status. None returns those to requests that match no operation."""
    found = operations()[operation_id].description["responses"] if operation_id else resolved()["x-responses"]
    return cast(dict[str, dict[str, Any]], found)


def success_status(operation_id: str) -> int:
    """Return the status of an operation's successful response."""
    return next(int(status) for status in responses(operation_id) if status.startswith("2"))


@cache
def constant_headers(operation_id: str | None, status: int) -> dict[str, str]:
    """Return the headers of a response whose values are constant: their schemas in the contract have a default."""
    headers = responses(operation_id)[str(status)].get("headers", {})
    return {name: str(header["schema"]["default"]) for name, header in headers.items() if "default" in header["schema"]}


def path_for(operation_id: str, **parameters: object) -> str:
    """Return the path of an operation with its path parameters filled in."""
    return operations()[operation_id].path.format(**parameters)
