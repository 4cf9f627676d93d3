"""Replay the example requests of the tutorial whose API this service implements."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.service import Start


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each implements the guarantees of the API in its own way."""
    return str(request.param)


INPUT = {"title": "Write the tutorial", "description": "Finish the Next.js API routes guide"}


def test_tutorial_session(start: Start) -> None:
    service = start()
    client = service.client
    assert client.get("/api/tasks").json() == []

    created = client.post("/api/tasks", json=INPUT)
    task = created.json()
    assert created.status_code == 201
    assert created.headers["location"] == "/api/tasks/1"
    assert task.items() >= {"id": 1, **INPUT, "completed": False, "createdAt": task["createdAt"]}.items()
    age = datetime.now(UTC) - datetime.strptime(task["createdAt"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert timedelta(seconds=-1) < age < timedelta(minutes=1)

    assert client.get("/api/tasks").json() == [task]
    assert client.get("/api/tasks/1").json() == task

    replaced = client.put("/api/tasks/1", json={**INPUT, "completed": True})
    assert replaced.status_code == 200
    assert replaced.json() == {**task, "completed": True}

    assert client.post("/api/tasks", json={"title": "Water the plants"}).json()["description"] is None
    assert service.stop() == 0
    client = start().client
    assert client.get("/api/tasks/1").json() == {**task, "completed": True}
    assert [kept["id"] for kept in client.get("/api/tasks").json()] == [1, 2]

    for id in (1, 2):
        deleted = client.delete(f"/api/tasks/{id}")
        assert deleted.status_code == 200
        assert deleted.json() == {"message": "Task deleted"}
    assert client.get("/api/tasks").json() == []
    assert client.post("/api/tasks", json=INPUT).json()["id"] == 3
