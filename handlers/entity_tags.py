"""Conditional requests: entity tags (RFC 9110, section 8.8.3) and preconditions (section 13.1)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1

from handlers.contract.problems import Refusal
from handlers.contract.reply import Reply
from models.database.errors import ChangedError

TAG = re.compile(r'(W/)?("[^"]*")')
# A tag without the closing quote, and the suffix of a compressed representation: `-gzip` (Apache, Caddy, this service),
# `--gzip` (Jetty), `;br`, `-df` (Traffic Server). The limits keep the time linear.
SUFFIX = r"[-;:+._]{1,2}(?:x-)?(?:gzip|gz|br|zstd|deflate|df)"
SUFFIXED = re.compile(rf'("[^"]*?)((?:{SUFFIX})?)(?:{SUFFIX}){{0,3}}"')
ANY = "*"


def of_version(version: int, fingerprint: str) -> str:
    """Return the entity tag of a version of a row. The fingerprint identifies the JSON format."""
    return f'"{version}-{fingerprint}"'


def of_content(*content: bytes) -> str:
    """Return an entity tag that is the hash of the content."""
    # Without support by the processor, SHA-1 takes half the time of SHA-256.
    return f'"{sha1(b"".join(content), usedforsecurity=False).hexdigest()[:32]}"'


def of_compressed(tag: str) -> str:
    """Return the entity tag of the gzip representation of a response (RFC 9110, section 8.8.3.3)."""
    return f'{tag[:-1]}-gzip"'


@contextmanager
def precondition(if_match: str | None, fingerprint: str) -> Iterator[set[int] | None]:
    """Yield the versions that If-Match names, or None if it accepts every version.

    Raise Refusal instead of ChangedError if a tag names the current version, but is weak or was altered by a proxy.
    """
    try:
        yield _versions(if_match, fingerprint)
    except ChangedError as error:
        if if_match and _weakly_equal(if_match, of_version(error.version, fingerprint)):
            raise Refusal(412, "EntityTagAltered") from None
        raise


def not_modified_or(reply: Reply, if_none_match: str | None) -> Reply:
    """Return 304 if If-None-Match names the reply's entity tag, otherwise the reply."""
    if if_none_match is None:
        return reply
    current = reply.headers["ETag"]
    tag = current if if_none_match == ANY else _weakly_equal(if_none_match, current)
    # The tag that the client sent identifies the response in its cache (RFC 9111, section 4.3.4).
    return Reply(b"", {**reply.headers, "ETag": tag}, 304) if tag else reply


def _versions(if_match: str | None, fingerprint: str) -> set[int] | None:
    if if_match in (None, ANY):
        return None
    ours = re.compile(rf'"([1-9][0-9]{{0,17}})-{fingerprint}"')
    matches = (ours.fullmatch(tag) for weak, tag in TAG.findall(if_match) if not weak)
    return {int(match[1]) for match in matches if match}


def _weakly_equal(tags: str, tag: str) -> str | None:
    """Return the first of `tags` that equals `tag` apart from W/ and suffixes; without W/, with at most one suffix."""
    found = ((f'{opaque}"', f'{opaque}{suffix}"') for opaque, suffix in SUFFIXED.findall(tags))
    return next((suffixed for plain, suffixed in found if tag in (plain, suffixed)), None)
