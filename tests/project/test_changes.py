"""The recipes of docs/your-own-api.md work for a reader who follows them, each alone and all together."""

import subprocess
from pathlib import Path

import pytest

from tests.support.pages import assert_calls_give_the_documented_responses, section
from tests.support.project import RUN_FROM_SOURCE
from tests.support.recipes import PAGE, RECIPES, follow
from tests.support.service import Start
from tests.support.stores import Store
from tests.tools.changes import CHANGES, copy, copy_with_change, find_failures

TESTS = """
import pytest

def test_good():
    pass

def test_bad():
    raise AssertionError

def test_with_missing_fixture(missing):
    pass
"""


@pytest.mark.parametrize("change", CHANGES)
def test_recipe_gives_the_documented_responses(change: str, start: Start, tmp_path: Path) -> None:
    project = copy_with_change(change, tmp_path)

    service = start(folder=project, command=RUN_FROM_SOURCE)

    assert_calls_give_the_documented_responses(section(PAGE, RECIPES[change]), service.url)


@pytest.mark.slow
def test_recipes_can_be_followed_one_after_another(tmp_path: Path) -> None:
    project = copy(tmp_path / "project")
    for change in CHANGES:
        follow(RECIPES[change], project)


def test_previous_release_works_with_the_new_field(start: Start, tmp_path: Path, store: Store, checkout: Path) -> None:
    if "field" not in CHANGES:
        # Somebody has followed the recipe in this project.
        return
    service = start(folder=checkout, command=RUN_FROM_SOURCE)
    service.client.post("/api/tasks", json={"title": "Before"})
    project = copy_with_change("field", tmp_path)

    migrate = [*RUN_FROM_SOURCE, "migrate", "--database-url", store.url]
    subprocess.run(migrate, cwd=project, check=True)

    assert service.client.post("/api/tasks", json={"title": "Meanwhile"}).json()["id"] == 2
    service.stop()
    client = start(folder=project, command=RUN_FROM_SOURCE).client
    assert [task["priority"] for task in client.get("/api/tasks").json()] == [3, 3]
    assert client.put("/api/tasks/2", json={"title": "After", "priority": 5}).json()["priority"] == 5


@pytest.mark.slow
def test_failing_tests_are_listed(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", "utf-8")
    (project / "test_some.py").write_text(TESTS, "utf-8")

    assert find_failures(project) == ["test_some::test_bad", "test_some::test_with_missing_fixture"]
