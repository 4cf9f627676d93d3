"""The operations of the contract, in its order."""

from collections.abc import Callable

from handlers import entity_tags, idempotency
from handlers.contract.document import path_of
from handlers.contract.reply import Reply
from models import queries
from models.database.address import database
from models.database.statements import Execute
from models.schemas import Confirmation, TaskInput

DELETED = Confirmation().model_dump_json().encode()


async def list_tasks(
    limit: int, after: int, completed: bool | None, if_none_match: str | None, address: Callable[..., str]
) -> Reply:
    page = await queries.select_page(limit, after, completed=completed)
    headers = {"ETag": entity_tags.of_page(page)}
    if page.more:
        headers["Link"] = f'<{address(after=page.last)}>; rel="next"'
    return entity_tags.unless_known(Reply(page.json, headers), if_none_match)


async def create_task(body: TaskInput, idempotency_key: str | None, caller: bytes) -> Reply:
    return await idempotency.once("createTask", _create, body, caller, idempotency_key)


async def _create(execute: Execute, body: TaskInput) -> Reply:
    task = await queries.insert(execute, body)
    return Reply(task.json, {"ETag": entity_tags.of_task(task), "Location": path_of("getTask", id=task.id)})


async def get_task(id: int, if_none_match: str | None) -> Reply:
    task = await queries.select(id)
    return entity_tags.unless_known(Reply(task.json, {"ETag": entity_tags.of_task(task)}), if_none_match)


async def replace_task(id: int, body: TaskInput, if_match: str | None) -> Reply:
    task = await database.write(queries.update, id, body, entity_tags.versions(if_match))
    return Reply(task.json, {"ETag": entity_tags.of_task(task)})


async def delete_task(id: int, if_match: str | None) -> Reply:
    await database.write(queries.delete, id, entity_tags.versions(if_match))
    return Reply(DELETED)
