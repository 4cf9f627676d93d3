"""`create_app` creates applications that share nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from handlers.application import create_app
from handlers.settings import ServerSettings
from models import keys
from models.database.migrate import migrate


class Application:
    """An application in this process, called without a server."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.app: Any = create_app(ServerSettings(database_url=url, **settings))
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.started = asyncio.Event()
        self.state: dict[str, Any] = {}

    async def __aenter__(self) -> "Application":
        async def send(event: dict[str, Any]) -> None:
            assert event["type"].endswith(".complete"), event
            self.started.set()

        self.lifespan = asyncio.create_task(self.app({"type": "lifespan", "state": self.state}, self.events.get, send))
        await self.events.put({"type": "lifespan.startup"})
        await asyncio.wait_for(self.started.wait(), 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.events.put({"type": "lifespan.shutdown"})
        await asyncio.wait_for(self.lifespan, 60)

    async def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request, and return the status and the parsed body of the response."""
        fields = {"host": "localhost", "content-type": "application/json", **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            "client": ("192.0.2.1", 1),
            "state": {**self.state, "request_id": "1"},
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode() if body else b""}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.slow
def test_two_applications_in_one_process_share_nothing(tmp_path: Path) -> None:
    """The two applications have different databases, API keys, idempotency keys and rate limits."""
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("open", "closed")]
    for url in urls:
        migrate(url)
    key = {"authorization": f"Bearer {keys.create(urls[1], 'app', 'tasks_')}"}
    once = {"idempotency-key": "once"}

    async def use_both() -> None:
        async with Application(urls[0], rate_limit="4/hour") as open_app, Application(urls[1]) as closed_app:
            assert await open_app.call("GET", "/api/tasks/1") == (404, await error_of(closed_app, key))
            created = [
                await open_app.call("POST", "/api/tasks", {"title": "a"}, once),
                await closed_app.call("POST", "/api/tasks", {"title": "b"}, {**once, **key}),
            ]
            assert [(status, task["id"], task["title"]) for status, task in created] == [(201, 1, "a"), (201, 1, "b")]
            # The first application replays its own response, and only this application has a rate limit.
            assert await open_app.call("POST", "/api/tasks", {"title": "a"}, once) == created[0]
            statuses = [(await open_app.call("GET", "/api/tasks"))[0] for _ in range(2)]
            assert statuses == [200, 429]
            assert [task["title"] for task in (await closed_app.call("GET", "/api/tasks", headers=key))[1]] == ["b"]
            assert (await closed_app.call("GET", "/api/tasks"))[0] == 401

    async def error_of(app: Application, headers: dict[str, str]) -> Any:
        return (await app.call("GET", "/api/tasks/1", headers=headers))[1]

    asyncio.run(use_both())
