"""The operations on tasks."""

from handlers import entity_tags
from handlers.contract.dispatch import RequestContext
from handlers.contract.document import path_for
from handlers.contract.reply import Reply
from handlers.services import Services
from models.database.statements import Execute
from models.resource import Stored
from models.schemas import Confirmation, TaskInput
from models.task import tasks

DELETED = Confirmation().model_dump_json().encode()


class Handlers:
    """The handlers of the operations with the tag Tasks. A handler's name is the operation id in snake case."""

    def __init__(self, services: Services) -> None:
        self.database, self.idempotency = services
        self.tasks = tasks(self.database)

    async def list_tasks(
        self, limit: int, after: int, completed: bool | None, if_none_match: str | None, request: RequestContext
    ) -> Reply:
        page = await self.tasks.select_page(limit, after, completed=completed)
        headers = {"ETag": entity_tags.of_content(page.json, b"+" * page.has_more)}
        if page.has_more:
            headers["Link"] = f'<{request.url(after=page.last_id)}>; rel="next"'
        return entity_tags.not_modified_or(Reply(page.json, headers), if_none_match)

    async def create_task(self, body: TaskInput, idempotency_key: str | None, request: RequestContext) -> Reply:
        return await self.idempotency.run("createTask", self._create, body, request.caller, idempotency_key)

    async def get_task(self, id: int, if_none_match: str | None) -> Reply:
        task = await self.tasks.select(id)
        return entity_tags.not_modified_or(Reply(task.json, {"ETag": self._tag(task)}), if_none_match)

    async def replace_task(self, id: int, body: TaskInput, if_match: str | None) -> Reply:
        with entity_tags.precondition(if_match, self.tasks.fingerprint) as versions:
            task = await self.database.write(self.tasks.update, id, body, versions)
        return Reply(task.json, {"ETag": self._tag(task)})

    async def delete_task(self, id: int, if_match: str | None) -> Reply:
        with entity_tags.precondition(if_match, self.tasks.fingerprint) as versions:
            await self.database.write(self.tasks.delete, id, versions)
        return Reply(DELETED)

    async def _create(self, execute: Execute, body: TaskInput) -> Reply:
        task = await self.tasks.insert(execute, body)
        return Reply(task.json, {"ETag": self._tag(task), "Location": path_for("getTask", id=task.id)})

    def _tag(self, task: Stored) -> str:
        return entity_tags.of_version(task.version, self.tasks.fingerprint)
