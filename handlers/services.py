"""The objects that all requests share, which handlers receive."""

from typing import NamedTuple

from handlers.idempotency import IdempotencyKeys
from models.database.address import Database


class Services(NamedTuple):
    """The argument of a `Handlers` constructor: the database, and the idempotency keys."""

    database: Database
    idempotency: IdempotencyKeys
