"""Routing of requests whose paths and methods are defined in the contract, and of other requests."""

import httpx
import pytest

from tests.support.calls import UNKNOWN_METHOD, methods

ALLOW = {path: ", ".join(methods(path.replace("1", "{id}"))) for path in ("/api/tasks", "/api/tasks/1")}


@pytest.mark.parametrize("path", ALLOW)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", UNKNOWN_METHOD])
def test_other_methods_are_not_allowed(shared_client: httpx.Client, method: str, path: str) -> None:
    response = shared_client.request(method, path)

    if method in ALLOW[path].split(", "):
        assert response.status_code != 405
    else:
        assert response.status_code == 405
        assert response.headers.get_list("allow") == [ALLOW[path]]
        assert response.json()["status"] == 405


def test_paths_allow_the_expected_methods() -> None:
    assert set(ALLOW["/api/tasks"].split(", ")) >= {"GET", "HEAD", "POST", "OPTIONS"}
    assert set(ALLOW["/api/tasks/1"].split(", ")) >= {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}


@pytest.mark.parametrize("path", ALLOW)
def test_options_lists_the_methods(shared_client: httpx.Client, path: str) -> None:
    response = shared_client.options(path)

    assert response.status_code == 204
    assert response.content == b""
    assert response.headers.get_list("allow") == [ALLOW[path]]


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks?limit=0", "/api/tasks/1", "/api/tasks/9999"])
def test_head_is_get_without_the_body(shared_client: httpx.Client, path: str) -> None:
    shared_client.post("/api/tasks", json={"title": "a"})
    get, head = shared_client.get(path), shared_client.head(path)

    assert head.status_code == get.status_code
    assert head.content == b""
    per_response = {"date": "", "x-request-id": ""}
    assert {**head.headers, **per_response} == {**get.headers, **per_response}


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/api",
        "/api/",
        "/api/tasks/",
        "/API/tasks",
        "/api/tasks/1/",
        "/api/tasks/1/2",
        "//api/tasks",
        "/api%2Ftasks",
        "/api/tasks%2f1",
    ],
)
def test_other_paths_are_not_found(shared_client: httpx.Client, path: str) -> None:
    response = shared_client.get(path)

    assert response.status_code == 404
    assert response.json()["detail"] == "This path does not exist; /openapi.yaml lists the paths that do"
