"""Errors are problem documents, as the contract defines them."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from http import HTTPMethod
from typing import Any

import httpx
import pytest

from handlers.contract import document
from tests.support.calls import UNKNOWN_METHOD, assert_is_problem, wait_for
from tests.support.contract import resolved
from tests.support.service import Service, Start
from tests.support.stores import Store
from tests.support.wire import exchange

# This string stands for client data, which must not appear in logs or in error responses.
SECRET = "keep-it-to-yourself"
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
    (405, UNKNOWN_METHOD, "/api/tasks", {}),
    (405, "POST", "/docs", {}),
    (400, "DELETE", "/api/tasks/1", {"headers": {"If-Match": "1"}}),
    (412, "PUT", "/api/tasks/1", {**TASK, "headers": {"If-Match": '"0"'}}),
    (422, "POST", "/api/tasks", {"json": {"title": "b"}, "headers": {"Idempotency-Key": "key"}}),
    (413, "POST", "/api/tasks", {"json": {"title": "a" * 70000}}),
    (414, "GET", "/api/tasks?" + "a" * 9000, {}),
    (415, "POST", "/api/tasks", {"content": b"title"}),
    (431, "GET", "/api/tasks", {"headers": {"A": "a" * 20000}}),
]


def test_every_error_is_a_problem_document(start: Start, store: Store) -> None:
    service = start()
    client = service.client
    client.post("/api/tasks", json={"title": "a"}, headers={"Idempotency-Key": "key"})
    for status, method, path, options in REFUSALS:
        assert_is_problem(status, client.request(method, path, **options))
    (malformed,) = exchange(service.url, b"nonsense\r\n\r\n")
    assert_is_problem(400, httpx.Response(malformed.status, headers=malformed.headers, content=malformed.body))
    with ThreadPoolExecutor() as pool, store.block_writes():
        options = {**TASK, "headers": {"Idempotency-Key": "b"}}
        simultaneous = [pool.submit(client.request, "POST", "/api/tasks", **options) for _ in range(2)]
        assert_is_problem(409, next(as_completed(simultaneous)).result())
    assert service.log() == ""
    store.execute("DROP TABLE task")
    assert_is_problem(500, client.get("/api/tasks"))
    store.make_unreachable()
    assert_is_problem(503, client.delete("/api/tasks/1"))

    # The statuses 401, 429 and 408 are tested in test_security.py, test_rate_limits.py and test_slow_callers.py.
    tested = {400, 401, 408, 409, 429, 500, 503} | {status for status, *_ in REFUSALS}
    documented = {int(status) for id in (*document.operations(), None) for status in document.responses(id)}
    assert tested == {status for status in documented if status >= 400}


def operations() -> list[tuple[str, str]]:
    """Return the method and path of a request for each operation, and of some requests that match no operation."""
    requests = [
        (method.upper(), re.sub(r"\{\w+\}", "1", document.base_path() + path))
        for path, item in resolved()["paths"].items()
        for method in item
        if method.upper() in HTTPMethod.__members__
    ]
    return [
        *requests,
        ("HEAD", "/api/tasks"),
        ("OPTIONS", "/api/tasks/1"),
        ("TRACE", "/api/tasks"),
        ("GET", "/nowhere"),
    ]


def lose_database(store: Store) -> None:
    store.make_unreachable()


def drop_key_table(store: Store) -> None:
    store.execute("DROP TABLE api_key")


@pytest.mark.parametrize(
    ("break_database", "status"), [(lose_database, 503), (drop_key_table, 500)], ids=["no-file", "no-table"]
)
def test_log_of_a_failure_has_no_client_data(
    start: Start, store: Store, break_database: Callable[[Store], None], status: int
) -> None:
    """The log contains only the method and the path of the request."""
    service = start()
    # Once the service responds, it has opened its database.
    assert service.client.get("/docs").status_code == 200
    break_database(store)
    # This request needs only the API keys, so it does not fail until the service's cache of the keys is stale.
    wait_for(service.client, status, path="/nowhere")
    names = ("Authorization", "Idempotency-Key", "If-Match", "Cookie", "User-Agent", "Referer", "X-Secret")
    headers = {**dict.fromkeys(names, SECRET), "Authorization": f"Bearer {SECRET}"}
    queries = ("", f"?limit={SECRET}", f"?{SECRET}=1&after=2", f"?{SECRET}", f"?a={SECRET}%0A{SECRET}")
    expected = {}
    for method, path in operations():
        for query in queries:
            body: dict[str, Any] = (
                {"json": {"title": SECRET, SECRET: SECRET}} if method in ("POST", "PUT", "PATCH") else {}
            )
            response = service.client.request(method, path + query, headers=headers, **body)
            assert response.status_code == status, (method, path, query)
            assert SECRET not in response.text
            expected[response.headers["x-request-id"]] = f"{method} {path}"

    log = service.log()
    assert SECRET not in log
    assert len(expected) == len(operations()) * len(queries)
    # The pattern does not match the lines of the log that are not about a request.
    logged = re.findall(r"^(?:WARNING|ERROR): +(\S+) ([A-Z]+ /.*)$", log, re.MULTILINE)
    logged = logged[-len(expected) :]
    assert [request_id for request_id, _ in logged] == list(expected)
    for request_id, line in logged:
        if status == 503:
            call, _, cause = line.partition(": ")
            assert call == expected[request_id]
            assert "tasks.db was removed" in cause
        else:
            assert line == f"{expected[request_id]} failed"


def test_log_of_a_failed_operation_has_no_client_data(start: Start, store: Store) -> None:
    """The failure occurs in the operation itself, after the operation has received its arguments."""
    service = start()
    store.execute("DROP TABLE task")
    headers = {"Idempotency-Key": SECRET, "If-Match": f'"{SECRET}"', "If-None-Match": f'"{SECRET}"', "A": SECRET}
    calls: list[tuple[str, str, str, dict[str, Any]]] = [
        ("GET", "/api/tasks", "?limit=7&after=471147114711&completed=true", {}),
        ("HEAD", "/api/tasks", "?after=471147114711", {}),
        ("GET", "/api/tasks/1", "", {}),
        ("POST", "/api/tasks", "", {"json": {"title": SECRET, "description": SECRET}}),
        ("PUT", "/api/tasks/1", "", {"json": {"title": SECRET, "description": SECRET}}),
        ("DELETE", "/api/tasks/1", "", {}),
    ]
    for method, path, query, options in calls:
        response = service.client.request(method, path + query, headers=headers, **options)
        assert response.status_code == 500
        assert f"ERROR:    {response.headers['x-request-id']} {method} {path} failed\n" in service.log()

    assert SECRET not in service.log()
    assert "471147114711" not in service.log()


def test_number_of_violations_is_limited_by_the_contract(shared_client: httpx.Client) -> None:
    limit = document.raw()["components"]["schemas"]["Problem"]["properties"]["errors"]["maxItems"]
    assert limit == 100
    for count in (limit, limit + 1, 9000):
        for_body = shared_client.post("/api/tasks", json={"title": "a", **{f"{i}": 1 for i in range(count)}})
        assert for_body.status_code == (400 if count < 9000 else 413)
        assert len(for_body.json().get("errors", [])) == (limit if count < 9000 else 0)
    for_query = shared_client.get("/api/tasks", params={f"{i}": 1 for i in range(limit + 1)})
    assert len(for_query.json()["errors"]) == limit


def test_client_that_disconnects_during_the_body_does_no_harm(service: Service) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"title": '
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        service.client.post("/api/tasks", content=body(), headers={"Content-Type": "application/json"})

    assert service.client.get("/api/tasks").json() == []


def test_path_of_a_failed_request_cannot_forge_a_log_line(start: Start, store: Store) -> None:
    service = start()
    store.execute("DROP TABLE api_key")
    path = "/a%0AERROR:%20forged%1B%5B31m%0D%0A%C2%85"
    wait_for(service.client, 500, path=path)

    lines = [line for line in service.log().splitlines() if "forged" in line]
    assert lines
    assert all(re.fullmatch(rf"ERROR: +\S+ GET {re.escape(path)} failed", line) for line in lines)
