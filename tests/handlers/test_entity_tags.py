"""Conditional requests: unchanged responses are not sent again, and updates are not lost."""

import time
from pathlib import Path

import httpx
import pytest

from handlers import entity_tags
from handlers.contract import document
from handlers.contract.reply import Reply
from tests.support.edits import replace_in
from tests.support.project import RUN_FROM_SOURCE
from tests.support.service import Start


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "two nodes"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn; two nodes that share a PostgreSQL database must behave like a single node."""
    return str(request.param)


PER_RESPONSE_HEADERS = {"date", "x-request-id"}
CONTENT_HEADERS = {"content-type", "content-length"}


@pytest.fixture
def task(shared_client: httpx.Client) -> httpx.Response:
    """Create a task, and return the response."""
    return shared_client.post("/api/tasks", json={"title": "a"})


def stable_headers(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in PER_RESPONSE_HEADERS}


def header_lines(field: str, values: list[str]) -> list[tuple[bytes, bytes]]:
    return [(field.encode(), value.encode("latin-1")) for value in values]


def test_entity_tag_is_strong_and_changes_with_every_update(shared_client: httpx.Client, task: httpx.Response) -> None:
    path = task.headers["location"]
    tags = [task.headers["etag"]]
    for title in ("b", "c", "c", "a"):
        assert shared_client.get(path).headers["etag"] == shared_client.head(path).headers["etag"] == tags[-1]
        tags.append(shared_client.put(path, json={"title": title}).headers["etag"])

    assert len(set(tags)) == 5
    assert all(tag[0] == tag[-1] == '"' for tag in tags)


def test_version_is_not_in_the_body(task: httpx.Response) -> None:
    assert task.json().keys() == document.raw()["components"]["schemas"]["Task"]["properties"].keys()
    assert "version" not in task.json()


@pytest.mark.parametrize(
    ("values", "matches"),
    [
        (["{tag}"], True),
        (["W/{tag}"], True),
        (["*"], True),
        (['"other", {tag}'], True),
        (['"a,b",,{tag} ,'], True),
        (['"other"', "{tag}"], True),
        (["", "{tag}"], True),
        (['"other"'], False),
        (['W/"other", "another"'], False),
        (['""'], False),
    ],
)
@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks?limit=1&completed=false", "{task}"])
def test_if_none_match_gets_304_for_an_unchanged_response(
    shared_client: httpx.Client, task: httpx.Response, path: str, values: list[str], matches: bool
) -> None:
    """A 304 response lacks only the body and the header fields that describe the body (RFC 9110, section 15.4.5)."""
    path = path.format(task=task.headers["location"])
    # Create another task, so that the page links to a next page.
    shared_client.post("/api/tasks", json={"title": "b"})
    whole = shared_client.get(path)
    assert whole.headers["cache-control"]
    assert ("link" in whole.headers) == ("limit" in path)
    fields = header_lines("If-None-Match", [value.format(tag=whole.headers["etag"]) for value in values])

    for method in ("GET", "HEAD"):
        response = shared_client.request(method, path, headers=fields)

        if matches:
            assert (response.status_code, response.content) == (304, b"")
            assert stable_headers(response) == {
                name: value for name, value in stable_headers(whole).items() if name not in CONTENT_HEADERS
            }
        else:
            assert (response.status_code, response.content) == (200, whole.content if method == "GET" else b"")
            assert stable_headers(response) == stable_headers(whole)


@pytest.mark.parametrize("path", ["/api/tasks?limit=1", "{task}"])
@pytest.mark.parametrize("suffix", ["-gzip", "--gzip", "-br", "-zstd", ";gz", "-df", ":x-gzip"])
@pytest.mark.parametrize("value", ['"{bare}{suffix}"', 'W/"{bare}{suffix}"', '"a-gzip", "{bare}{suffix}-gzip"'])
def test_if_none_match_accepts_tags_that_a_proxy_altered(
    shared_client: httpx.Client, task: httpx.Response, path: str, suffix: str, value: str
) -> None:
    """The 304 repeats the tag by which the client's cache finds the response, but does not let suffixes pile up."""
    path = path.format(task=task.headers["location"])
    bare = shared_client.get(path).headers["etag"].strip('"')

    response = shared_client.get(path, headers={"If-None-Match": value.format(bare=bare, suffix=suffix)})

    assert (response.status_code, response.headers["etag"]) == (304, f'"{bare}{suffix}"')


