"""The services that handlers use."""

from typing import NamedTuple

from handlers.idempotency import IdempotencyKeys
from models.database.address import Database


class Services(NamedTuple):
    """What `create_app` passes to the constructors of handlers.

    `database` reads and writes; `idempotency` runs a request with an idempotency key once.
    """

    database: Database
    idempotency: IdempotencyKeys
