"""The operations of the contract, in its order."""

from urllib.parse import urlencode

from handlers.contract import path_of
from handlers.problems import Refusal
from handlers.reply import Reply
from models import queries
from models.schemas import Confirmation, Task, TaskInput


async def list_tasks(limit: int, after: int, completed: bool | None) -> Reply[list[Task]]:
    # One more than the page holds tells whether there is a next page.
    tasks = await queries.select_page(limit + 1, after, completed)
    if len(tasks) <= limit:
        return Reply(tasks)
    page = tasks[:limit]
    query: dict[str, int | str] = {"limit": limit, "after": page[-1].id}
    if completed is not None:
        query["completed"] = str(completed).lower()
    return Reply(page, {"Link": f'<{path_of("listTasks")}?{urlencode(query)}>; rel="next"'})


async def create_task(body: TaskInput) -> Reply[Task]:
    task = await queries.insert(body)
    return Reply(task, {"Location": path_of("getTask", id=task.id)})


async def get_task(id: int) -> Reply[Task]:
    task = await queries.select(id)
    if not task:
        raise Refusal(404)
    return Reply(task)


async def replace_task(id: int, body: TaskInput) -> Reply[Task]:
    task = await queries.update(id, body)
    if not task:
        raise Refusal(404)
    return Reply(task)


async def delete_task(id: int) -> Reply[Confirmation]:
    if not await queries.delete(id):
        raise Refusal(404)
    return Reply(Confirmation())
