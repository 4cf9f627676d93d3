"""The SDKs that `make sdk` generates: how they are installed and typed, and what the README's programs do with them."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import inflection
import pytest

from handlers.contract import document as contract
from tests.support.calls import METHODS
from tests.support.project import ROOT
from tests.support.service import Service

pytestmark = pytest.mark.slow

PROGRAMS = ROOT / "tests/sdk"
NAME = "tasks-api-client"
VERSION = contract.document()["info"]["version"]
# With these, the client is compiled when it is generated, and the program here.
STRICT = ("strict", "exactOptionalPropertyTypes", "noUncheckedIndexedAccess")
SAID = """\
Created: Write the tutorial
Created: Water the plants
Created: Rest
Listed: Write the tutorial, Water the plants
Listed: Rest
Replaced: Publish it (completed)
Refused: 412 The task has changed since; get it again, and repeat the change with its new ETag in If-Match
Refused: 400 /title Title is required
Refused: 400 /description description must have at most 4000 characters
Task deleted: 1
Task deleted: 2
Task deleted: 3
Refused: 404 Task not found
"""


def call(
    *command: str | Path, folder: Path = ROOT, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = os.environ | (variables or {})
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def done(*command: str | Path, folder: Path = ROOT) -> str:
    """Run a command that succeeds, and return what it said."""
    run = call(*command, folder=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def make(target: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a target of the Makefile, with what is installed already."""
    # A lock that has changed is no reason to install anything while tests run, nor is a defect of `make mutants`.
    installed = (f"--old-file={sys.prefix}/development", "--old-file=build/node/installed", f"VENV={sys.prefix}")
    return call("make", *installed, f"SDK={folder}", target, variables=variables)


