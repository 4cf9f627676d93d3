"""Idempotency keys: run a retried request once, and replay its first response.

The response is stored in the same transaction as the work, so that there is never one without the other. A fingerprint
tells a retry from a different request with the same key (draft-ietf-httpapi-idempotency-key-header-07).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar

from pydantic import BaseModel

from handlers.contract import document
from handlers.contract.problems import Refusal
from handlers.contract.reply import Reply
from models.answers import Answer, AnswerQueries
from models.database.address import Database
from models.database.statements import Execute

REPLAYED = {"Idempotency-Replayed": "true"}
# Purge expired responses this many times per retention period.
PURGES_PER_RETENTION = 100

Body = TypeVar("Body", bound=BaseModel)

logger = logging.getLogger(__name__)


class IdempotencyKeys:
    """Runs requests with an idempotency key once.

    Args:
        database: Stores the responses beside the tables that requests change.
        retention: How long a response is kept.
    """

    def __init__(self, database: Database, retention: timedelta) -> None:
        self._database = database
        self._retention = retention
        self._answers = AnswerQueries(database)
        self._running: set[bytes] = set()

    async def run(
        self,
        operation_id: str,
        work: Callable[[Execute, Body], Coroutine[Any, Any, Reply]],
        body: Body,
        caller: bytes,
        key: str | None,
    ) -> Reply:
        """Run the work of a request in a transaction, or replay the response of its first run.

        Args:
            operation_id: The requested operation.
            work: Carries out the request inside of the transaction.
            body: The body of the request, passed to the work.
            caller: The client; idempotency keys of different clients are independent.
            key: The idempotency key; None to run the work unconditionally.

        Raises:
            Refusal: 409 while the first request with this key is running, 422 if that was a different request.
        """
        if key is None:
            reply: Reply = await self._database.write(work, body)
            return reply
        name = sha256(caller + b"\n" + key.encode()).digest()
        fingerprint = sha256(f"{operation_id} {body.model_dump_json()}".encode()).digest()

        async def replay_or_run(execute: Execute) -> Reply:
            kept = await self._answers.find(execute, name)
            if not kept:
                reply = await work(execute, body)
                answer = Answer(fingerprint, document.success_status(operation_id), reply.headers, reply.body)
                await self._answers.insert(execute, name, answer)
                return reply
            if kept.fingerprint != fingerprint:
                raise Refusal(422)
            return Reply(kept.body, {**kept.headers, **REPLAYED}, kept.status)

        if name in self._running:
            raise Refusal(409)
        self._running.add(name)
        try:
            reply = await self._database.write_atomically(replay_or_run)
            return reply
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