@pytest.mark.parametrize("value", ['"{bare}gzip"', '"{bare}-gzipped"', '"{bare}-1"', '"-gzip{bare}"', '"{start}-gzip"'])
def test_if_none_match_refuses_other_tags(shared_client: httpx.Client, task: httpx.Response, value: str) -> None:
    bare = task.headers["etag"].strip('"')

    sent = value.format(bare=bare, start=bare[:-1])

    assert shared_client.get(task.headers["location"], headers={"If-None-Match": sent}).status_code == 200


def test_long_list_of_tags_is_compared_in_linear_time() -> None:
    """Less than a millisecond is enough; a regular expression that backtracks would take minutes."""
    for piece in ("-", "-gzip", "--gz", ";;gzip-", '"-gzip" '):
        started = time.process_time()
        entity_tags.not_modified_or(Reply(b"", {"ETag": '"1-a"'}), f'"{piece * (16000 // len(piece))}"')
        assert time.process_time() - started < 1, piece


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/1"])
@pytest.mark.parametrize("value", ["1", "", '"', '*, "a"', '"a" "b"', "é"])
def test_invalid_if_none_match_gets_400(shared_client: httpx.Client, path: str, value: str) -> None:
    refused = shared_client.get(path, headers=header_lines("If-None-Match", [value]))

    assert refused.status_code == 400
    assert [error["parameter"] for error in refused.json()["errors"]] == ["If-None-Match"]


