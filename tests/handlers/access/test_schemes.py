"""Security schemes: their credentials, check functions, alternatives and combinations, and the faults in them."""

import asyncio
import re
from base64 import b64encode
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from starlette.exceptions import HTTPException

from handlers.access import security
from handlers.access.security import Access, Security, without_keys
from handlers.contract import document
from handlers.contract.faults import FaultError
from handlers.contract.problems import Refusal
from models.keys import KeyCache

SCHEMES: dict[str, dict[str, Any]] = {
    "Password": {"type": "http", "scheme": "Basic"},
    "ApiKey": {"type": "http", "scheme": "bearer"},
    "Jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "HeaderKey": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "query-key": {"type": "apiKey", "in": "query", "name": "key"},
    "CookieKey": {"type": "apiKey", "in": "cookie", "name": "key"},
    "OAuth": {"type": "oauth2", "flows": {}},
    "OpenId": {"type": "openIdConnect", "openIdConnectUrl": "https://example.com"},
}
ANN = b64encode(b"ann:secret:\xc3\xa9").decode()


async def password(user: str, password: str) -> str | None:
    """Accept a password; never get control characters."""
    assert not re.search(r"[\x00-\x1f\x7f]", user + password)
    return user if password == "secret:é" else None


async def check(credential: str, scopes: list[str]) -> str | None:
    """Accept the credential `ann`, which has the scope `read`; never get a malformed credential."""
    assert re.fullmatch(r"[!-~]+", credential)
    if credential != "ann":
        return None
    if set(scopes) - {"read"}:
        raise Refusal(403)
    return f"{credential}!"


FUNCTIONS = SimpleNamespace(
    password=password, jwt=check, header_key=check, query_key=check, cookie_key=check, o_auth=check, open_id=check
)


class Keys(KeyCache):
    """The API keys of a service: one with the value `key` and the name `app`, or none."""

    def __init__(self, required: bool = True) -> None:
        self.required = required
        self.fresh_until = 0.0
        self.refreshes = 0

    async def ensure_fresh(self) -> None:
        self.refreshes += 1

    def name_of(self, key: bytes) -> str | None:
        return {b"key": "app"}.get(key)


@pytest.fixture(autouse=True)
def schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SCHEMES, FUNCTIONS)


def use(monkeypatch: pytest.MonkeyPatch, schemes: dict[str, dict[str, Any]], functions: object) -> None:
    """Replace the security schemes of the contract, and the module of their check functions."""
    monkeypatch.setattr(document, "security_schemes", lambda: schemes)
    monkeypatch.setattr(security, "_author_functions", lambda: functions)


def access(*requirements: dict[str, list[str]], keys: Keys | None = None) -> Access:
    return Access("security", requirements, keys or Keys())


def call(access: Access, *headers: tuple[str, str], query: str = "") -> str | None:
    """Return the name of the caller. Raise the refusal of the request."""
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope: dict[str, Any] = {"type": "http", "headers": fields, "query_string": query.encode(), "state": {}}
    asyncio.run(Security([], {None: access})(scope, Mock()))
    name: str | None = scope["state"].get("key_name")
    return name


def refuse(access: Access, *headers: tuple[str, str], query: str = "") -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        call(access, *headers, query=query)
    return caught.value


@pytest.mark.parametrize(
    ("scheme", "header", "query", "name"),
    [
        ("Password", ("Authorization", f"bAsIc  {ANN}"), "", "ann"),
        ("ApiKey", ("Authorization", "Bearer key"), "", "app"),
        ("Jwt", ("Authorization", "bearer ann"), "", "ann!"),
        ("HeaderKey", ("x-kEY", "ann"), "", "ann!"),
        ("query-key", ("X-Other", ""), "a=1&key=%61nn", "ann!"),
        ("CookieKey", ("Cookie", "other=1; key=ann"), "", "ann!"),
        ("OAuth", ("Authorization", "Bearer ann"), "", "ann!"),
        ("OpenId", ("Authorization", "Bearer ann"), "", "ann!"),
    ],
)
def test_valid_credentials_identify_the_caller(scheme: str, header: tuple[str, str], query: str, name: str) -> None:
    only = access({scheme: []})

    assert call(only, header, query=query) == name
    assert refuse(only).status_code == 401
    # An empty value is no credential, and two values are ambiguous.
    assert refuse(only, (header[0], ""), query=query.replace("%61nn", "")).status_code == 401
    if scheme != "CookieKey":
        assert refuse(only, header, header, query=f"{query}&{query}").status_code == 401


