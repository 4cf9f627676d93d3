"""The first answers to requests with an idempotency key, kept for as long as the requests may be sent again."""

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import NamedTuple

import peewee

from models.database.address import database
from models.database.clock import now
from models.database.statements import Execute, Statement, parameter, render

# So many are removed in one statement, for which the writes beside it have to wait.
BATCH = 100


class KeptAnswer(peewee.Model):
    """A row of the table."""

    key = peewee.BlobField(primary_key=True)
    fingerprint = peewee.BlobField()
    status = peewee.IntegerField()
    headers = peewee.TextField()
    body = peewee.BlobField()
    created_at = peewee.TextField(default=now, index=True)

    class Meta:
        database = database
        table_name = "kept_answer"


class Answer(NamedTuple):
    """An answer, and the fingerprint of the request that it was given to."""

    fingerprint: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes


async def find(execute: Execute, key: bytes) -> Answer | None:
    """Return the answer that is kept under a key."""
    rows = await execute(_find().sql, [key])
    if not rows:
        return None
    fingerprint, status, headers, body = rows[0]
    return Answer(fingerprint, status, json.loads(headers), body)


async def keep(execute: Execute, key: bytes, answer: Answer) -> None:
    """Keep an answer under a key."""
    values = {**answer._asdict(), "headers": json.dumps(answer.headers), "key": key, "created_at": now()}
    statement = _keep()
    await execute(statement.sql, statement.order(values))


async def remove_some(execute: Execute, age: timedelta) -> int:
    """Remove some of the answers that are older than `age`, the oldest first, and return how many."""
    return len(await execute(_remove().sql, [now(age), BATCH]))


@cache
def _find() -> Statement:
    columns = (getattr(KeptAnswer, name) for name in Answer._fields)
    return render(KeptAnswer.select(*columns).where(KeptAnswer.key == parameter("key")))


@cache
def _keep() -> Statement:
    return render(KeptAnswer.insert({name: parameter(name) for name in KeptAnswer._meta.fields}))


@cache
def _remove() -> Statement:
    old = KeptAnswer.select(KeptAnswer.key).where(KeptAnswer.created_at < parameter("before"))
    some = old.order_by(KeptAnswer.created_at).limit(parameter("count"))
    return render(KeptAnswer.delete().where(KeptAnswer.key.in_(some)).returning(KeptAnswer.key))
