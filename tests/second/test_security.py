"""Security requirements of every kind, with the check functions in `handlers/security.py`."""

import httpx
import pytest

pytestmark = pytest.mark.slow

BADGE = {"X-Badge": "badge-1"}
SESSION = {"Cookie": "session=session-1"}
DESK = {"Authorization": "Basic YWRhOnNlY3JldA=="}  # ada:secret


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "caller"),
    [
        ("GET", "open", {}, ""),
        ("GET", "desk", DESK, "ada"),
        ("GET", "badge", BADGE, "badge"),
        ("GET", "kiosk?kiosk-code=kiosk-1", {}, "kiosk"),
        ("GET", "session", SESSION, "session"),
        ("GET", "account", bearer("token-read"), "token-read"),
        ("POST", "account", bearer("token-write"), "token-write"),
        ("GET", "staff", bearer("staff-1"), "staff"),
        ("GET", "either", BADGE, "badge"),
        ("GET", "either", DESK, "ada"),
        ("GET", "both", BADGE | SESSION, "badge, session"),
        ("GET", "lobby", BADGE, "badge"),
        ("GET", "lobby", {}, ""),
    ],
)
def test_valid_credentials_identify_the_caller(
    client: httpx.Client, method: str, path: str, headers: dict[str, str], caller: str
) -> None:
    answer = client.request(method, f"/rooms/{path}", headers=headers)

    assert answer.status_code == 200, answer.text
    assert answer.json()["caller"].removeprefix("key ") == caller


@pytest.mark.parametrize(
    ("path", "headers", "challenge"),
    [
        ("key", {}, "Bearer"),
        ("key", bearer("library_unknown"), "Bearer"),
        ("key", BADGE, "Bearer"),
        ("desk", {}, "Basic"),
        ("desk", {"Authorization": "Basic YWRhOndyb25n"}, "Basic"),
        ("desk", {"Authorization": "Basic ?"}, "Basic"),
        ("badge", {}, "ApiKey"),
        ("badge", {"X-Badge": "badge-2"}, "ApiKey"),
        ("kiosk", {}, "ApiKey"),
        ("kiosk?kiosk-code=", {}, "ApiKey"),
        ("kiosk?kiosk-code=kiosk-1&kiosk-code=kiosk-2", {}, "ApiKey"),
        ("session", {"Cookie": "session=2"}, "ApiKey"),
        ("account", bearer("token"), "Bearer"),
        ("staff", bearer("token-read"), "Bearer"),
        ("either", SESSION, "ApiKey"),
        ("both", BADGE, "ApiKey"),
        ("both", SESSION, "ApiKey"),
    ],
)
def test_missing_or_invalid_credentials_are_refused(
    client: httpx.Client, path: str, headers: dict[str, str], challenge: str
) -> None:
    answer = client.get(f"/rooms/{path}", headers=headers)

    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"].startswith(challenge)


def test_missing_scope_is_forbidden(client: httpx.Client) -> None:
    answer = client.post("/rooms/account", headers=bearer("token-read"))

    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")


def test_api_key_of_the_service(client: httpx.Client, key: str) -> None:
    assert client.get("/rooms/key", headers=bearer(key)).json() == {"caller": "key app"}


def test_operations_without_security_are_open_although_the_service_has_keys(client: httpx.Client) -> None:
    assert client.get("/books").status_code == 200