def test_entity_tag_of_a_page_changes_with_its_content_and_link(client: httpx.Client) -> None:
    def tag(query: str = "?limit=2") -> str:
        page = client.get(f"/api/tasks{query}")
        assert client.get(f"/api/tasks{query}", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
        return page.headers["etag"]

    tags = [tag()]
    for title in ("a", "b", "c"):
        client.post("/api/tasks", json={"title": title})
        tags.append(tag())
    client.put("/api/tasks/1", json={"title": "c"})
    tags.append(tag())
    client.delete("/api/tasks/1")
    tags.append(tag())

    # The third task is not on the page, but its creation added the link to the next page.
    assert len(set(tags)) == 6
    client.post("/api/tasks", json={"title": "d"})
    assert tag() != tags[-1]
    unchanged = tag()
    client.post("/api/tasks", json={"title": "e"})
    assert tag() == unchanged
    assert tag("?completed=true") != unchanged
    assert tag("?after=2&limit=2") != unchanged


@pytest.mark.parametrize(
    ("values", "status"),
    [
        (["{tag}"], 200),
        (["*"], 200),
        (['"other", {tag}'], 200),
        (['W/"other"', "{tag}"], 200),
        (["{tag},{tag}"], 200),
        (["W/{tag}"], 412),
        (['"other"'], 412),
        (['"0{bare}"'], 412),
        (['"99999999999999999999{bare}"'], 412),
        (['"2{rest}"'], 412),
        (['"1"'], 412),
        (["{bare}"], 400),
        (['*, "other"'], 400),
        (["*", "*"], 400),
        (['"other" {tag}'], 400),
        (["'{bare}'"], 400),
        (['w/"other"'], 400),
        (['"'], 400),
        ([""], 400),
        (["é"], 400),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_if_match_allows_a_change_only_to_the_current_version(
    shared_client: httpx.Client, task: httpx.Response, method: str, values: list[str], status: int
) -> None:
    path, tag = task.headers["location"], task.headers["etag"]
    header_values = [value.format(tag=tag, bare=tag.strip('"'), rest=tag.strip('"')[1:]) for value in values]
    body = {"title": "b"} if method == "PUT" else None

    response = shared_client.request(method, path, headers=header_lines("If-Match", header_values), json=body)

    assert response.status_code == status
    kept = shared_client.get(path)
    if status == 200:
        assert kept.status_code == (404 if method == "DELETE" else 200)
        assert kept.headers.get("etag") == response.headers.get("etag")
    else:
        assert (kept.json(), kept.headers["etag"]) == (task.json(), tag)
        assert ("If-Match" in response.json()["detail"]) == (status == 412)
        assert [error["parameter"] for error in response.json().get("errors", [])] == ["If-Match"] * (status == 400)


@pytest.mark.parametrize("value", ["W/{tag}", '"{bare}-gzip"', '"{bare}--br"', 'W/"{bare}-gzip"', '"other", W/{tag}'])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_412_says_whether_a_proxy_altered_the_tag_or_the_task_has_changed(
    shared_client: httpx.Client, task: httpx.Response, method: str, value: str
) -> None:
    path, tag = task.headers["location"], task.headers["etag"]
    body = {"title": "b"} if method == "PUT" else None
    headers = {"If-Match": value.format(tag=tag, bare=tag.strip('"'))}

    altered = shared_client.request(method, path, headers=headers, json=body)
    unchanged = shared_client.get(path).headers["etag"]
    shared_client.put(path, json={"title": "b"})
    changed = shared_client.request(method, path, headers=headers, json=body)

    assert (altered.status_code, changed.status_code) == (412, 412)
    assert altered.json()["detail"].startswith("The entity tag in If-Match is weak (W/) or was altered by a proxy")
    assert changed.json()["detail"].startswith("The task has changed, or If-Match names no ETag")
    assert unchanged == tag


@pytest.mark.parametrize("tag", ["*", '"1"', 'W/"1-a"', '"1-a-gzip"'])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_if_match_on_a_missing_task_gets_404(shared_client: httpx.Client, method: str, tag: str) -> None:
    body = {"title": "b"} if method == "PUT" else None

    assert shared_client.request(method, "/api/tasks/9999", headers={"If-Match": tag}, json=body).status_code == 404


def test_if_match_accepts_many_entity_tags(shared_client: httpx.Client, task: httpx.Response) -> None:
    tag = task.headers["etag"]
    tags = ", ".join(f'"{version}{tag[2:]}' for version in range(1000, 0, -1))
    assert len(tags) < 16000

    first = shared_client.put(task.headers["location"], json={"title": "b"}, headers={"If-Match": tags})
    second = shared_client.put(task.headers["location"], json={"title": "c"}, headers={"If-Match": tags})

    assert (first.status_code, second.status_code) == (200, 200)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_entity_tag_changes_with_the_json_format(start: Start, checkout: Path) -> None:
    """If the entity tag stayed the same, clients would keep responses in the old format after an upgrade."""
    service = start(folder=checkout, command=RUN_FROM_SOURCE)
    created = service.client.post("/api/tasks", json={"title": "a"})
    service.stop()
    column = "(column(field), field)"
    upper_case_title = f"(fn.upper(column(field)), field) if alias == 'title' else {column}"
    replace_in(checkout / "models/resource.py", "_json", column, upper_case_title)

    changed = start(folder=checkout, command=RUN_FROM_SOURCE).client.get(
        created.headers["location"], headers={"If-None-Match": created.headers["etag"]}
    )

    assert changed.status_code == 200
    assert changed.json() == {**created.json(), "title": "A"}


def test_all_violations_are_reported_at_once(shared_client: httpx.Client) -> None:
    refused = shared_client.put("/api/tasks/1?limit=1", json={"title": ""}, headers={"If-Match": "1"})

    reported = [error.get("parameter", error.get("pointer")) for error in refused.json()["errors"]]
    assert refused.status_code == 400
    assert reported == ["limit", "If-Match", "/title"]


@pytest.mark.parametrize("field", ["Accept", "Accept-Encoding", "Accept-Language", "Origin", "User-Agent", "Cookie"])
def test_small_response_does_not_depend_on_request_headers(
    shared_client: httpx.Client, task: httpx.Response, field: str
) -> None:
    for path in ("/api/tasks?limit=1", task.headers["location"]):
        usual = shared_client.get(path)
        other = shared_client.get(path, headers={field: "text/html;q=0.1, gzip"})

        assert (other.content, stable_headers(other)) == (usual.content, stable_headers(usual))
        assert usual.headers.get("vary") == ("Accept-Encoding" if "limit" in path else None)
