"""Refusals and failures have one shape, that of the contract."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx
import pytest

from handlers import contract
from tests.support.calls import FOREIGN_METHOD, assert_is_problem
from tests.support.service import Service, Start
from tests.support.stores import Store
from tests.support.wire import exchange

TASK: dict[str, Any] = {"json": {"title": "a"}}
REFUSALS: list[tuple[int, str, str, dict[str, Any]]] = [
    (400, "GET", "/api/tasks?limit=0", {}),
    (400, "POST", "/api/tasks", {"json": {}}),
    (400, "PUT", "/api/tasks/1", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    (404, "GET", "/api/tasks/9999", {}),
    (404, "PUT", "/api/tasks/9999", TASK),
    (404, "DELETE", "/api/tasks/one", {}),
    (404, "GET", "/nowhere", {}),
    (404, "GET", "/docs/assets/nothing", {}),
    (405, FOREIGN_METHOD, "/api/tasks", {}),
    (405, "POST", "/docs", {}),
    (400, "DELETE", "/api/tasks/1", {"headers": {"If-Match": "1"}}),
    (412, "PUT", "/api/tasks/1", {**TASK, "headers": {"If-Match": '"0"'}}),
    (422, "POST", "/api/tasks", {"json": {"title": "b"}, "headers": {"Idempotency-Key": "key"}}),
    (413, "POST", "/api/tasks", {"json": {"title": "a" * 70000}}),
    (414, "GET", "/api/tasks?" + "a" * 9000, {}),
    (415, "POST", "/api/tasks", {"content": b"title"}),
    (431, "GET", "/api/tasks", {"headers": {"A": "a" * 20000}}),
]


def test_every_status_has_the_one_shape(start: Start, store: Store) -> None:
    service = start()
    client = service.client
    client.post("/api/tasks", json={"title": "a"}, headers={"Idempotency-Key": "key"})
    for status, method, path, options in REFUSALS:
        assert_is_problem(status, client.request(method, path, **options))
    (malformed,) = exchange(service.url, b"nonsense\r\n\r\n")
    assert_is_problem(400, httpx.Response(malformed.status, headers=malformed.headers, content=malformed.body))
    with ThreadPoolExecutor() as pool, store.writes_held():
        options = {**TASK, "headers": {"Idempotency-Key": "b"}}
        same = [pool.submit(client.request, "POST", "/api/tasks", **options) for _ in range(2)]
        assert_is_problem(409, next(as_completed(same)).result())
    assert service.log() == ""
    store.execute("DROP TABLE task")
    assert_is_problem(500, client.get("/api/tasks"))
    store.lose()
    assert_is_problem(503, client.delete("/api/tasks/1"))

    # Those to a caller without a key, in a hurry and too slow: test_security.py, test_rate_limits.py,
    # test_slow_callers.py.
    seen = {400, 401, 408, 409, 429, 500, 503} | {status for status, *_ in REFUSALS}
    foreseen = {int(status) for id in (*contract.operations(), None) for status in contract.responses(id)}
    assert seen == {status for status in foreseen if status >= 400}


def test_no_more_violations_are_named_than_the_contract_allows(shared_client: httpx.Client) -> None:
    most = contract.document()["components"]["schemas"]["Problem"]["properties"]["errors"]["maxItems"]
    assert most == 100
    for count in (most, most + 1, 9000):
        refused = shared_client.post("/api/tasks", json={"title": "a", **{f"{i}": 1 for i in range(count)}})
        assert refused.status_code == (400 if count < 9000 else 413)
        assert len(refused.json().get("errors", [])) == (most if count < 9000 else 0)
    queried = shared_client.get("/api/tasks", params={f"{i}": 1 for i in range(most + 1)})
    assert len(queried.json()["errors"]) == most


def test_caller_who_leaves_during_the_body_does_no_harm(service: Service) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"title": '
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        service.client.post("/api/tasks", content=body(), headers={"Content-Type": "application/json"})

    assert service.client.get("/api/tasks").json() == []