@pytest.mark.parametrize(
    ("scheme", "value"),
    [
        *(("Password", text) for text in ("Basic", "Basic ann:secret", "Basic YQ", "Basic YQ==", f"Bearer {ANN}")),
        *(("Password", f"Basic {b64encode(text).decode()}") for text in (b"ann:\xff", b"ann:a\0", b"a\n:b", b"ann:no")),
        *(("Password", f"Basic {text}") for text in (f"{ANN[:-1]}é", f"{ANN[:4]}.{ANN[4:]}")),
        *(("Jwt", text) for text in ("ann", "Bearer", "Bearer bob", "Bearer ann ann", "Bearer \xe9", "Basic ann")),
    ],
)
def test_malformed_credentials_get_401(scheme: str, value: str) -> None:
    assert refuse(access({scheme: []}), ("Authorization", value)).status_code == 401


@pytest.mark.parametrize("value", ["\xff", "\xe9", "a b", "an\tn"])
def test_malformed_api_keys_get_401(value: str) -> None:
    assert refuse(access({"HeaderKey": []}), ("X-Key", value)).status_code == 401
    assert refuse(access({"CookieKey": []}), ("Cookie", f"key={value}")).status_code == 401
    assert refuse(access({"query-key": []}), query=f"key=%{ord(value[0]):x}").status_code == 401


def test_alternatives_and_combinations() -> None:
    either, both = access({"HeaderKey": []}, {"Jwt": []}), access({"HeaderKey": [], "Password": []})
    jwt, key, password = ("Authorization", "Bearer ann"), ("X-Key", "ann"), ("Authorization", f"Basic {ANN}")

    assert call(either, jwt) == call(either, key) == call(either, ("X-Key", "bob"), jwt) == "ann!"
    assert call(both, key, password) == "ann!, ann"
    assert [refuse(both, *sent).status_code for sent in ((key,), (password,), (key, jwt))] == [401] * 3


def test_scopes() -> None:
    read, write = access({"OAuth": ["read"]}), access({"OAuth": ["read", "write"]})
    token = ("Authorization", "Bearer ann")

    assert call(read, token) == "ann!"
    assert refuse(write, token).status_code == 403
    assert call(access({"OAuth": ["write"]}, {"HeaderKey": []}), token, ("X-Key", "ann")) == "ann!"
    # A 403 for valid credentials without permission wins over a 401 for missing ones.
    assert refuse(access({"OAuth": ["write"]}, {"HeaderKey": []}), token).status_code == 403


def test_optional_and_open_operations() -> None:
    optional, token = access({}, {"Jwt": []}), ("Authorization", "Bearer ann")

    assert call(optional, token) == "ann!"
    assert call(optional) is None
    assert call(optional, ("Authorization", "Bearer bob")) is None
    assert call(access()) is None


def test_failed_alternative_leaves_no_caller() -> None:
    assert call(access({"HeaderKey": [], "Password": []}, {}), ("X-Key", "ann")) is None


def test_401_names_the_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    many = access({"Password": []}, {"HeaderKey": [], "Jwt": []}, {"OAuth": []})
    constant = {"WWW-Authenticate": "of the contract"}
    monkeypatch.setattr(document, "constant_headers", lambda *_: {})
    assert refuse(many).headers == {
        "WWW-Authenticate": ", ".join(f'{name} realm="{document.NAME}"' for name in ("Basic", "ApiKey", "Bearer"))
    }
    monkeypatch.setattr(document, "constant_headers", lambda *_: constant)
    assert refuse(many).headers == constant


