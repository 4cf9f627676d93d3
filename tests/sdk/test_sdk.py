"""The SDKs that `make sdk` generates: their installation, their types, and the example programs that use them."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from handlers.contract import document
from tests.support.project import ROOT
from tests.support.service import Service

pytestmark = pytest.mark.slow

PROGRAMS = ROOT / "tests/sdk"
NAME = "tasks-api-client"
VERSION = document.raw()["info"]["version"]
# TypeScript compiler options for both the generated client and the program.
STRICT_OPTIONS = ("strict", "exactOptionalPropertyTypes", "noUncheckedIndexedAccess")
EXPECTED_OUTPUT = """\
Created: Write the tutorial
Created: Water the plants
Created: Rest
Listed: Write the tutorial, Water the plants
Listed: Rest
Replaced: Publish it (completed)
Refused: 412 The task has changed, or If-Match names no ETag of this task; get it again, and retry with its new ETag
Refused: 400 /title minLength: Title is required
Refused: 400 /description maxLength: description must have at most 4000 characters
Task deleted: 1
Task deleted: 2
Task deleted: 3
Refused: 404 Task not found
"""


def run_command(
    *command: str | Path, folder: Path = ROOT, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command, and return its exit status and output."""
    environment = os.environ | (variables or {})
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False
    )


