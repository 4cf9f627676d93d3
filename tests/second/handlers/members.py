"""The operations on members: plain functions with generated models."""

from typing import Any
from uuid import uuid4

from handlers.contract.problems import Refusal
from handlers.contract.reply import Reply

FIRST = "00000000-0000-4000-8000-000000000001"

members: dict[str, dict[str, Any]] = {FIRST: {"kind": "school", "name": "First School", "pupils": 300}}


def stored(member_id: str) -> dict[str, Any]:
    """Return a member without the password, which nobody may read. Raise Refusal if there is none."""
    if member_id not in members:
        raise Refusal(404)
    member = {name: value for name, value in members[member_id].items() if name != "password"}
    return {"memberId": member_id, "member": member}


async def list_members(
    x_floors: list[int] | None, x_is_staff: bool | None, theme: str, recent: list[int] | None
) -> dict[str, Any]:
    known = {"theme": theme, "recent": recent, "floors": x_floors, "staff": x_is_staff}
    page = [stored(member_id)["member"] for member_id in list(members)[:20]]
    return {"members": page, **{name: value for name, value in known.items() if value is not None}}


async def create_member(body: dict[str, Any]) -> dict[str, Any]:
    member_id = str(uuid4())
    members[member_id] = body
    return stored(member_id)


async def get_member(member_id: str) -> dict[str, Any]:
    return stored(member_id.lower())


async def update_member(member_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Apply a merge patch (RFC 7396): null removes a property."""
    member_id = member_id.lower()
    stored(member_id)
    members[member_id] = {name: value for name, value in (members[member_id] | body).items() if value is not None}
    return stored(member_id)


async def send_message(member_id: str, body: dict[str, Any]) -> Reply:
    stored(member_id.lower())
    return Reply(body)
