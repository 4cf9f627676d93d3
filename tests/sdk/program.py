"""Call every operation of the Tasks API at the given URL."""

import os
import sys
from uuid import uuid4

from tasks_api_client import AuthenticatedClient, Client
from tasks_api_client.api.tasks import create_task, delete_task, get_task, list_tasks, replace_task
from tasks_api_client.models import Confirmation, Problem, Task, TaskInput

url, key = sys.argv[1], os.environ.get("TASKS_API_KEY")
client: AuthenticatedClient | Client = AuthenticatedClient(url, token=key) if key else Client(url)

with client:
    for title in ("Write the tutorial", "Water the plants", "Rest"):
        created = create_task.sync(client=client, body=TaskInput(title), idempotency_key=str(uuid4()))
        assert isinstance(created, Task), created
        print("Created:", created.title)

    tasks: list[Task] = []
    while True:
        page = list_tasks.sync_detailed(client=client, limit=2, after=tasks[-1].id if tasks else 0)
        assert isinstance(page.parsed, list), page.parsed
        tasks += page.parsed
        print("Listed:", ", ".join(task.title for task in page.parsed))
        if "Link" not in page.headers:
            break

    id = tasks[0].id
    tag = get_task.sync_detailed(id, client=client).headers["ETag"]
    replaced = replace_task.sync(id, client=client, body=TaskInput("Publish it", completed=True), if_match=tag)
    assert isinstance(replaced, Task), replaced
    print("Replaced:", replaced.title, "(completed)" if replaced.completed else "")

    late = replace_task.sync(id, client=client, body=TaskInput("Too late"), if_match=tag)
    assert isinstance(late, Problem), late
    print(f"Refused: {late.status} {late.detail}")

    invalid = create_task.sync(client=client, body=TaskInput("", description="a" * 4001))
    assert isinstance(invalid, Problem), invalid
    for violation in invalid.errors or []:
        print(f"Refused: {invalid.status} {violation.pointer} {violation.rule}: {violation.detail}")

    for task in tasks:
        deleted = delete_task.sync(task.id, client=client)
        assert isinstance(deleted, Confirmation), deleted
        print(f"{deleted.message}:", task.id)

    missing = get_task.sync(id, client=client)
    assert isinstance(missing, Problem), missing
    print(f"Refused: {missing.status} {missing.detail}")
