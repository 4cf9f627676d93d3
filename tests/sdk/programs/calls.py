"""Call every operation at the given URL with the client that openapi-generator generates."""

import os
import sys
from collections.abc import Callable

from openapi_client import ApiClient, ApiException, Configuration, TaskInput, TasksApi

tasks = TasksApi(ApiClient(Configuration(sys.argv[1], access_token=os.environ["TASKS_API_KEY"])))


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except ApiException as refusal:
        print("Refused:", refusal.status, refusal.data.detail)
        for violation in refusal.data.errors or []:
            print(violation.pointer, violation.detail)
    else:
        raise AssertionError("not refused")


created = tasks.create_task_with_http_info(TaskInput(title="Résumé 任务 задача 🙂"))
print("Created:", created.data.title)
id, tag = created.data.id, created.headers["ETag"]

try:
    tasks.get_task(id, if_none_match=tag)
except ApiException as unchanged:
    print("Unchanged:", unchanged.status)

done = TaskInput(title="Done", completed=True)
replaced = tasks.replace_task_with_http_info(id, done, if_match=tag)
print("Replaced:", replaced.data.title, str(replaced.data.completed).lower())

refused(lambda: tasks.replace_task(id, done, if_match=tag))
print("Listed:", tasks.list_tasks(limit=1, completed=True)[0].title)
# The model validates its properties, but not if it is constructed so.
refused(lambda: tasks.create_task_with_http_info(TaskInput.model_construct(title="")))

print(tasks.delete_task(id, if_match=replaced.headers["ETag"]).message)
