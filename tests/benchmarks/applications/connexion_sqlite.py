"""A peer: Connexion without this project's extensions, with the same contract and with Peewee models."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from connexion import AsyncApp
from connexion.resolver import Resolver
from inflection import underscore
from peewee import BigAutoField, BooleanField, Model, SqliteDatabase, TextField

JSON = {"Content-Type": "application/json"}
NOT_FOUND = ({"title": "Not Found"}, 404, {"Content-Type": "application/problem+json"})

# Do not log invalid requests.
logging.getLogger("connexion").setLevel(logging.ERROR)

database = SqliteDatabase(
    os.environ["BENCHMARK_DATABASE"], pragmas={"journal_mode": "wal", "synchronous": "full"}, check_same_thread=False
)


class Task(Model):
    id = BigAutoField()
    title = TextField()
    description = TextField(null=True)
    completed = BooleanField()
    created_at = TextField()

    class Meta:
        database = database


def to_document(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "title": task.title,
        "description": task.description,
        "completed": task.completed,
        "createdAt": task.created_at,
    }


async def list_tasks(limit: int, after: int, completed: bool | None = None) -> Any:
    page = Task.select().where(Task.id > after).order_by(Task.id).limit(limit)
    if completed is not None:
        page = page.where(Task.completed == completed)
    return [to_document(task) for task in page], 200, JSON


async def create_task(body: dict[str, Any]) -> Any:
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    task = Task.create(**{"completed": False, **body, "created_at": created_at})
    return to_document(task), 201, JSON | {"Location": f"/api/tasks/{task.id}"}


async def get_task(id: int) -> Any:
    task = Task.get_or_none(Task.id == id)
    return (to_document(task), 200, JSON) if task else NOT_FOUND


async def replace_task(id: int, body: dict[str, Any]) -> Any:
    values = {"description": None, "completed": False, **body}
    if not Task.update(values).where(Task.id == id).execute():
        return NOT_FOUND
    return to_document(Task.get_by_id(id)), 200, JSON


async def delete_task(id: int) -> Any:
    deleted = Task.delete().where(Task.id == id).execute()
    return ({"message": "Task deleted"}, 200, JSON) if deleted else NOT_FOUND


contract = yaml.safe_load((Path(__file__).parents[3] / "openapi.yaml").read_text("utf-8"))
app = AsyncApp(__name__)
app.add_api(contract | {"security": []}, resolver=Resolver(lambda operation_id: globals()[underscore(operation_id)]))
