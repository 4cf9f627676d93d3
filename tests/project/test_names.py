"""Names: all of them follow from the contract, and the engine knows nothing of what this contract is about."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.contract import document
from handlers.contract.document import COMMAND, NAME, PREFIX, name_of
from handlers.settings import ServerSettings
from tests.support.contract import own_files
from tests.support.project import ROOT

# Files that name the command or the environment variables, and that an adopter renames by hand.
NAMED = ["pyproject.toml", "Makefile", "Dockerfile", "compose.yaml", ".github/workflows/contract.yml", "docs/*.service"]
# The code that serves any contract.
ENGINE = [
    path.relative_to(ROOT)
    for folder in ("handlers", "models")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if str(path.relative_to(ROOT)) not in own_files() and "migrations" not in path.parts
]
# Names of asyncio, and one of uvicorn.
LIBRARIES = re.compile(r"\b(create_task|asyncio\.Task|TaskGroup|server_state\.tasks)\b")


@pytest.mark.parametrize(
    ("contract", "name"),
    [
        ({"info": {"title": "Tasks API"}}, "tasks"),
        ({"info": {"title": "My Pet  Store api "}}, "my-pet-store"),
        ({"info": {"title": "Swagger Petstore - OpenAPI 3.0"}}, "swagger-petstore-openapi-3-0"),
        ({"info": {"title": "3 Müsli"}}, "m-sli"),
        ({"info": {"title": "API"}}, "api"),
        ({"info": {"title": "タスク API"}}, "service"),
        ({"info": {"title": "Tasks API"}, "x-name": "To Do"}, "to-do"),
    ],
)
def test_name_follows_from_the_contract(contract: dict[str, object], name: str) -> None:
    assert name_of(contract) == name


def test_other_names_follow_from_the_name() -> None:
    assert name_of(document.raw()) == NAME
    assert f"{NAME}-api" == COMMAND
    assert f"{NAME}_api_".replace("-", "_").upper() == PREFIX
    assert ServerSettings.model_fields["database_url"].default == f"sqlite:///{NAME}.db"


@pytest.mark.parametrize(
    "path", [path for pattern in NAMED for path in sorted(ROOT.glob(pattern))], ids=lambda p: p.name
)
def test_files_have_the_names_of_the_contract(path: Path) -> None:
    text = path.read_text("utf-8")
    commands, prefixes = (
        set(re.findall(r"\b\w+(?:-\w+)*-api\b(?!\.md)", text)),
        set(re.findall(r"\b[A-Z_]+_API_", text)),
    )

    assert commands == {COMMAND}, f"write {COMMAND} in {path.name}, because of the title or x-name of the contract"
    assert prefixes <= {PREFIX}, f"write {PREFIX} in {path.name}, because of the title or x-name of the contract"


def test_package_has_the_name_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert project["name"] == COMMAND
    assert project["scripts"] == {COMMAND: "handlers.cli:main"}


def lines_about_tasks(source: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), 1):
        if "task" in LIBRARIES.sub("", line).lower():
            yield f"{number}: {line.strip()}"


@pytest.mark.parametrize("path", ENGINE, ids=str)
def test_engine_knows_no_task(path: Path) -> None:
    assert list(lines_about_tasks((ROOT / path).read_text("utf-8"))) == []


def test_words_about_tasks_are_found() -> None:
    assert list(lines_about_tasks("create_task(a)\ntasks = 1\n# Each Task\nmy_create_tasks")) == [
        "2: tasks = 1",
        "3: # Each Task",
        "4: my_create_tasks",
    ]
