"""Idempotency keys: a request that is sent again, because its answer was lost, is done once.

The answer is kept in the transaction that does what it tells of, so that there is never one without the other. Whether
a key still names the same request shows in a fingerprint of it (draft-ietf-httpapi-idempotency-key-header-07).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar

from pydantic import BaseModel

from handlers.contract import document as contract
from handlers.contract.problems import Refusal
from handlers.contract.reply import Reply
from models import answers
from models.database.address import database
from models.database.statements import Execute

REPLAYED = {"Idempotency-Replayed": "true"}
# So often in the time for which an answer is kept, those are looked for that were kept for longer.
ROUNDS = 100

Body = TypeVar("Body", bound=BaseModel)

logger = logging.getLogger(__name__)
_running: set[bytes] = set()


async def once(
    operation_id: str,
    work: Callable[[Execute, Body], Coroutine[Any, Any, Reply]],
    body: Body,
    caller: bytes,
    key: str | None,
) -> Reply:
    """Do the work of a request, unless it was done before; then give the first answer again.

    Args:
        operation_id: The operation that is asked for.
        work: Does it, inside of a transaction.
        body: What it is done with.
        caller: Who asks; the keys of two callers have nothing to do with each other.
        key: The idempotency key; None for work that is done each time.

    Raises:
        Refusal: 409 while the first request with this key is running, 422 if that was another one.
    """
    if key is None:
        reply: Reply = await database.write(work, body)
        return reply
    name = sha256(caller + b"\n" + key.encode()).digest()
    fingerprint = sha256(f"{operation_id} {body.model_dump_json()}".encode()).digest()

    async def find_or_do(execute: Execute) -> Reply:
        kept = await answers.find(execute, name)
        if not kept:
            reply = await work(execute, body)
            status = contract.success(operation_id)
            await answers.keep(execute, name, answers.Answer(fingerprint, status, reply.headers, reply.body))
            return reply
        if kept.fingerprint != fingerprint:
            raise Refusal(422)
        return Reply(kept.body, {**kept.headers, **REPLAYED}, kept.status)

    if name in _running:
        raise Refusal(409)
    _running.add(name)
    try:
        reply = await database.write_together(find_or_do)
        return reply
    finally:
        _running.remove(name)


async def forget(age: timedelta) -> None:
    """Remove, as long as the service runs, the answers that are older than `age`; a few at a time."""
    while True:
        try:
            while await database.write(answers.remove_some, age):
                pass
        except Exception as error:
            logger.warning("Old answers to requests with an idempotency key are removed later: %s", error)
        await asyncio.sleep((age / ROUNDS).total_seconds())
