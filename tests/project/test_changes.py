"""The example changes of `make changes` can be applied, and the changed service works."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.project import RUN_FROM_SOURCE
from tests.support.service import Start
from tests.tools.changes import CHANGES, find_failures

TESTS = """
import pytest

def test_good():
    pass

def test_bad():
    raise AssertionError

def test_with_missing_fixture(missing):
    pass
"""


def start_changed_service(start: Start, checkout: Path) -> httpx.Client:
    """Apply the example changes to a copy of the project, start the changed service, and return a client."""
    for apply in CHANGES.values():
        apply(checkout)
    subprocess.run([Path(sys.executable).with_name("datamodel-codegen")], cwd=checkout, check=True)
    return start(folder=checkout, command=RUN_FROM_SOURCE).client


def test_changes_work(start: Start, checkout: Path) -> None:
    client = start_changed_service(start, checkout)
    if "due_date" in CHANGES:
        assert_due_date_works(client)
    if "update_task" in CHANGES:
        assert_update_task_works(client)


def assert_due_date_works(client: httpx.Client) -> None:
    for due in ("2026-05-31", "2026-06-01", None):
        created = client.post("/api/tasks", json={"title": "a", "description": "b", "dueDate": due})
        assert (created.status_code, created.json()["dueDate"]) == (201, due)
    assert client.post("/api/tasks", json={"title": "a", "dueDate": "2026-02-30"}).status_code == 400
    client.put("/api/tasks/1", json={"title": "a", "dueDate": "2026-05-31", "completed": True})
    for query, ids in (
        ("?dueBefore=2026-06-01", [1]),
        ("?dueBefore=2026-06-02", [1, 2]),
        ("?dueBefore=2026-06-02&completed=false", [2]),
        ("?completed=false", [2, 3]),
    ):
        assert [task["id"] for task in client.get(f"/api/tasks{query}").json()] == ids


def assert_update_task_works(client: httpx.Client) -> None:
    before = client.post("/api/tasks", json={"title": "a", "description": "b"})
    path, headers = before.headers["location"], {"If-Match": before.headers["etag"]}
    patched = client.patch(path, json={"completed": True}, headers=headers)
    assert patched.json() == {**before.json(), "completed": True}
    assert client.patch(path, json={"description": None}).json() == {**patched.json(), "description": None}
    assert client.patch(path, json={"title": ""}).status_code == 400
    assert client.patch(path, json={"title": "Too late"}, headers=headers).status_code == 412


@pytest.mark.slow
def test_failing_tests_are_listed(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (project / "test_some.py").write_text(TESTS)

    assert find_failures(project) == ["test_some::test_bad", "test_some::test_with_missing_fixture"]
