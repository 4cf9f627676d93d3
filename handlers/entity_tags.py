"""Entity tags (RFC 9110, section 8.8.3), and what a request says with them (section 13.1)."""

import re
from hashlib import sha256

from handlers.contract.reply import Reply
from models import queries

TAG = re.compile(r'(W/)?("[^"]*")')
ANY = "*"


def of_task(task: queries.StoredTask) -> str:
    """Return the entity tag of a task: its version, and how tasks are written."""
    return f'"{task.version}-{queries.representation()}"'


def of_page(page: queries.Page) -> str:
    """Return the entity tag of a page: a digest of what it holds, and of whether another one follows."""
    digest = sha256(page.json)
    if page.more:
        digest.update(b"+")
    return f'"{digest.hexdigest()[:32]}"'


def versions(if_match: str | None) -> set[int] | None:
    """Return the versions of a task that If-Match names, or None if any will do."""
    if if_match in (None, ANY):
        return None
    ours = re.compile(rf'"([1-9][0-9]{{0,17}})-{queries.representation()}"')
    named = (ours.fullmatch(tag) for weak, tag in TAG.findall(if_match) if not weak)
    return {int(found[1]) for found in named if found}


def unless_known(reply: Reply, if_none_match: str | None) -> Reply:
    """Return the reply, or only that it is what If-None-Match names."""
    if if_none_match is None:
        return reply
    known = if_none_match == ANY or reply.headers["ETag"] in (tag for _, tag in TAG.findall(if_none_match))
    return Reply(b"", reply.headers, 304) if known else reply
