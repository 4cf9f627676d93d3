"""What the contract says in words, as checks for Schemathesis, which finds them as its hooks.

They need nothing of this project but a running service, and compare what several answers say of the same tasks. They
assume that nobody else changes the tasks which the run itself creates, and delete these in the end, however that comes.
Tasks that are not of the run are read, and never changed.
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
# Fields that are another one with every response.
MOMENTARY = {"date", "x-request-id"}
IDEMPOTENCY_KEY = re.compile("[!-~]([ -~]{,253}[!-~])?")
ENTITY_TAGS = re.compile(r'[ \t,]*(W/)?"[^"]*"([ \t]*,[ \t,]*(W/)?"[^"]*")*[ \t,]*')

# What the run has created and not deleted again, by id: the answers that said so.
created: dict[int, requests.Response] = {}
send = requests.Session.send


def send_and_note(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    """Send a request, and remember what it creates."""
    response = send(session, request, **options)
    if request.method == "POST" and response.status_code in range(200, 300) and (id := id_in(response)):
        created[id] = response
    return response


# Past the hooks of Schemathesis, because so go some of its own requests, which a defect may let create a task.
setattr(requests.Session, "send", send_and_note)  # noqa: B010


def id_in(response: requests.Response) -> int | None:
    """Return the id of the task that a response holds, as far as one that breaks the contract says so."""
    try:
        found = str(response.json()["id"])
    except (ValueError, TypeError, KeyError):
        found = response.headers.get("Location", "").rpartition("/")[2]
    return int(found) if found.isdecimal() else None


@atexit.register
def delete_what_was_created() -> set[int]:
    """Delete what the run has created, and return the statuses of the answers.

    A run that is interrupted, or ends at its first finding, skips the checks of its end, but not this.
    """
    statuses = set()
    while created:
        id, response = created.popitem()
        statuses.add(call(response, "DELETE", f"{collection(response)}/{id}").status_code)
    return statuses


def address(response: Response | requests.Response) -> str:
    """Return what was called."""
    return str(response.request.url)


def is_call(response: Response, method: str, path: str, status: int) -> bool:
    """Return whether this is the answer to a call of the collection, or of a task where `path` ends with a slash."""
    url = urlsplit(address(response)).path
    fits = url.rpartition("/")[0].endswith(PATH) if path.endswith("/") else url.endswith(path)
    return (response.request.method, response.status_code) == (method, status) and fits


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Spare the tasks of others, and make some requests succeed that no schema tells apart from those that are refused.

    What would change a task that the run has not created goes to one that it has. A valid idempotency key becomes one
    of its own, since with another body it is refused. Valid entity tags in If-Match, weak ones too, are extended
    with the current tag: Schemathesis warns if every valid request to an operation gets 412.
    """
    headers: Any = case.headers
    if IDEMPOTENCY_KEY.fullmatch(str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = uuid4().hex + headers["Idempotency-Key"][32:]
    if "id" not in case.path_parameters or case.method == "GET":
        return
    url = case.as_transport_kwargs()["url"]
    sent = case.operation.schema.config.headers_for(operation=case.operation)
    # Schemathesis puts a configured API key into the case, not into `headers_for`.
    sent |= {name: headers[name] for name in ("Authorization",) if name in headers}
    task = requests.get(url, headers=sent, timeout=30)
    if task.status_code == 200 and id_in(task) not in created:
        url = url.partition(PATH)[0] + PATH
        task = requests.post(url, headers=sent, json={"title": "In place of another"}, timeout=30)
        case.path_parameters["id"] = id_in(task)
    if ENTITY_TAGS.fullmatch(str(headers.get("If-Match", ""))):
        headers["If-Match"] += f", {task.headers.get('ETag', '')}"


def call(
    response: Response | requests.Response, method: str, url: str, repeated: tuple[str, ...] = (), **options: Any
) -> requests.Response:
    """Make a further call to the service that gave this response, as the same caller.

    Args:
        response: An answer of the service.
        method: The method of the call.
        url: What is called.
        repeated: Header fields that the call has in common with that answer's request.
        options: Further options of `requests.request`.
    """
    sent = response.request.headers
    headers = {name: sent[name] for name in ("Authorization", *repeated) if name in sent} | options.pop("headers", {})
    return requests.request(method, url, headers=headers, timeout=30, allow_redirects=False, **options)


def collection(response: Response | requests.Response) -> str:
    """Return the address of the collection of the service that gave this response."""
    return address(response).partition(PATH)[0] + PATH


@schemathesis.check
def every_error_is_a_problem(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A refusal is a problem document, and its status is that of the response."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == [PROBLEM]
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]


@schemathesis.check
def what_was_sent_is_kept(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A task that was created or replaced has every property as it was sent."""
    if is_call(response, "POST", PATH, 201) or is_call(response, "PUT", PATH + "/", 200):
        body: Any = response.request.body
        sent = json.loads(body)
        assert {name: response.json()[name] for name in sent} == sent


@schemathesis.check
def put_answers_what_get_gives(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """What PUT answers is what GET then gives."""
    if is_call(response, "PUT", PATH + "/", 200):
        got = call(response, "GET", address(response))
        assert (got.status_code, got.json()) == (200, response.json())
        assert [got.headers["etag"]] == response.headers["etag"]


@schemathesis.check
def tag_is_known_and_stale_tag_is_refused(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """What has the tag that a caller knows is not sent again, and what has another one is not changed."""
    if is_call(response, "GET", PATH + "/", 200) or is_call(response, "PUT", PATH + "/", 200):
        url, (tag,) = address(response), response.headers["etag"]
        known = call(response, "GET", url, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
        for method in ("PUT", "DELETE") if response.json()["id"] in created else ():
            body = {"title": "Not to be seen"} if method == "PUT" else None
            stale = call(response, method, url, headers={"If-Match": f'"other", W/{tag}'}, json=body)
            assert stale.status_code == 412
        assert call(response, "GET", url).json() == response.json()


@schemathesis.check
def condition_is_refused_where_it_does_not_hold(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A 412 is given only where If-Match has none of the tags of what is there."""
    if response.status_code == 412:
        condition = response.request.headers["If-Match"]
        text = condition.decode("latin-1") if isinstance(condition, bytes) else condition
        tag = call(response, "GET", address(response)).headers["etag"]
        assert text != "*"
        assert tag not in [named for weak, named in re.findall(r'(W/)?("[^"]*")', text) if not weak]


@schemathesis.check
def retry_creates_nothing(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """The same request with the same key is answered the same, and creates nothing; another body is refused."""
    if is_call(response, "POST", PATH, 201) and "Idempotency-Key" in response.request.headers:
        body: Any = response.request.body
        same = ("Idempotency-Key", "Content-Type")
        retried = call(response, "POST", address(response), same, data=body)
        assert (retried.status_code, retried.json()) == (201, response.json())
        assert [retried.headers[name] for name in ("etag", "location")] == [
            response.headers[name][0] for name in ("etag", "location")
        ]
        assert retried.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in response.headers
        other = call(response, "POST", address(response), same, data=json.dumps({"title": uuid4().hex}))
        assert other.status_code == 422


@schemathesis.check
def deleted_task_is_gone(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """What was deleted is neither found nor listed."""
    if is_call(response, "DELETE", PATH + "/", 200):
        url = address(response)
        assert call(response, "GET", url).status_code == 404
        id = int(url.rpartition("/")[2])
        following = call(response, "GET", collection(response), params={"after": id - 1, "limit": 1}).json()
        assert id not in [task["id"] for task in following]


@schemathesis.check
def created_task_is_listed_once(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A task that was created is where Location says, and in the list exactly once."""
    if not is_call(response, "POST", PATH, 201):
        return
    task = response.json()
    location = collection(response).removesuffix(PATH) + response.headers["location"][0]
    assert call(response, "GET", location).json() == task
    for completed, count in ((None, 1), (task["completed"], 1), (not task["completed"], 0)):
        query: dict[str, Any] = {"completed": str(completed).lower()} if completed is not None else {}
        query |= {"after": max(0, task["id"] - 500), "limit": 1000}
        listed = call(response, "GET", collection(response), params=query).json()
        assert [other for other in listed if other["id"] == task["id"]] == [task] * count


@schemathesis.check
def walk_visits_every_task_once(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A walk along the links visits each task once, in ascending order, while others write."""
    if not is_call(response, "GET", PATH, 200):
        return
    url = collection(response)
    query = dict(parse_qsl(urlsplit(address(response)).query))
    there = call(response, "GET", url, params={**query, "limit": 1000}).json()
    last = there[-1]["id"] if there else 0
    limit = max(1, min(int(query.get("limit", 100)), len(there) // 3))
    visited: list[dict[str, Any]] = []
    written = call(response, "POST", url, json={"title": "Before a walk"}).json()["id"]
    page = call(response, "GET", url, params={**query, "limit": limit})
    while True:
        assert page.status_code == 200
        tasks = page.json()
        assert len(tasks) <= limit
        # Else the walk might never end.
        assert not visited or not tasks or tasks[0]["id"] > visited[-1]["id"], f"{page.url} goes back"
        visited += tasks
        if "next" not in page.links or visited[-1]["id"] >= last:
            break
        call(response, "DELETE", f"{url}/{written}")
        written = call(response, "POST", url, json={"title": "During a walk"}).json()["id"]
        page = call(response, "GET", urljoin(page.url, page.links["next"]["url"]))
    call(response, "DELETE", f"{url}/{written}")

    ids = [task["id"] for task in visited]
    assert ids == sorted(set(ids)), f"a walk visits the tasks {ids}"
    assert min(ids, default=1) > int(query.get("after", 0)) or not ids
    assert {str(task["completed"]).lower() for task in visited} <= {query.get("completed")} or "completed" not in query
    missed = {task["id"] for task in there} - set(ids)
    assert [id for id in missed if call(response, "GET", f"{url}/{id}").status_code != 404] == []
    assert [id for id in ids if id <= last and id not in {task["id"] for task in there}] == []


@schemathesis.check
def head_equals_get(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """HEAD answers what GET does, without the body."""
    if response.request.method == "GET":
        url = address(response)
        get, head = (call(response, method, url, ("If-None-Match",)) for method in ("GET", "HEAD"))
        assert head.content == b""
        assert head.status_code == get.status_code == response.status_code
        assert lasting(head) == lasting(get)


def lasting(response: requests.Response) -> dict[str, str]:
    """Return the header fields that are the same whenever the same is asked."""
    return {name.lower(): value for name, value in response.headers.items() if name.lower() not in MOMENTARY}


@schemathesis.check
class IdAndTimeNeverChange:
    """The id and the time of creation of a task are the same in every answer, and no id is given twice."""

    def __init__(self) -> None:
        self.times: dict[int, str] = {}
        self.created: dict[int, Response] = {}

    def after_response(self, ctx: CheckContext, response: Response, case: Case[Any]) -> None:
        """Compare what this response says of tasks with what earlier ones said."""
        if response.status_code not in (200, 201) or response.request.method == "DELETE":
            return
        body = response.json()
        for task in body if isinstance(body, list) else [body]:
            assert self.times.setdefault(task["id"], task["createdAt"]) == task["createdAt"]
        if is_call(response, "GET", PATH + "/", 200) or is_call(response, "PUT", PATH + "/", 200):
            assert str(body["id"]) == urlsplit(address(response)).path.rpartition("/")[2]
        if response.status_code == 201:
            assert body["id"] > max(self.created, default=0) or self.created.get(body["id"]) is response
            self.created[body["id"]] = response

    def after_run(self, ctx: CheckContext) -> None:
        """Leave none of the tasks that the run created."""
        assert delete_what_was_created() <= {200, 404}