def output_of(*command: str | Path, folder: Path = ROOT) -> str:
    """Run a command that must succeed, and return its output."""
    completed = run_command(*command, folder=folder)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def make(target: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a target of the Makefile, but do not install anything."""
    # These options prevent any installation, even if a lock file has changed or `make mutants` has planted a defect.
    no_installation = (f"--old-file={sys.prefix}/development", "--old-file=build/node/installed", f"VENV={sys.prefix}")
    return run_command("make", *no_installation, f"SDK={folder}", target, variables=variables)


@pytest.fixture(scope="module")
def python_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the generated Python client."""
    folder = tmp_path_factory.mktemp("sdk")
    run = make("sdk-python", folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "python"


@pytest.fixture(scope="module")
def python(python_sdk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python interpreter of a virtual environment in which the client and its dependencies are installed."""
    folder = tmp_path_factory.mktemp("installed")
    uv = Path(sys.executable).with_name("uv")
    options = ("--quiet", "--python", sys.executable)
    output_of(uv, "build", *options, "--wheel", "--no-build-isolation", "-o", folder, python_sdk)
    (wheel,) = folder.glob("*.whl")
    output_of(uv, "venv", *options, folder / "venv")
    python = folder / "venv/bin/python"
    output_of(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    # Let the client import httpx and attrs from the environment of the tests.
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    return python


@pytest.fixture(scope="module")
def typescript_sdk(node: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the generated TypeScript client."""
    folder = tmp_path_factory.mktemp("sdk")
    run = make("sdk-typescript", folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "typescript"


@pytest.fixture(scope="module")
def javascript_program(node: Path, typescript_sdk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled program for Node, in a folder in which the client is installed."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "package.json").write_text('{"type": "module"}', "utf-8")
    output_of("npm", "install", "--offline", typescript_sdk, folder=folder)
    shutil.copy(PROGRAMS / "program.ts", folder)
    # Skip the type declarations of the client, which are checked when the client is generated.
    compiled = compile_program(node, folder, "--skipLibCheck")
    assert (compiled.stdout, compiled.returncode) == ("", 0)
    return folder / "program.js"


def compile_program(node: Path, folder: Path, *extra_options: str) -> subprocess.CompletedProcess[str]:
    """Compile the file program.ts in a folder."""
    options = ("--module", "nodenext", "--target", "es2022", "--types", "node", "--typeRoots", node.parent / "@types")
    strict = [f"--{name}" for name in STRICT_OPTIONS]
    return run_command(node / "tsc", *strict, *options, *extra_options, "program.ts", folder=folder)


@pytest.fixture(params=["python", "typescript"])
def program(request: pytest.FixtureRequest) -> tuple[str | Path, ...]:
    """Return the command that runs the program, for each language in turn."""
    if request.param == "python":
        return request.getfixturevalue("python"), PROGRAMS / "program.py"
    return "node", request.getfixturevalue("javascript_program")


def test_program_prints_the_result_of_each_call(program: tuple[str | Path, ...], service: Service) -> None:
    assert output_of(*program, service.url) == EXPECTED_OUTPUT
    assert service.client.get("/api/tasks").json() == []


def test_api_key_is_sent(program: tuple[str | Path, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for variables, authorization in (({"TASKS_API_KEY": "secret"}, ["Bearer secret"]), ({"TASKS_API_KEY": ""}, [])):
            client = subprocess.Popen([*program, url], env=os.environ | variables, stderr=subprocess.DEVNULL)
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(65536).decode()
            assert client.wait(timeout=30) == 1
            assert head.startswith("POST /api/tasks HTTP/1.1\r\n")
            assert re.findall(r"^authorization: (.*?)\r$", head, re.MULTILINE | re.IGNORECASE) == authorization


def test_programs_match_the_documentation() -> None:
    page = (ROOT / "docs/sdks.md").read_text("utf-8")

    for language, name in (("python", "program.py"), ("ts", "program.ts")):
        assert f"```{language}\n{(PROGRAMS / name).read_text('utf-8')}```" in page, (
            f"copy tests/sdk/{name} to docs/sdks.md"
        )


def test_python_client_has_every_operation(python_sdk: Path) -> None:
    functions = {path.relative_to(python_sdk).as_posix() for path in python_sdk.glob("tasks_api_client/api/*/*.py")}

    assert functions >= {
        f"tasks_api_client/api/{document.snake_case(operation.description['tags'][0])}/{document.snake_case(operation_id)}.py"
        for operation_id, operation in document.operations().items()
    }


def test_typescript_client_has_every_operation(typescript_sdk: Path) -> None:
    schema = (typescript_sdk / "schema.ts").read_text("utf-8")

    assert [name for name in document.operations() if f"\n    {name}: {{\n" not in schema] == []


def test_python_client_has_the_version_of_the_contract(python: Path) -> None:
    installed = output_of(python, "-c", f"from importlib.metadata import version; print(version({NAME!r}))")

    assert installed.strip() == VERSION


def mypy(python: Path, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy in strict mode, without the project's settings, with the packages of the given Python interpreter."""
    command = (
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={ROOT}/.mypy_cache/sdk",
        "--python-executable",
        python,
    )
    return run_command(*command, *arguments, folder=folder)


def test_python_client_and_program_are_typed(python: Path, tmp_path: Path) -> None:
    for target in (("-p", "tasks_api_client"), (PROGRAMS / "program.py",)):
        checked = mypy(python, *target, folder=tmp_path)
        assert checked.stdout.startswith("Success"), checked.stdout


def test_python_types_reject_a_wrong_program(python: Path, tmp_path: Path) -> None:
    text = (PROGRAMS / "program.py").read_text("utf-8")
    for right, wrong in (
        ("created.title", "created.titel"),
        ("task.title for", "task.name for"),
        ("if_match=", "match="),
        ('TaskInput("Too late")', "TaskInput(1)"),
        ("violation.pointer", "violation.place"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    (tmp_path / "wrong.py").write_text(text, "utf-8")

    errors = mypy(python, "wrong.py", folder=tmp_path).stdout
    for error in (
        '"Task" has no attribute "titel"',
        '"Task" of "Any | Task" has no attribute "name"',
        'Unexpected keyword argument "match" for "sync"',
        'Argument 1 to "TaskInput" has incompatible type "int"',
        '"Violation" has no attribute "place"',
    ):
        assert error in errors, errors


def test_typescript_package_contains_the_client(node: Path, typescript_sdk: Path, tmp_path: Path) -> None:
    (packed,) = json.loads(output_of("npm", "pack", "--json", "--pack-destination", tmp_path, folder=typescript_sdk))
    (tmp_path / "package.json").write_text('{"type": "module"}', "utf-8")
    # Without these folders, npm would fetch the dependencies from a registry.
    dependencies = [node.parent / name for name in ("openapi-fetch", "openapi-typescript-helpers")]
    output_of(
        "npm", "install", "--offline", "--install-links", tmp_path / packed["filename"], *dependencies, folder=tmp_path
    )

    assert (packed["name"], packed["version"]) == (NAME, VERSION)
    assert {file["path"] for file in packed["files"]} == {
        "package.json",
        *(f"dist/{name}.{ending}" for name in ("index", "schema") for ending in ("js", "d.ts")),
    }
    script = 'import { createTasksClient } from "tasks-api-client"; console.log(typeof createTasksClient)'
    assert output_of("node", "--input-type=module", "--eval", script, folder=tmp_path) == "function\n"


def test_typescript_client_is_compiled_with_strict_options(node: Path, typescript_sdk: Path) -> None:
    settings = json.loads(output_of(node / "tsc", "--project", typescript_sdk, "--showConfig"))["compilerOptions"]
    assert {name: settings.get(name) for name in STRICT_OPTIONS} == dict.fromkeys(STRICT_OPTIONS, True)
    assert "skipLibCheck" not in settings
    installed = json.loads((ROOT / "tests/node/package.json").read_text("utf-8"))["devDependencies"]
    dependencies = json.loads((typescript_sdk / "package.json").read_text("utf-8"))["dependencies"]
    assert dependencies.items() <= installed.items()


def test_typescript_types_reject_a_wrong_program(node: Path, typescript_sdk: Path, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}', "utf-8")
    output_of("npm", "install", "--offline", typescript_sdk, folder=tmp_path)
    text = (PROGRAMS / "program.ts").read_text("utf-8")
    for right, wrong in (
        ("data.title", "data.titel"),
        ("task.title)", "task.name)"),
        ('"If-Match": tag', '"If-Match": 1'),
        ('{ title: "Too late" }', '{ title: "Too late", completed: undefined }'),
        ("violation.pointer", "violation.place"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    (tmp_path / "program.ts").write_text(text, "utf-8")

    errors = compile_program(node, tmp_path, "--noEmit", "--skipLibCheck").stdout
    for error in (
        "Property 'titel' does not exist on type '{ id: number;",
        "Property 'name' does not exist on type '{ id: number;",
        "The types of 'header[\"If-Match\"]' are incompatible",
        "with 'exactOptionalPropertyTypes: true'",
        "Property 'place' does not exist on type '{ detail: string;",
    ):
        assert error in errors, errors


def test_python_client_is_generated_without_node(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("make", "mkdir", "rm", "sh"):
        (commands / name).symlink_to(str(shutil.which(name)))

    for variables, status in (({"CI": ""}, 0), ({"CI": "true"}, 2)):
        run = make("sdk", tmp_path, PATH=str(commands), **variables)
        assert "Skipped, since Node is not installed: " in run.stdout
        assert "the SDK for TypeScript" in run.stdout
        assert run.returncode == status
    assert (tmp_path / "python/tasks_api_client/py.typed").exists()
    assert not (tmp_path / "typescript").exists()
