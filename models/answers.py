"""The table of stored responses to requests with an idempotency key, and its queries."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

import peewee

from models.database.address import Database
from models.database.clock import now
from models.database.statements import Execute, Statement, parameter

# Number of rows that one purge deletes, while other writes wait.
PURGE_LIMIT = 100


class KeptAnswer(peewee.Model):
    """A row of the table: a stored response."""

    key = peewee.BlobField(primary_key=True)
    fingerprint = peewee.BlobField()
    status = peewee.IntegerField()
    headers = peewee.TextField()
    body = peewee.BlobField()
    created_at = peewee.TextField(default=now, index=True)

    class Meta:
        table_name = "kept_answer"


class Answer(NamedTuple):
    """A stored response, with the fingerprint of its request."""

    fingerprint: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes


# The content of a row before the response is known. No other transaction sees it.
EMPTY = Answer(b"", 0, {}, b"")


class AnswerQueries:
    """The SQL statements for the table, rendered once per database."""

    def __init__(self, database: Database) -> None:
        answer = (getattr(KeptAnswer, name) for name in Answer._fields)
        columns = {name: parameter(name) for name in KeptAnswer._meta.fields}
        with_key = KeptAnswer.key == parameter("key")
        self._select = Statement(KeptAnswer.select(*answer).where(with_key), database)
        claim = KeptAnswer.insert(columns).on_conflict_ignore().returning(KeptAnswer.key)
        self._claim = Statement(claim, database)
        self._update = Statement(
            KeptAnswer.update({name: parameter(name) for name in Answer._fields}).where(with_key), database
        )
        expired = KeptAnswer.select(KeptAnswer.key).where(KeptAnswer.created_at < parameter("before"))
        oldest = expired.order_by(KeptAnswer.created_at).limit(parameter("count"))
        delete = KeptAnswer.delete().where(KeptAnswer.key.in_(oldest))
        self._delete = Statement(delete.returning(KeptAnswer.key), database)

    async def find(self, execute: Execute, key: bytes) -> Answer | None:
        """Return the response that is stored for a key, or None."""
        rows = await execute(self._select.sql, [key])
        if not rows:
            return None
        fingerprint, status, headers, body = rows[0]
        return Answer(fingerprint, status, json.loads(headers), body)

    async def claim(self, execute: Execute, key: bytes) -> bool:
        """Reserve a key in this transaction, and return whether it was free.

        If another transaction has reserved the key, PostgreSQL waits until it has stored the response or failed.
        """
        values = {**EMPTY._asdict(), "headers": "", "key": key, "created_at": now()}
        return bool(await execute(self._claim.sql, self._claim.order(values)))

    async def store(self, execute: Execute, key: bytes, answer: Answer) -> None:
        """Store the response for a key that this transaction has reserved."""
        values = {**answer._asdict(), "headers": json.dumps(answer.headers), "key": key}
        await execute(self._update.sql, self._update.order(values))

    async def delete_some(self, execute: Execute, age: timedelta) -> int:
        """Delete some responses that are older than `age`, the oldest first, and return how many."""
        return len(await execute(self._delete.sql, [now(age), PURGE_LIMIT]))
