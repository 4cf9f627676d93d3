"""API keys: the table, the functions behind the commands, and the cache that every request uses."""

import asyncio
from contextlib import suppress
from hashlib import sha256
from secrets import token_urlsafe
from time import monotonic

import peewee

from models.database.address import Database, connected
from models.database.clock import now
from models.database.errors import ConfigurationError, UnavailableError
from models.database.statements import Statement

BYTES = 32
# Seconds between refreshes of the cache.
REFRESH_INTERVAL = 0.25
# Seconds until the cache is stale. So every node rejects a revoked key within a second.
CACHE_TTL = 0.9
# Seconds that a request waits for a stale cache to be refreshed.
TIMEOUT = 2.0


class ApiKey(peewee.Model):
    """A row of the table: an API key. Revoked keys stay, so that a service that had keys never becomes open."""

    name = peewee.TextField(primary_key=True)
    hash = peewee.BlobField()
    created_at = peewee.TextField(default=now)
    revoked_at = peewee.TextField(null=True)

    class Meta:
        table_name = "api_key"


class KeyCache:
    """A cache of all API keys. `refresh_forever` keeps it up to date, so that requests do not wait for the database."""

    def __init__(self, database: Database) -> None:
        # A key is required until the first refresh, and after that if any key has ever existed.
        self.required = True
        self._had_keys = False
        self._names: dict[bytes, str] = {}
        self.fresh_until = 0.0
        self._error: Exception | None = None
        # Requests that find the cache stale set `_is_stale`. A refresh sets `_refreshed` briefly, to wake them.
        self._is_stale, self._refreshed = asyncio.Event(), asyncio.Event()
        self._database = database
        self._select = Statement(ApiKey.select(ApiKey.name, ApiKey.hash, ApiKey.revoked_at), database)

    async def refresh_forever(self) -> None:
        """Refresh the cache until cancelled."""
        while True:
            await self.refresh()
            self._is_stale.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_stale.wait(), REFRESH_INTERVAL)

    async def refresh(self) -> None:
        """Read the keys from the database, and wake the requests that wait for a refresh."""
        started = monotonic()
        try:
            rows = await self._database.read(self._select.sql, [])
        except Exception as error:
            self._error = error
        else:
            self._names = {digest: name for name, digest, revoked_at in rows if not revoked_at}
            self.required = self._had_keys = self._had_keys or bool(rows)
            self.fresh_until, self._error = started + CACHE_TTL, None
        self._refreshed.set()
        self._refreshed.clear()

    async def ensure_fresh(self) -> None:
        """Wait for a refresh if the cache is stale. Raise an error if the refresh failed."""
        if monotonic() < self.fresh_until:
            return
        self._is_stale.set()
        try:
            await asyncio.wait_for(self._refreshed.wait(), TIMEOUT)
        except TimeoutError:
            raise UnavailableError("cannot read the API keys: the database takes too long") from None
        if isinstance(self._error, UnavailableError):
            raise UnavailableError(f"cannot read the API keys: {self._error}")
        if self._error:
            raise RuntimeError("cannot read the API keys") from self._error

    def name_of(self, key: bytes) -> str | None:
        """Return the name of a valid key, else None."""
        # The duration of the lookup may reveal something about a hash, but nothing about a key.
        return self._names.get(sha256(key).digest())


def create(url: str, name: str, prefix: str) -> str:
    """Store a new key in the database at a URL, and return it. The database keeps only its hash.

    Secret scanners find leaked keys by their prefix.
    """
    key = prefix + token_urlsafe(BYTES)
    # A fast hash is enough, because nobody can try 2 ** 256 keys.
    digest = sha256(key.encode()).digest()
    values = {ApiKey.name: name, ApiKey.hash: digest, ApiKey.created_at: now(), ApiKey.revoked_at: None}
    query = ApiKey.insert(values).on_conflict(
        conflict_target=[ApiKey.name], update=values, where=ApiKey.revoked_at.is_null(False)
    )
    with connected(url) as database:
        if not list(query.returning(ApiKey.name).execute(database)):
            raise ConfigurationError(f"The key {name} exists already: revoke it first, or choose another name.")
    return key


def find_all(url: str) -> list[ApiKey]:
    """Return all keys in the database at a URL, including revoked ones, the oldest first."""
    with connected(url) as database:
        return list(ApiKey.select().order_by(ApiKey.created_at, ApiKey.name).execute(database))


def revoke(url: str, name: str) -> None:
    """Revoke a key in the database at a URL. Every node rejects the key within a second."""
    query = ApiKey.update({ApiKey.revoked_at: now()}).where((ApiKey.name == name) & ApiKey.revoked_at.is_null())
    with connected(url) as database:
        if not query.execute(database):
            raise ConfigurationError(f"No valid key has the name {name}: the command key list shows all keys.")
