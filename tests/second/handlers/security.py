"""Check the credentials of each security scheme: return who sent them, or None if they are not valid."""

from handlers.contract.problems import Refusal

SCOPES = {"token-read": {"read"}, "token-write": {"read", "write"}}


async def desk(user: str, password: str) -> str | None:
    return user if (user, password) == ("ada", "secret") else None


async def badge(credential: str, scopes: list[str]) -> str | None:
    return "badge" if credential == "badge-1" else None


async def kiosk_code(credential: str, scopes: list[str]) -> str | None:
    return "kiosk" if credential == "kiosk-1" else None


async def session(credential: str, scopes: list[str]) -> str | None:
    return "session" if credential == "session-1" else None


async def account(credential: str, scopes: list[str]) -> str | None:
    if credential in SCOPES and not set(scopes) <= SCOPES[credential]:
        raise Refusal(403)
    return credential if credential in SCOPES else None


async def directory(credential: str, scopes: list[str]) -> str | None:
    return "staff" if credential == "staff-1" else None
