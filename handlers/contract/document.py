"""The contract, `openapi.yaml`, as the rest of the code reads it."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from connexion.spec import OpenAPISpecification

# A wheel carries the contract and its tests in `handlers`, a checkout one folder up.
PATH = next(path for folder in Path(__file__).parents[1:3] if (path := folder / "openapi.yaml").exists())
TESTS = next(path for name in ("contract_tests", "tests/contract") if (path := PATH.parent / name).exists())


class Contract(OpenAPISpecification):
    """The contract as Connexion reads it; that it is valid Connexion sees where the application is made."""

    @classmethod
    def _validate_spec(cls, spec: dict[str, Any]) -> None:
        """Look at nothing again, which takes as long as a tenth of a start."""


@cache
def document() -> dict[str, Any]:
    """Return the contract as it is written."""
    contract: dict[str, Any] = yaml.load(PATH.read_bytes(), Loader=yaml.CSafeLoader)
    return contract


@cache
def specification() -> Contract:
    """Return the contract with every reference resolved."""
    return Contract(deepcopy(document()))


@cache
def operations() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the path and the resolved description of each operation, by operation id."""
    return {
        operation["operationId"]: (specification().base_path + path, operation)
        for path, item in specification()["paths"].items()
        for operation in item.values()
        if "operationId" in operation
    }


def responses(operation_id: str | None) -> dict[str, dict[str, Any]]:
    """Return the resolved responses of an operation by status; None for those that no operation gives."""
    described: dict[str, dict[str, Any]] = (
        operations()[operation_id][1]["responses"] if operation_id else specification()["x-responses"]
    )
    return described


def success(operation_id: str) -> int:
    """Return the status with which an operation succeeds."""
    return next(int(status) for status in responses(operation_id) if status.startswith("2"))


@cache
def constant_headers(operation_id: str | None, status: int) -> dict[str, str]:
    """Return the headers of a response that are always the same: the schema of each has a default."""
    headers = responses(operation_id)[str(status)].get("headers", {})
    return {name: str(header["schema"]["default"]) for name, header in headers.items() if "default" in header["schema"]}


def path_of(operation_id: str, **parameters: object) -> str:
    """Return the path of an operation, with its parameters put in."""
    template, _ = operations()[operation_id]
    return template.format(**parameters)
