"""Conditional requests: entity tags (RFC 9110, section 8.8.3) and preconditions (section 13.1)."""

import re
from hashlib import sha256

from handlers.contract.reply import Reply

TAG = re.compile(r'(W/)?("[^"]*")')
ANY = "*"


def of_version(version: int, fingerprint: str) -> str:
    """Return the entity tag of a version of a row. The fingerprint identifies the JSON format."""
    return f'"{version}-{fingerprint}"'


def of_content(*content: bytes) -> str:
    """Return an entity tag that is the hash of the content."""
    return f'"{sha256(b"".join(content)).hexdigest()[:32]}"'


def versions(if_match: str | None, fingerprint: str) -> set[int] | None:
    """Return the versions that If-Match names, or None if it accepts every version."""
    if if_match in (None, ANY):
        return None
    ours = re.compile(rf'"([1-9][0-9]{{0,17}})-{fingerprint}"')
    matches = (ours.fullmatch(tag) for weak, tag in TAG.findall(if_match) if not weak)
    return {int(match[1]) for match in matches if match}


def not_modified_or(reply: Reply, if_none_match: str | None) -> Reply:
    """Return 304 if If-None-Match names the reply's entity tag, otherwise the reply."""
    if if_none_match is None:
        return reply
    matches = if_none_match == ANY or reply.headers["ETag"] in (tag for _, tag in TAG.findall(if_none_match))
    return Reply(b"", reply.headers, 304) if matches else reply
