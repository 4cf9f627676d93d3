"""Create the application: all objects that requests need, and the middleware stack in order."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from connexion import ConnexionMiddleware
from connexion.resolver import Resolver
from inflection import underscore
from starlette.routing import Router

from handlers.access.cross_origin import CrossOrigin
from handlers.access.security import Access, Security, author_functions
from handlers.contract import dispatch, document, problems, responses, routing
from handlers.contract.scope import RequestState
from handlers.documentation import pages
from handlers.idempotency import IdempotencyKeys
from handlers.observability import access_log, health
from handlers.observability.observation import Observation
from handlers.services import Services
from handlers.settings import ServerSettings
from handlers.tasks import TaskHandlers
from models.database.address import open_database
from models.database.errors import ConfigurationError
from models.keys import KeyCache


def create_app(settings: ServerSettings | None = None) -> ConnexionMiddleware:
    """Create the application. Without `settings`, read the settings from the environment."""
    settings = settings or ServerSettings()
    database = open_database(settings.database_url, settings.database_connections)
    keys = KeyCache(database)
    idempotency = IdempotencyKeys(database, timedelta(hours=settings.idempotency_hours))
    handlers = TaskHandlers(Services(database, idempotency))
    contract, functions = document.resolved(), author_functions()
    schemes = contract.get("components", {}).get("securitySchemes", {})
    # Requests that match no operation need what the contract requires by default.
    described = [(None, "security", {}), *((name, *operation[1:]) for name, operation in document.operations().items())]
    access = {
        operation_id: Access(place, operation.get("security", contract.get("security", [])), schemes, keys, functions)
        for operation_id, place, operation in described
    }
    open_routes = [*pages.routes(settings.public_url.rstrip("/"), keys), *health.routes(database)]
    origins = settings.allowed_origins.replace(",", " ").split()
    observers = [access_log.write] if settings.access_log else []
    background = [keys.refresh_forever, idempotency.purge]
    if settings.metrics:
        from handlers.observability import metrics  # noqa: PLC0415, installed with an extra

        observers.append(metrics.count)
        background.append(partial(metrics.watch, database))
    rate_limits: list[Any] = []
    if settings.rate_limit:
        from handlers.access.rate_limits import RateLimits  # noqa: PLC0415, installed with an extra

        limits = partial(RateLimits, keys=keys, rate_limit=settings.rate_limit, storage=settings.rate_limit_storage)
        # The second `Problems` answers errors inside `RateLimits`, which then adds its headers to those responses too.
        rate_limits = [limits, problems.Problems]

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[RequestState]:
        await database.start()
        tasks = [asyncio.create_task(run()) for run in background]
        # Exclude the existing objects from garbage collection. A full collection of them would take 30 to 40 ms.
        gc.collect()
        gc.freeze()
        yield {"observers": observers}
        for task in tasks:
            task.cancel()
        await database.shut_down()

    app = ConnexionMiddleware(
        Router(open_routes, default=routing.without_operation, lifespan=lifespan),
        middlewares=[
            *([Observation] if observers else []),
            *([partial(CrossOrigin, origins=origins)] if origins else []),
            # The outer `Problems` answers the errors of `ResponseValidation`.
            *([problems.Problems, responses.ResponseValidation] if settings.validate_responses else []),
            problems.Problems,
            routing.Routing,
            *rate_limits,
            partial(Security, open_routes=open_routes, access=access),
            dispatch.Dispatch,
        ],
        resolver=Resolver(lambda operation_id: getattr(handlers, underscore(operation_id))),
    )
    app.add_api(document.raw())
    return app


def check_handlers() -> None:
    """Raise ConfigurationError if an operation has no handler."""
    for operation_id in document.operations():
        if not callable(getattr(TaskHandlers, underscore(operation_id), None)):
            raise ConfigurationError(
                f"{document.PATH.name}: the operation {operation_id} has no handler: add the method"
                f" {underscore(operation_id)} to handlers/tasks.py."
            )
