"""Schemathesis hooks and checks for the guarantees that the contract states only in prose.

The checks need only a running service and Schemathesis, and compare several responses about the same task. They assume
that no other client changes the tasks that the run creates. The run deletes these tasks when it ends, even if it is
interrupted. It reads the tasks of other clients but never changes them.
"""

import atexit
import json
import re
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit
from uuid import uuid4

import requests
import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

PATH = "/api/tasks"
PROBLEM = "application/problem+json"
# Header fields whose values differ in every response.
VOLATILE_HEADERS = {"date", "x-request-id"}
IDEMPOTENCY_KEY = re.compile("[!-~]([ -~]{,253}[!-~])?")
ENTITY_TAGS = re.compile(r'[ \t,]*(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*')

# The ids of the tasks that the run must still delete; each value is the response to the POST that created the task.
created: dict[int, requests.Response] = {}
original_send = requests.Session.send


def send_and_record(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    """Send a request, and record the task that the request creates, if any."""
    response = original_send(session, request, **options)
    if request.method == "POST" and response.status_code in range(200, 300) and (id := task_id(response)):
        created[id] = response
    return response


# Patch the library `requests` itself: Schemathesis sends some HTTP requests without calling its hooks, and a faulty
# service may create tasks for these HTTP requests.
setattr(requests.Session, "send", send_and_record)  # noqa: B010


def task_id(response: requests.Response) -> int | None:
    """Return the task id from the body or Location of a response, or None if a faulty service sends neither."""
    try:
        found = str(response.json()["id"])
    except (ValueError, TypeError, KeyError):
        found = response.headers.get("Location", "").rpartition("/")[2]
    return int(found) if found.isdecimal() else None


@atexit.register
def delete_created_tasks() -> set[int]:
    """Delete the tasks that the run created, and return the status codes of the responses to the DELETE requests.

    This function is registered with `atexit`, because `after_run` is skipped when a run is interrupted or stops at its
    first failure.
    """
    statuses = set()
    while created:
        id, response = created.popitem()
        statuses.add(call(response, "DELETE", f"{collection_url(response)}/{id}").status_code)
    return statuses


def url_of(response: Response | requests.Response) -> str:
    """Return the URL of the request that got a response."""
    return str(response.request.url)


def is_response_to(response: Response, method: str, path: str, status: int) -> bool:
    """Return whether a response has this method, path and status; a `path` that ends in a slash matches any task."""
    url = urlsplit(url_of(response)).path
    fits = url.rpartition("/")[0].endswith(PATH) if path.endswith("/") else url.endswith(path)
    return (response.request.method, response.status_code) == (method, status) and fits


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Protect the tasks of other clients, and change requests that the service would rightly reject.

    - A write to a task that the run did not create is redirected to a new task.
    - A valid idempotency key is made unique, since reusing it with a different body returns 422.
    - The current entity tag is added to a valid If-Match (weak tags included), since Schemathesis warns if every valid
      request to an operation returns 412.
    """
    headers: Any = case.headers
    if IDEMPOTENCY_KEY.fullmatch(str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = uuid4().hex + headers["Idempotency-Key"][32:]
    if "id" not in case.path_parameters or case.method == "GET":
        return
    url = case.as_transport_kwargs()["url"]
    sent = case.operation.schema.config.headers_for(operation=case.operation)
    # Schemathesis puts a configured API key into the headers of the case; `headers_for` does not return that header.
    sent |= {name: headers[name] for name in ("Authorization",) if name in headers}
    task = requests.get(url, headers=sent, timeout=30)
    if task.status_code == 200 and task_id(task) not in created:
        url = url.partition(PATH)[0] + PATH
        task = requests.post(url, headers=sent, json={"title": "Replacement for a task of another client"}, timeout=30)
        case.path_parameters["id"] = task_id(task)
    if ENTITY_TAGS.fullmatch(str(headers.get("If-Match", ""))):
        headers["If-Match"] += f", {task.headers.get('ETag', '')}"


def call(
    response: Response | requests.Response, method: str, url: str, copied: tuple[str, ...] = (), **options: Any
) -> requests.Response:
    """Send another request to the same service, with the same API key.

    Args:
        response: A response of the service.
        method: The method of the new request.
        url: The URL of the new request.
        copied: The header fields to copy from the request that got `response`, besides Authorization.
        options: Options of `requests.request`.
    """
    sent = response.request.headers
    headers = {name: sent[name] for name in ("Authorization", *copied) if name in sent} | options.pop("headers", {})
    return requests.request(method, url, headers=headers, timeout=30, allow_redirects=False, **options)


def collection_url(response: Response | requests.Response) -> str:
    """Return the URL of the service's task collection."""
    return url_of(response).partition(PATH)[0] + PATH


@schemathesis.check
def every_error_is_a_problem(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """An error response is a problem document that contains the status code of the response."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == [PROBLEM]
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]


@schemathesis.check
def what_was_sent_is_kept(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A task that is created or replaced has every property as the client sent it."""
    if is_response_to(response, "POST", PATH, 201) or is_response_to(response, "PUT", PATH + "/", 200):
        body: Any = response.request.body
        sent = json.loads(body)
        assert {name: response.json()[name] for name in sent} == sent


@schemathesis.check
def put_answers_what_get_gives(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """After a PUT, GET returns the same task as the response to the PUT."""
    if is_response_to(response, "PUT", PATH + "/", 200):
        got = call(response, "GET", url_of(response))
        assert (got.status_code, got.json()) == (200, response.json())
        assert [got.headers["etag"]] == response.headers["etag"]


@schemathesis.check
def tag_is_known_and_stale_tag_is_refused(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET returns 304 if If-None-Match matches; PUT and DELETE return 412 and do nothing if If-Match does not match."""
    if is_response_to(response, "GET", PATH + "/", 200) or is_response_to(response, "PUT", PATH + "/", 200):
        url, (tag,) = url_of(response), response.headers["etag"]
        cached = call(response, "GET", url, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (cached.status_code, cached.content, cached.headers["etag"]) == (304, b"", tag)
        for method in ("PUT", "DELETE") if response.json()["id"] in created else ():
            body = {"title": "Must not be stored"} if method == "PUT" else None
            stale = call(response, method, url, headers={"If-Match": f'"other", W/{tag}'}, json=body)
            assert stale.status_code == 412
        assert call(response, "GET", url).json() == response.json()


@schemathesis.check
def condition_is_refused_where_it_does_not_hold(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A 412 is returned only if If-Match contains neither `*` nor the current entity tag of the task."""
    if response.status_code == 412:
        condition = response.request.headers["If-Match"]
        text = condition.decode("latin-1") if isinstance(condition, bytes) else condition
        tag = call(response, "GET", url_of(response)).headers["etag"]
        assert text != "*"
        assert tag not in [strong for weak, strong in re.findall(r'(W/)?("[^"]*")', text) if not weak]


@schemathesis.check
def retry_creates_nothing(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A retry with the same idempotency key gets a replay and creates nothing; with a different body, it gets 422."""
    if is_response_to(response, "POST", PATH, 201) and "Idempotency-Key" in response.request.headers:
        body: Any = response.request.body
        same_headers = ("Idempotency-Key", "Content-Type")
        retried = call(response, "POST", url_of(response), same_headers, data=body)
        assert (retried.status_code, retried.json()) == (201, response.json())
        assert [retried.headers[name] for name in ("etag", "location")] == [
            response.headers[name][0] for name in ("etag", "location")
        ]
        assert retried.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in response.headers
        other = call(response, "POST", url_of(response), same_headers, data=json.dumps({"title": uuid4().hex}))
        assert other.status_code == 422


@schemathesis.check
def deleted_task_is_gone(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET returns 404 for a deleted task, and the list does not contain it."""
    if is_response_to(response, "DELETE", PATH + "/", 200):
        url = url_of(response)
        assert call(response, "GET", url).status_code == 404
        id = int(url.rpartition("/")[2])
        following = call(response, "GET", collection_url(response), params={"after": id - 1, "limit": 1}).json()
        assert id not in [task["id"] for task in following]


@schemathesis.check
def created_task_is_listed_once(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """GET of the URL in Location returns the created task, and the list contains that task exactly once."""
    if not is_response_to(response, "POST", PATH, 201):
        return
    task = response.json()
    location = collection_url(response).removesuffix(PATH) + response.headers["location"][0]
    assert call(response, "GET", location).json() == task
    for completed, count in ((None, 1), (task["completed"], 1), (not task["completed"], 0)):
        query: dict[str, Any] = {"completed": str(completed).lower()} if completed is not None else {}
        query |= {"after": max(0, task["id"] - 500), "limit": 1000}
        listed = call(response, "GET", collection_url(response), params=query).json()
        assert [other for other in listed if other["id"] == task["id"]] == [task] * count


@schemathesis.check
def walk_visits_every_task_once(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """The `next` links lead to each task exactly once, in ascending order, despite writes between the pages."""
    if not is_response_to(response, "GET", PATH, 200):
        return
    url = collection_url(response)
    query = dict(parse_qsl(urlsplit(url_of(response)).query))
    present = call(response, "GET", url, params={**query, "limit": 1000}).json()
    last = present[-1]["id"] if present else 0
    limit = max(1, min(int(query.get("limit", 100)), len(present) // 3))
    visited: list[dict[str, Any]] = []
    written = call(response, "POST", url, json={"title": "Created before the first page"}).json()["id"]
    page = call(response, "GET", url, params={**query, "limit": limit})
    while True:
        assert page.status_code == 200
        tasks = page.json()
        assert len(tasks) <= limit
        # If a page repeated earlier tasks, this loop might never end.
        assert not visited or not tasks or tasks[0]["id"] > visited[-1]["id"], f"{page.url} repeats earlier tasks"
        visited += tasks
        if "next" not in page.links or visited[-1]["id"] >= last:
            break
        call(response, "DELETE", f"{url}/{written}")
        written = call(response, "POST", url, json={"title": "Created between two pages"}).json()["id"]
        page = call(response, "GET", urljoin(page.url, page.links["next"]["url"]))
    call(response, "DELETE", f"{url}/{written}")

    ids = [task["id"] for task in visited]
    assert ids == sorted(set(ids)), f"the pages contain the tasks {ids}"
    assert min(ids, default=1) > int(query.get("after", 0)) or not ids
    assert {str(task["completed"]).lower() for task in visited} <= {query.get("completed")} or "completed" not in query
    missed = {task["id"] for task in present} - set(ids)
    assert [id for id in missed if call(response, "GET", f"{url}/{id}").status_code != 404] == []
    assert [id for id in ids if id <= last and id not in {task["id"] for task in present}] == []


@schemathesis.check
def head_equals_get(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """HEAD returns the same status and header fields as GET, without the body."""
    if response.request.method == "GET":
        url = url_of(response)
        get, head = (call(response, method, url, ("If-None-Match",)) for method in ("GET", "HEAD"))
        assert head.content == b""
        assert head.status_code == get.status_code == response.status_code
        assert stable_headers(head) == stable_headers(get)


def stable_headers(response: requests.Response) -> dict[str, str]:
    """Return the header fields that are the same in every response to the same request."""
    return {name.lower(): value for name, value in response.headers.items() if name.lower() not in VOLATILE_HEADERS}


@schemathesis.check
class IdAndTimeNeverChange:
    """The id and creation time of a task are the same in every response, and ids are never reused."""

    def __init__(self) -> None:
        self.times: dict[int, str] = {}
        self.created: dict[int, Response] = {}

    def after_response(self, ctx: CheckContext, response: Response, case: Case[Any]) -> None:
        """Compare the tasks in this response with the tasks in earlier responses."""
        if response.status_code not in (200, 201) or response.request.method == "DELETE":
            return
        body = response.json()
        for task in body if isinstance(body, list) else [body]:
            assert self.times.setdefault(task["id"], task["createdAt"]) == task["createdAt"]
        if is_response_to(response, "GET", PATH + "/", 200) or is_response_to(response, "PUT", PATH + "/", 200):
            assert str(body["id"]) == urlsplit(url_of(response)).path.rpartition("/")[2]
        if response.status_code == 201:
            assert body["id"] > max(self.created, default=0) or self.created.get(body["id"]) is response
            self.created[body["id"]] = response

    def after_run(self, ctx: CheckContext) -> None:
        """Delete every task that the run created."""
        assert delete_created_tasks() <= {200, 404}
