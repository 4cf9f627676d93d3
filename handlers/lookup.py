"""Find the handler of each operation: in `handlers/pets.py` for the tag `Pets`, under its operation id in snake case.

The module holds coroutine functions, or a class `Handlers` with coroutine methods, whose constructor receives the
services.
"""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from handlers.contract import document, problems
from handlers.contract.dispatch import OperationHandler
from handlers.contract.document import Operation
from handlers.contract.faults import FaultError, collected
from handlers.contract.validation import Rules, Violation
from handlers.services import Services

# The module of operations without a tag.
UNTAGGED = "operations"
# Other modules of this package. For a tag with one of these names, the module is `settings_operations` and so on.
RESERVED = {"access", "application", "arguments", "cli", "commands", "compression", "contract", "documentation"}
RESERVED |= {"entity_tags", "environment", "idempotency", "lookup", "observability", "security", "server", "services"}
RESERVED |= {"settings"}


def find_handlers(services: Services, faults: list[str]) -> dict[str, OperationHandler]:
    """Return the handlers by operation id, and add a sentence to `faults` for everything that cannot be served."""
    found: dict[str, OperationHandler] = {}
    owners: dict[ModuleType, Any] = {}
    shapes: dict[str, str] = {}
    for operation_id, operation in document.operations().items():
        with collected(faults):
            if operation.description.get("operationId", operation_id) != operation_id:
                raise FaultError(operation.place, "another operation has the same operationId; change one.")
            _check_path(operation, shapes)
            module = _module(operation)
            if module not in owners:
                owners[module] = module.Handlers(services) if hasattr(module, "Handlers") else module
            name = document.snake_case(operation_id)
            function = getattr(owners[module], name, None)
            if not callable(function):
                raise FaultError(operation.place, f"{_file(module)} has no handler {name}; add async def {name}.")
            found[operation_id] = OperationHandler(operation_id, function, faults)
    for module in owners:
        faults += _unknown_refusals(module)
    example = problems.problem(None, 400, violations=[Violation("x is required", pointer="/x")])
    if not Rules({"$ref": "#/components/schemas/Problem"}, "").is_valid(example):
        faults.append(f"components.schemas.Problem: it must allow {json.dumps(example)}; rename it, or remove it.")
    return found


def _module(operation: Operation) -> ModuleType:
    name = document.snake_case(next(iter(operation.description.get("tags", ())), UNTAGGED))
    if name in RESERVED:
        name += "_operations"
    try:
        return import_module(f"handlers.{name}")
    except Exception as error:
        hint = "if the contract has changed, run make generate" if isinstance(error, ImportError) else "correct it"
        sentence = f"handlers/{name}.py cannot be imported: {error}; {hint}."
        if find_spec(f"handlers.{name}") is None:
            sentence = f"the module handlers/{name}.py is missing; add it with the handler."
        raise FaultError(operation.place, sentence) from error


def _file(module: ModuleType) -> str:
    return f"{module.__name__.replace('.', '/')}.py"


def _check_path(operation: Operation, shapes: dict[str, str]) -> None:
    """Raise FaultError if the path parameters do not fit the path, or another path matches the same requests."""
    named = re.findall("{(.*?)}", operation.path)
    described = [parameter["name"] for parameter in operation.parameters.values() if parameter["in"] == "path"]
    if sorted(named) != sorted(described):
        message = f"the path has the parameters {named}, but describes {described}; write each once in both."
        raise FaultError(operation.place, message)
    other = shapes.setdefault(re.sub("{.*?}", "{}", operation.path), operation.path)
    if other != operation.path:
        raise FaultError(operation.place, f"{other} matches the same requests; give the parameters the same names.")


def _unknown_refusals(module: ModuleType) -> Iterator[str]:
    """Yield a sentence for each `Refusal(409)` or `Refusal(409, "Name")` that no operation of the contract declares."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        match node:
            case ast.Call(ast.Name("Refusal") | ast.Attribute(attr="Refusal"), [ast.Constant(int(status)), *more]):
                found = [document.response(operation_id, status) for operation_id in document.operations()]
                contents = [response["content"].get(problems.MEDIA_TYPE, {}) for response in found if response]
                name = more[0].value if more and isinstance(more[0], ast.Constant) else None
                place = f"{_file(module)}:{node.lineno}"
                if not contents:
                    yield f"{place}: no operation has a response {status}; add it."
                elif name and all(name not in content.get("examples", ()) for content in contents):
                    yield f'{place}: no operation has a problem "{name!s}" of status {status}; add it to x-problems.'