def test_401_of_a_function_names_the_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def expired(credential: str, scopes: list[str]) -> str | None:
        raise Refusal(401, headers={"X-Reason": "expired"})

    monkeypatch.setattr(document, "constant_headers", lambda *_: {})
    use(monkeypatch, SCHEMES, SimpleNamespace(jwt=expired))
    refusal = refuse(access({"Jwt": []}), ("Authorization", "Bearer ann"))

    assert refusal.headers == {"WWW-Authenticate": f'Bearer realm="{document.NAME}"', "X-Reason": "expired"}


@pytest.mark.parametrize(
    ("requirements", "without"),
    [
        ([{"ApiKey": []}], []),
        ([{"ApiKey": []}, {}], []),
        ([{"ApiKey": []}, {"Password": []}], [{"ApiKey": []}, {"Password": []}]),
        ([{"ApiKey": [], "HeaderKey": []}], [{"ApiKey": [], "HeaderKey": []}]),
        ([{"Jwt": []}], [{"Jwt": []}]),
        ([], []),
    ],
)
def test_api_keys_are_not_required_before_there_is_one(requirements: list[Any], without: list[Any]) -> None:
    """The published document says what the service does; a requirement of other credentials stays."""
    contract = {
        "components": {"securitySchemes": SCHEMES},
        "security": requirements,
        "paths": {"/a": {"parameters": [], "get": {"security": requirements}, "put": {}}},
    }
    edited = {**contract, "security": without}
    edited["paths"] = {"/a": {"parameters": [], "get": {"security": without}, "put": {}}}
    none = Keys(required=False)

    assert without_keys(contract) == edited
    assert without_keys({"paths": {}}) == {"paths": {}}
    if not without:
        assert call(access(*requirements, keys=none)) is None
    else:
        assert refuse(access(*requirements, keys=none)).status_code == 401
    assert none.refreshes == ("ApiKey" in str(requirements))


@pytest.mark.parametrize(
    ("requirement", "change", "message"),
    [
        (
            {"Nobody": []},
            {},
            "paths./a.get.security: Nobody is not declared; declare it in components.securitySchemes.",
        ),
        ({"ApiKey": ["read"]}, {}, "paths./a.get.security: ApiKey has no scopes; write an empty list."),
        ({"Password": ["read"]}, {}, "paths./a.get.security: Password has no scopes; write an empty list."),
        (
            {"X": []},
            {"type": "http", "scheme": "digest"},
            "components.securitySchemes.X: digest is not supported; use b",
        ),
        ({"X": []}, {"type": "http"}, "components.securitySchemes.X: http is not supported; use bearer, "),
        ({"X": []}, {"type": "mutualTLS"}, "components.securitySchemes.X: mutualTLS is not supported; use bearer, "),
        ({"X": []}, {"type": "apiKey", "in": "body", "name": "a"}, "components.securitySchemes.X: write the name of "),
        ({"X": []}, {"type": "apiKey", "in": "query"}, "components.securitySchemes.X: write the name of the API key, "),
        *(
            (
                {name: []},
                {"type": "oauth2"},
                f"components.securitySchemes.{name}: write its check in handlers/security.py: async def {function}("
                "credential: str, scopes: list[str]) -> str | None.",
            )
            for name, function in (("X-Y", "x_y"), ("Synchronous", "synchronous"), ("OneArgument", "one_argument"))
        ),
        (
            {"X": []},
            {"type": "http", "scheme": "basic"},
            "components.securitySchemes.X: write its check in handlers/security.py: async def x(user: str, password: ",
        ),
    ],
)
def test_faults(
    requirement: dict[str, list[str]], change: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one_argument(token: str) -> str:
        return token

    functions = SimpleNamespace(
        password=password, synchronous=lambda credential, scopes: credential, one_argument=one_argument
    )
    use(monkeypatch, SCHEMES | {name: change for name in requirement if change}, functions)

    with pytest.raises(FaultError) as fault:
        Access("paths./a.get.security", [requirement], Keys())

    assert str(fault.value).startswith(message)


def test_unused_schemes_need_no_function(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SCHEMES, None)

    assert call(access({"ApiKey": []}), ("Authorization", "Bearer key")) == "app"
