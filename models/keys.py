"""The keys with which callers say who they are; of each, only a hash is kept."""

import asyncio
from functools import cache
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from time import monotonic

import peewee

from models.database.address import connected, database
from models.database.clock import now
from models.database.errors import ConfigurationError, UnavailableError
from models.database.statements import Statement, render

# With this the keys begin, so that one which got into a log or a repository is found there.
PREFIX = "tasks_"
BYTES = 32
# For so many seconds the keys are taken to be what they were: to look at them takes longer than a request.
TRUST = 0.5
# For so many seconds a request waits until it is known which keys there are.
PATIENCE = 2.0
# By so many bytes of its hash a key is found. Who measures how long that takes learns something of the hash, and
# nothing of the key.
FINDER = 8


class ApiKey(peewee.Model):
    """A row of the table; one that was revoked stays, because a service that once had keys must not open by itself."""

    name = peewee.TextField(primary_key=True)
    hash = peewee.BlobField()
    created_at = peewee.TextField(default=now)
    revoked_at = peewee.TextField(null=True)

    class Meta:
        database = database
        table_name = "api_key"


class KeyRing:
    """The keys as a process knows them; `refresh` keeps them right."""

    def __init__(self) -> None:
        # Until it is known whether there are keys, and from when there were some, one is required.
        self.required = True
        self.fresh_until = -1.0
        self._look: asyncio.Task[None] | None = None
        self._kept: dict[bytes, tuple[bytes, str]] = {}
        self._had_keys = False

    async def refresh(self) -> None:
        """Look at the keys again, if the last look is too long ago; all who wait share one look.

        Raises:
            UnavailableError: The database is out of reach, or takes too long.
        """
        if monotonic() < self.fresh_until:
            return
        # Another caller may start the next refresh while this one still waits to go on.
        refresh = self._look
        if not refresh or refresh.done():
            refresh = self._look = asyncio.create_task(self._look_again())
            # Nobody may be left to be told that it failed.
            refresh.add_done_callback(lambda refresh: refresh.cancelled() or refresh.exception())
        # A timeout must not cancel the refresh, since other callers wait for it too.
        done, _ = await asyncio.wait([refresh], timeout=PATIENCE)
        if not done:
            raise UnavailableError("the keys cannot be looked at: the database takes too long")
        refresh.result()

    async def _look_again(self) -> None:
        started = monotonic()
        rows = await database.read(_select().sql, [])
        self._kept = {digest[:FINDER]: (digest, name) for name, digest, revoked in rows if not revoked}
        self._had_keys |= bool(rows)
        self.required = self._had_keys
        self.fresh_until = started + TRUST

    def name_of(self, key: bytes) -> str | None:
        """Return the name of a key, or None if it is none, or was revoked."""
        digest = _digest(key)
        kept, name = self._kept.get(digest[:FINDER], (b"", ""))
        return name if compare_digest(kept, digest) else None


ring = KeyRing()


def create(url: str, name: str) -> str:
    """Keep a new key, and return it; nobody can tell it later.

    Args:
        url: The database, as `models.database.address.at` takes it.
        name: Whose it is; the name of a key that was revoked may be given again.

    Raises:
        ConfigurationError: There is a key with this name, or the database cannot be used.
    """
    key = PREFIX + token_urlsafe(BYTES)
    # As it is: what Peewee would make of it depends on the database that it was told of last.
    digest = peewee.Value(_digest(key.encode()), converter=False)
    values = {ApiKey.name: name, ApiKey.hash: digest, ApiKey.created_at: now(), ApiKey.revoked_at: None}
    query = ApiKey.insert(values).on_conflict(
        conflict_target=[ApiKey.name], update=values, where=ApiKey.revoked_at.is_null(False)
    )
    with connected(url) as used:
        if not list(query.returning(ApiKey.name).execute(used)):
            raise ConfigurationError(f"There is a key {name}: revoke it first, or choose another name.")
    return key


def find_all(url: str) -> list[ApiKey]:
    """Return every key that was made, also those that were revoked, the oldest first.

    Args:
        url: The database, as `models.database.address.at` takes it.

    Raises:
        ConfigurationError: The database cannot be used.
    """
    with connected(url) as used:
        return list(ApiKey.select().order_by(ApiKey.created_at, ApiKey.name).execute(used))


def revoke(url: str, name: str) -> None:
    """Let a key be valid no longer.

    Args:
        url: The database, as `models.database.address.at` takes it.
        name: Whose it is.

    Raises:
        ConfigurationError: There is no key with this name, or the database cannot be used.
    """
    query = ApiKey.update({ApiKey.revoked_at: now()}).where((ApiKey.name == name) & ApiKey.revoked_at.is_null())
    with connected(url) as used:
        if not query.execute(used):
            raise ConfigurationError(f"There is no key {name} to revoke: tasks-api key list shows all.")


def _digest(key: bytes) -> bytes:
    # A quick one will do, as nobody tries out 2 ** 256 keys.
    return sha256(key).digest()


@cache
def _select() -> Statement:
    return render(ApiKey.select(ApiKey.name, ApiKey.hash, ApiKey.revoked_at))
