"""`create_app` creates applications that share nothing."""

import asyncio
from pathlib import Path

import pytest

from models import keys
from models.database.migrate import migrate
from tests.support.application import Application


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
            missing = [await app.call("GET", "/api/tasks/1", headers=key) for app in (open_app, closed_app)]
            assert [answer.status for answer in missing] == [404, 404]
            created = [
                await open_app.call("POST", "/api/tasks", {"title": "a"}, once),
                await closed_app.call("POST", "/api/tasks", {"title": "b"}, {**once, **key}),
            ]
            assert [answer.status for answer in created] == [201, 201]
            assert [(answer.json()["id"], answer.json()["title"]) for answer in created] == [(1, "a"), (1, "b")]
            # The first application replays its own response, and only this application has a rate limit.
            assert (await open_app.call("POST", "/api/tasks", {"title": "a"}, once)).body == created[0].body
            statuses = [(await open_app.call("GET", "/api/tasks")).status for _ in range(2)]
            assert statuses == [200, 429]
            listed = await closed_app.call("GET", "/api/tasks", headers=key)
            assert [task["title"] for task in listed.json()] == ["b"]
            assert (await closed_app.call("GET", "/api/tasks")).status == 401

    asyncio.run(use_both())
