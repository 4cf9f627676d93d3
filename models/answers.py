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


class AnswerQueries:
    """The SQL statements for the table, rendered once per database."""

    def __init__(self, database: Database) -> None:
        columns = {name: parameter(name) for name in KeptAnswer._meta.fields}
        response = {name: parameter(name) for name in Answer._fields}
        with_key = KeptAnswer.key == parameter("key")
        select = KeptAnswer.select(*(getattr(KeptAnswer, name) for name in response)).where(with_key)
        # The row may not be on the synchronous standby yet. A transaction that locks it waits for that when it commits.
        self._select = Statement(select if database.embedded else select.for_update(), database)
        self._reserve = Statement(KeptAnswer.insert(columns).on_conflict_ignore().returning(KeptAnswer.key), database)
        self._update = Statement(KeptAnswer.update(response).where(with_key), database)
        expired = KeptAnswer.select(KeptAnswer.key).where(KeptAnswer.created_at < parameter("before"))
        oldest = expired.order_by(KeptAnswer.created_at).limit(parameter("count"))
        delete = KeptAnswer.delete().where(KeptAnswer.key.in_(oldest))
        self._delete = Statement(delete.returning(KeptAnswer.key), database)

    async def find_or_reserve(self, execute: Execute, key: bytes) -> Answer | None:
        """Return the response that is stored for a key. If there is none, reserve the key and return None.

        Only this transaction sees the reserved row. Another one that needs the key waits until this one ends.
        """
        row = {"key": key, "fingerprint": b"", "status": 0, "headers": "{}", "body": b"", "created_at": now()}
        while not await execute(self._reserve.sql, self._reserve.order(row)):
            # A purge may have deleted the row since then.
            if rows := await execute(self._select.sql, [key]):
                fingerprint, status, headers, body = rows[0]
                return Answer(fingerprint, status, json.loads(headers), body)
        return None

    async def store(self, execute: Execute, key: bytes, answer: Answer) -> None:
        """Store the response for a key that this transaction has reserved."""
        values = {**answer._asdict(), "headers": json.dumps(answer.headers), "key": key}
        await execute(self._update.sql, self._update.order(values))

    async def delete_some(self, execute: Execute, age: timedelta) -> int:
        """Delete some responses that are older than `age`, the oldest first, and return how many."""
        return len(await execute(self._delete.sql, [now(age), PURGE_LIMIT]))