@pytest.fixture(scope="module")
def python_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the client for Python."""
    folder = tmp_path_factory.mktemp("sdk")
    run = make("sdk-python", folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "python"


@pytest.fixture(scope="module")
def python(python_sdk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in which the client is installed, and what that needs."""
    folder = tmp_path_factory.mktemp("installed")
    uv = Path(sys.executable).with_name("uv")
    here = ("--quiet", "--python", sys.executable)
    done(uv, "build", *here, "--wheel", "--no-build-isolation", "-o", folder, python_sdk)
    (wheel,) = folder.glob("*.whl")
    done(uv, "venv", *here, folder / "venv")
    python = folder / "venv/bin/python"
    done(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    # httpx and attrs are those of the tests.
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture(scope="module")
def typescript_sdk(node: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the client for TypeScript."""
    folder = tmp_path_factory.mktemp("sdk")
    run = make("sdk-typescript", folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "typescript"


@pytest.fixture(scope="module")
def javascript(node: Path, typescript_sdk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program for Node, compiled in a folder in which the client is installed."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "package.json").write_text('{"type": "module"}')
    done("npm", "install", "--offline", typescript_sdk, folder=folder)
    shutil.copy(PROGRAMS / "program.ts", folder)
    # The declarations of the client are checked where it is generated.
    compiled = compile_program(node, folder, "--skipLibCheck")
    assert (compiled.stdout, compiled.returncode) == ("", 0)
    return folder / "program.js"


def compile_program(node: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Compile the program in a folder."""
    options = ("--module", "nodenext", "--target", "es2022", "--types", "node", "--typeRoots", node.parent / "@types")
    return call(node / "tsc", *(f"--{name}" for name in STRICT), *options, *more, "program.ts", folder=folder)


@pytest.fixture(params=["python", "typescript"])
def program(request: pytest.FixtureRequest) -> tuple[str | Path, ...]:
    """The command that runs the program in each language."""
    if request.param == "python":
        return request.getfixturevalue("python"), PROGRAMS / "program.py"
    return "node", request.getfixturevalue("javascript")


def test_program_says_what_became_of_each_call(program: tuple[str | Path, ...], service: Service) -> None:
    assert done(*program, service.url) == SAID
    assert service.client.get("/api/tasks").json() == []


def test_key_is_sent(program: tuple[str | Path, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for variables, sent in (({"TASKS_API_KEY": "secret"}, ["Bearer secret"]), ({"TASKS_API_KEY": ""}, [])):
            caller = subprocess.Popen([*program, url], env=os.environ | variables, stderr=subprocess.DEVNULL)
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(65536).decode()
            assert caller.wait(timeout=30) == 1
            assert head.startswith("POST /api/tasks HTTP/1.1\r\n")
            assert re.findall(r"^authorization: (.*?)\r$", head, re.MULTILINE | re.IGNORECASE) == sent


def test_programs_use_every_operation_and_stand_in_the_readme() -> None:
    readme = (ROOT / "docs/sdks.md").read_text()
    in_python, in_typescript = ((PROGRAMS / name).read_text() for name in ("program.py", "program.ts"))

    for path, item in contract.document()["paths"].items():
        for method in sorted(item.keys() & METHODS):
            operation = item[method]["operationId"]
            told = f"call `{operation}` in tests/sdk/{{}} and docs/sdks.md, and say in SAID what it then prints"
            assert f"{inflection.underscore(operation)}.sync" in in_python, told.format("program.py")
            assert f'client.{method.upper()}("{path}"' in in_typescript, told.format("program.ts")
    assert f"```python\n{in_python}```" in readme, "docs/sdks.md must show tests/sdk/program.py as it is"
    assert f"```ts\n{in_typescript}```" in readme, "docs/sdks.md must show tests/sdk/program.ts as it is"


def test_python_client_is_installed_by_its_name(python: Path) -> None:
    found = done(python, "-c", f"from importlib.metadata import version; print(version({NAME!r}))")

    assert found.strip() == VERSION


def mypy(python: Path, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy, without the project's own settings, on what a Python has installed."""
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
    return call(*command, *arguments, folder=folder)


def test_python_client_and_program_are_typed(python: Path, tmp_path: Path) -> None:
    for what in (("-p", "tasks_api_client"), (PROGRAMS / "program.py",)):
        checked = mypy(python, *what, folder=tmp_path)
        assert checked.stdout.startswith("Success"), checked.stdout


def test_types_refuse_a_wrong_program(python: Path, tmp_path: Path) -> None:
    text = (PROGRAMS / "program.py").read_text()
    for right, wrong in (
        ("created.title", "created.titel"),
        ("task.title for", "task.name for"),
        ("if_match=", "match="),
        ('TaskInput("Too late")', "TaskInput(1)"),
        ("violation.pointer", "violation.place"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    (tmp_path / "wrong.py").write_text(text)

    said = mypy(python, "wrong.py", folder=tmp_path).stdout
    for words in (
        '"Task" has no attribute "titel"',
        '"Task" of "Any | Task" has no attribute "name"',
        'Unexpected keyword argument "match" for "sync"',
        'Argument 1 to "TaskInput" has incompatible type "int"',
        '"Violation" has no attribute "place"',
    ):
        assert words in said, said


def test_typescript_client_is_packed_by_its_name(node: Path, typescript_sdk: Path, tmp_path: Path) -> None:
    (packed,) = json.loads(done("npm", "pack", "--json", "--pack-destination", tmp_path, folder=typescript_sdk))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    # Where a registry would be asked for them.
    needed = [node.parent / name for name in ("openapi-fetch", "openapi-typescript-helpers")]
    done("npm", "install", "--offline", "--install-links", tmp_path / packed["filename"], *needed, folder=tmp_path)

    assert (packed["name"], packed["version"]) == (NAME, VERSION)
    assert {file["path"] for file in packed["files"]} == {
        "package.json",
        *(f"dist/{name}.{ending}" for name in ("index", "schema") for ending in ("js", "d.ts")),
    }
    asked = 'import { createTasksClient } from "tasks-api-client"; console.log(typeof createTasksClient)'
    assert done("node", "--input-type=module", "--eval", asked, folder=tmp_path) == "function\n"


def test_typescript_client_is_typed(node: Path, typescript_sdk: Path) -> None:
    settings = json.loads(done(node / "tsc", "--project", typescript_sdk, "--showConfig"))["compilerOptions"]
    assert {name: settings.get(name) for name in STRICT} == dict.fromkeys(STRICT, True)
    assert "skipLibCheck" not in settings
    tools = json.loads((ROOT / "tests/node/package.json").read_text())["devDependencies"]
    needed = json.loads((typescript_sdk / "package.json").read_text())["dependencies"]
    assert needed.items() <= tools.items()


def test_types_refuse_a_wrong_program_in_typescript(node: Path, typescript_sdk: Path, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done("npm", "install", "--offline", typescript_sdk, folder=tmp_path)
    text = (PROGRAMS / "program.ts").read_text()
    for right, wrong in (
        ("data.title", "data.titel"),
        ("task.title)", "task.name)"),
        ('"If-Match": tag', '"If-Match": 1'),
        ('{ title: "Too late" }', '{ title: "Too late", completed: undefined }'),
        ("violation.pointer", "violation.place"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    (tmp_path / "program.ts").write_text(text)

    said = compile_program(node, tmp_path, "--noEmit", "--skipLibCheck").stdout
    for words in (
        "Property 'titel' does not exist on type '{ id: number;",
        "Property 'name' does not exist on type '{ id: number;",
        "The types of 'header[\"If-Match\"]' are incompatible",
        "with 'exactOptionalPropertyTypes: true'",
        "Property 'place' does not exist on type '{ detail: string;",
    ):
        assert words in said, said


def test_client_for_python_is_generated_where_node_is_missing(tmp_path: Path) -> None:
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
