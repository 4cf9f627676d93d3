"""Idempotency keys: run a retried request once, and replay its first response.

The response is stored in the transaction of the write, so that one never exists without the other. A fingerprint shows
whether a request with the same key is a retry (draft-ietf-httpapi-idempotency-key-header-07).
"""

import asyncio
import logging
from datetime import timedelta
from hashlib import sha256

from pydantic import BaseModel

from handlers.contract.problems import Refusal
from handlers.contract.reply import Reply, encoded
from models.answers import Answer, AnswerQueries
from models.database.address import Database
from models.database.statements import Execute, Work

REPLAYED = {"Idempotency-Replayed": "true"}
# Purge expired responses this many times per retention period.
PURGES_PER_RETENTION = 100

logger = logging.getLogger(__name__)


class IdempotencyKeys:
    """Runs requests with an idempotency key once, and keeps each response for the retention period."""

    def __init__(self, database: Database, retention: timedelta) -> None:
        self._database = database
        self._retention = retention
        self._answers = AnswerQueries(database)
        self._running: set[bytes] = set()

    async def run(self, scope: str, work: Work[Reply], body: BaseModel, caller: bytes, key: str | None) -> Reply:
        """Run the write of a request in a transaction, or replay the first response for its idempotency key.

        The keys of different callers are independent; `scope` names the operation, which a retry shares. Without a
        key, the write always runs.

        Raises:
            Refusal: 409 while the first request with this key is running, 422 if this one differs from it.
        """
        if key is None:
            return await self._database.write(work, body)
        name = sha256(caller + b"\n" + key.encode()).digest()
        fingerprint = sha256(f"{scope} {body.model_dump_json()}".encode()).digest()

        async def replay_or_run(execute: Execute) -> Reply:
            kept = await self._answers.find_or_reserve(execute, name)
            if not kept:
                reply = await work(execute, body)
                # The status 0 stands for the operation's successful status, too.
                answer = Answer(fingerprint, reply.status or 0, reply.headers, encoded(reply.body, b"application/json"))
                await self._answers.store(execute, name, answer)
                return reply
            if kept.fingerprint != fingerprint:
                raise Refusal(422, "IdempotencyKeyReused")
            return Reply(kept.body, {**kept.headers, **REPLAYED}, kept.status or None)

        if name in self._running:
            raise Refusal(409, "FirstRequestRunning", headers={"Retry-After": "1"})
        self._running.add(name)
        try:
            return await self._database.write_atomically(replay_or_run)
        finally:
            self._running.remove(name)

    async def purge(self) -> None:
        """Delete expired responses, some at a time, until cancelled."""
        while True:
            try:
                while await self._database.write(self._answers.delete_some, self._retention):
                    pass
            except Exception as error:
                logger.warning("Cannot purge expired responses to idempotent requests; retrying later: %s", error)
            await asyncio.sleep((self._retention / PURGES_PER_RETENTION).total_seconds())
