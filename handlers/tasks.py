"""The operations of the contract, in its order."""

from handlers.contract import path_of
from handlers.problems import Refusal
from handlers.reply import Reply
from models import queries
from models.schemas import Confirmation, TaskInput

DELETED = Confirmation().model_dump_json().encode()


async def list_tasks(limit: int, after: int, completed: bool | None) -> Reply:
    page = await queries.select_page(limit, after, completed)
    if not page.more:
        return Reply(page.json)
    query = f"limit={limit}&after={page.last}"
    if completed is not None:
        query += f"&completed={str(completed).lower()}"
    return Reply(page.json, {"Link": f'<{path_of("listTasks")}?{query}>; rel="next"'})


async def create_task(body: TaskInput) -> Reply:
    task = await queries.insert(body)
    return Reply(task.json, {"Location": path_of("getTask", id=task.id)})


async def get_task(id: int) -> Reply:
    task = await queries.select(id)
    if not task:
        raise Refusal(404)
    return Reply(task.json)


async def replace_task(id: int, body: TaskInput) -> Reply:
    task = await queries.update(id, body)
    if not task:
        raise Refusal(404)
    return Reply(task.json)


async def delete_task(id: int) -> Reply:
    if not await queries.delete(id):
        raise Refusal(404)
    return Reply(DELETED)
