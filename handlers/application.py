"""Make the application: everything that a request needs, and the middleware stack in order."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from connexion import ConnexionMiddleware
from connexion.resolver import Resolver
from inflection import underscore
from starlette.routing import Router

from handlers.access.cross_origin import CrossOrigin
from handlers.access.security import BearerKey, Security
from handlers.contract import document
from handlers.contract.dispatch import Dispatch
from handlers.contract.problems import Problems
from handlers.contract.responses import ResponseValidation
from handlers.contract.routing import Routing, without_operation
from handlers.contract.scope import RequestState
from handlers.documentation import pages
from handlers.idempotency import IdempotencyKeys
from handlers.observability import health
from handlers.observability.observation import Observation, observers
from handlers.settings import ServerSettings
from handlers.tasks import TaskHandlers
from models.database.address import Database, open_database
from models.database.errors import ConfigurationError
from models.keys import KeyCache


def create_app(settings: ServerSettings | None = None) -> ConnexionMiddleware:
    """Make the application.

    Args:
        settings: None to read them from the environment.
    """
    settings = settings or ServerSettings()
    database = open_database(settings.database_url, settings.database_connections)
    keys = KeyCache(database)
    idempotency = IdempotencyKeys(database, timedelta(hours=settings.idempotency_hours))
    handlers = TaskHandlers(database, idempotency)
    open_routes = [*pages.routes(settings.public_url, keys), *health.routes(database)]

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[RequestState]:
        await database.start()
        background = [asyncio.create_task(work) for work in (keys.refresh_forever(), idempotency.purge())]
        background += [asyncio.create_task(watch(database)) for watch in _metrics(settings)]
        # Exclude what exists now from garbage collection: a full collection would take 30 to 40 ms now and then.
        gc.collect()
        gc.freeze()
        yield {"observers": observers(settings)}
        for task in background:
            task.cancel()
        await database.shut_down()

    app = ConnexionMiddleware(
        Router(open_routes, default=without_operation, lifespan=lifespan),
        middlewares=[
            *([Observation] if observers(settings) else []),
            *_cross_origin(settings),
            # Its errors are answered by the Problems outside of it.
            *([Problems, ResponseValidation] if settings.validate_responses else []),
            Problems,
            Routing,
            *_rate_limits(settings, keys),
            partial(Security, keys=keys, open_routes=open_routes),
            Dispatch,
        ],
        resolver=Resolver(lambda operation_id: getattr(handlers, underscore(operation_id))),
        # Requests that match no operation need a key too.
        auth_all_paths=True,
        security_map={"bearer": partial(BearerKey, keys)},
    )
    app.add_api(document.raw())
    return app


def check_handlers() -> None:
    """Check that every operation has a handler.

    Raises:
        ConfigurationError: An operation has none.
    """
    for operation_id in document.operations():
        if not callable(getattr(TaskHandlers, underscore(operation_id), None)):
            raise ConfigurationError(
                f"{document.PATH.name}: the operation {operation_id} has no handler: add the method"
                f" {underscore(operation_id)} to handlers/tasks.py."
            )


def _metrics(settings: ServerSettings) -> list[Callable[[Database], Any]]:
    if not settings.metrics:
        return []
    from handlers.observability import metrics  # noqa: PLC0415, installed with an extra

    return [metrics.watch]


def _cross_origin(settings: ServerSettings) -> list[Any]:
    origins = settings.allowed_origins.replace(",", " ").split()
    return [partial(CrossOrigin, origins=origins)] if origins else []


def _rate_limits(settings: ServerSettings, keys: KeyCache) -> list[Any]:
    if not settings.rate_limit:
        return []
    from handlers.access.rate_limits import RateLimits  # noqa: PLC0415, installed with an extra

    limits = partial(RateLimits, keys=keys, rate_limit=settings.rate_limit, storage=settings.rate_limit_storage)
    # The refusals behind it get its headers too.
    return [limits, Problems]
