"""Load the contract, `openapi.yaml`, and look up operations, responses and headers in it."""

import json
import keyword
import re
import sys
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml
from inflection import underscore

from handlers.contract import standard, structure

# In a wheel, the contract and its tests are in the folder `handlers`; in a checkout, they are one folder up.
PATHS = [folder / "openapi.yaml" for folder in Path(__file__).parents[1:3]]
PATH = next(filter(Path.exists, PATHS), PATHS[1])
TESTS = next(filter(Path.exists, (PATH.with_name("contract_tests"), PATH.parent / "tests/contract")), PATH.parent)


class Loader(yaml.CSafeLoader):
    """A loader of YAML 1.2, as OpenAPI requires: dates and words such as `no` are strings, and here all keys are."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.MarkedYAMLError(problem=f"{twice.pop()} occurs twice", problem_mark=node.start_mark)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool", ":int"))]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|false|True|False|TRUE|FALSE)$"), list("tTfF"))
Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile("[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))


class Dumper(yaml.CSafeDumper):
    """A writer of readable YAML: without anchors, and with lines of text as lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


Dumper.add_representer(str, Dumper.represent_str)


class Operation(NamedTuple):
    """An operation: its full path, its method in upper case, and its description.

    `parameters` are those of the operation and of its path, by their place in the contract. References at the top of
    parameters and body are resolved; `responses` resolves those of the responses.
    """

    path: str
    method: str
    description: dict[str, Any]
    parameters: dict[str, dict[str, Any]]
    place: str


@cache
def raw() -> dict[str, Any]:
    """Return the contract with the standard parts, with references. Exit if it is not an OpenAPI document."""
    try:
        written = yaml.load(PATH.read_text("utf-8-sig"), Loader=Loader)  # noqa: S506, a safe loader
        if faults := structure.faults(written):
            sys.exit("\n".join(f"{PATH.name}: {fault}" for fault in faults))
        # This raises an error if an anchor contains itself.
        json.dumps(written)
        return standard.merge(written, standard.PATH.read_bytes())
    except OSError as error:
        sys.exit(f"{PATH} cannot be read: {error.strerror}; add the contract there.")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        sentence = " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")
        sys.exit(f"{PATH.name} is not valid YAML: {sentence}.")
    except (RecursionError, ValueError):
        sys.exit(f"{PATH.name} is nested too deeply, or an anchor contains itself; use references instead.")


def resolve(node: Any) -> Any:
    """Return the node that a reference leads to. Return any other node as it is."""
    while isinstance(node, dict) and isinstance(reference := node.get("$ref"), str):
        node = structure.follow(raw(), reference)
    return node


def snake_case(name: str) -> str:
    """Return a name of the contract as a Python name: in snake case, with an underscore where Python needs one."""
    found = re.sub(r"\W+", "_", underscore(name)).strip("_")
    if keyword.iskeyword(found):
        return f"{found}_"
    return found if found.isidentifier() else f"_{found}"


def name_of(contract: Mapping[str, Any]) -> str:
    """Return the short name of the service: `x-name`, or else the title without a final "API"."""
    name = contract.get("x-name") or re.sub(r"\s+API\s*$", "", contract["info"]["title"], flags=re.IGNORECASE)
    # Names of commands, environment variables and metrics follow from it, so it must start with a letter.
    slug = re.sub(r"\W+", "-", name.lower(), flags=re.ASCII)
    return re.sub(r"^[^a-z]+|-+$", "", slug) or "service"


NAME = name_of(raw())
COMMAND = f"{NAME}-api"
# Of the environment variables.
PREFIX = f"{COMMAND}_".replace("-", "_").upper()


@cache
def base_path() -> str:
    """Return the path of the first server, without a final slash."""
    server = next(iter(raw().get("servers") or [{"url": ""}]))
    variables = {name: variable["default"] for name, variable in server.get("variables", {}).items()}
    path = urlsplit(re.sub(r"{(.*?)}", lambda name: variables.get(name[1], ""), server["url"])).path.strip("/.")
    return f"/{path}" if path else ""


@cache
def security_schemes() -> dict[str, dict[str, Any]]:
    """Return the security schemes by name."""
    return {name: resolve(scheme) for name, scheme in raw().get("components", {}).get("securitySchemes", {}).items()}


@cache
def operations() -> dict[str, Operation]:
    """Return every operation by operation id; one that has none, or that of another, by its method and path."""
    found: dict[str, Operation] = {}
    for path, node in raw()["paths"].items():
        item = resolve(node)
        for method in (name for name in standard.METHODS if name in item):
            operation_id = item[method].get("operationId")
            name = operation_id if operation_id and operation_id not in found else f"{method} {path}"
            found[name] = _operation(path, item, method)
    return found


def _operation(path: str, item: dict[str, Any], method: str) -> Operation:
    place, described = f"paths.{path}.{method}", item[method]
    # A parameter of the operation overrides one of the path with the same name and location.
    parameters = {}
    for owner, node in ((f"paths.{path}", item), (place, described)):
        for index, parameter in enumerate(map(resolve, node.get("parameters", ()))):
            parameters[parameter["name"], parameter["in"]] = (f"{owner}.parameters[{index}]", parameter)
    resolved = {
        **described,
        "requestBody": resolve(described.get("requestBody")),
        "security": described.get("security", raw().get("security", [])),
    }
    return Operation(base_path() + path, method.upper(), resolved, dict(parameters.values()), place)


@cache
def responses(operation_id: str | None) -> dict[str, dict[str, Any]]:
    """Return an operation's responses by status, with resolved headers; for None, those without an operation."""
    declared = operations()[operation_id].description["responses"] if operation_id else raw()["x-responses"]
    found = {status: resolve(response) for status, response in declared.items()}
    return {
        status: {**response, "headers": {name: resolve(each) for name, each in response.get("headers", {}).items()}}
        for status, response in found.items()
    }


def header_names(*operation_ids: str | None) -> list[str]:
    """Return the names of all headers in the responses of operations."""
    declared = [response for each in operation_ids for response in responses(each).values()]
    return [name for response in declared for name in response["headers"]]


def response(operation_id: str | None, status: int) -> dict[str, Any] | None:
    """Return the response with a status, else the one of its range, such as `4XX`, else the default, else None."""
    declared = responses(operation_id)
    keys = (str(status), f"{status // 100}XX", "default")
    return next((declared[key] for key in keys if key in declared), None)


def success_status(operation_id: str) -> int:
    """Return the lowest status that the contract declares for a successful response, or 200 if it declares none."""
    return min((int(status) for status in responses(operation_id) if re.fullmatch(r"[23]\d\d", status)), default=200)


@cache
def constant_headers(operation_id: str | None, status: int) -> dict[str, str]:
    """Return the headers of a response whose values are constant: their schemas in the contract have a default."""
    headers = (response(operation_id, status) or {}).get("headers", {})
    schemas = {name: resolve(header.get("schema", {})) for name, header in headers.items()}
    defaults = {name: schema["default"] for name, schema in schemas.items() if "default" in schema}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in defaults.items()}


def path_for(operation_id: str, **parameters: object) -> str:
    """Return the path of an operation with its path parameters filled in."""
    return operations()[operation_id].path.format(**parameters)


def to_yaml(contract: dict[str, Any]) -> bytes:
    """Return a contract as YAML in UTF-8."""
    options: Any = {"sort_keys": False, "allow_unicode": True, "width": 120, "encoding": "utf-8"}
    return bytes(yaml.dump(contract, Dumper=Dumper, **options))
