"""The README's calls and its recipe for a new field, as a reader would follow them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from handlers.contract.document import specification
from tests.support.calls import bearer, wait_for
from tests.support.edits import add_after, add_to_yaml, next_migration
from tests.support.project import COMMAND, FROM_FOLDER, ROOT, block
from tests.support.service import Service, Start, environment
from tests.support.stores import Store

README = (ROOT / "README.md").read_text()
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_calls_give_the_answers_in_the_readme(service: Service) -> None:
    calls = re.findall(r"^\$ (curl .*)\n(.*)$", README, re.MULTILINE)
    assert len(calls) == README.count("\n$ curl ")

    for call, answer in calls:
        command = call.replace("http://127.0.0.1:8000", service.url)
        said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
        assert MOMENT.sub("moment", said) == MOMENT.sub("moment", answer), f"write under {call} in README.md: {said}"


def test_conditions_and_keys_do_what_the_readme_says(service: Service) -> None:
    for title in ("a", "b"):
        service.client.post("/api/tasks", json={"title": title})
    first, second = (
        subprocess.run(
            ["bash", "-c", block("sh", after).replace("http://127.0.0.1:8000", service.url)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for after in ("Each answer that holds a task", "A POST whose answer was lost")
    )

    assert '"title":"Mine"' in first
    assert '"status":412' in first
    assert second.startswith("HTTP/1.1 201 Created")
    assert service.client.get("/api/tasks/2").json()["title"] == "Mine"
    again = service.client.post("/api/tasks", json={"title": "Once"}, headers={"Idempotency-Key": "0b7e6f4e"})
    assert again.headers["idempotency-replayed"] == "true"


def test_keys_are_made_and_revoked_as_the_readme_says(start: Start, store: Store, tmp_path: Path) -> None:
    client = start().client
    commands = block("sh", "## Keys").replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))
    *_, revoke = commands.splitlines()
    shell = ["bash", "-ec", commands.replace(revoke, "echo $key")]
    path = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
    variables = environment({"DATABASE_URL": store.url, "PATH": path})

    made = subprocess.run(shell, env=variables, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    listed, key = made.removeprefix("[]").splitlines()
    wait_for(client, 401)
    let_in = client.get("/api/tasks", headers=bearer(key))
    subprocess.run(["bash", "-ec", revoke], env=variables, cwd=tmp_path, capture_output=True, check=True)
    wait_for(client, 401, headers=bearer(key))

    assert listed.startswith("app  made ")
    assert let_in.json() == []
    # As it says too: with the last key, nobody is let in, and what needs none still needs none.
    assert client.get("/api/tasks").status_code == 401
    assert [client.get(path).status_code for path in ("/docs", "/openapi.yaml", "/health/ready")] == [200] * 3


def test_checklist_says_what_the_proxy_is_set_to() -> None:
    (line,) = re.findall(r"`(client_header_timeout \w+;)`", README)

    assert f" {line}\n" in (ROOT / "docs/proxy.conf").read_text()


def test_a_field_is_added_as_the_readme_says(start: Start, checkout: Path, store: Store) -> None:
    if "priority" in specification()["components"]["schemas"]["Task"]["properties"]:
        # Somebody has followed the recipe.
        return
    service = start(folder=checkout, command=FROM_FOLDER)
    service.client.post("/api/tasks", json={"title": "Before"})

    contract, schemas = checkout / "openapi.yaml", ("components", "schemas")
    for name in ("TaskInput", "Task"):
        add_to_yaml(contract, (*schemas, name, "properties"), block("yaml", "Add a field"))
    add_to_yaml(contract, (*schemas, "Task", "required"), "priority")
    migration = "models/migrations/NNNN_add_priority.py"
    next_migration(checkout / "models/migrations", "add_priority").write_text(block("python", migration))
    add_after(checkout / "models/task.py", "Task", "created_at", block("python", "The table, in"))
    subprocess.run([Path(sys.executable).with_name("datamodel-codegen")], cwd=checkout, check=True)

    migrate = [*FROM_FOLDER, "migrate", "--database-url", store.url]
    subprocess.run(migrate, cwd=checkout, check=True)
    # The release before goes on with the new schema until it is replaced.
    assert service.client.post("/api/tasks", json={"title": "Meanwhile"}).json()["id"] == 2
    service.stop()
    client = start(folder=checkout, command=FROM_FOLDER).client
    assert client.get("/api/tasks/1").json()["priority"] == 3
    assert client.post("/api/tasks", json={"title": "After"}).json()["priority"] == 3
    assert client.put("/api/tasks/3", json={"title": "After", "priority": 5}).json()["priority"] == 5
    assert [task["priority"] for task in client.get("/api/tasks").json()] == [3, 3, 5]
    refused = client.post("/api/tasks", json={"title": "After", "priority": 6})
    assert refused.json()["errors"] == [{"detail": "priority must be at most 5", "pointer": "/priority"}]
