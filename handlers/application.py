"""Create the application: all objects that requests need, and the middleware stack in order."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import HttpUrl
from starlette.routing import Router

from handlers.access.cross_origin import CrossOrigin
from handlers.access.security import Security, find_access
from handlers.compression import compressed
from handlers.contract import dispatch, document, responses, routing
from handlers.contract.framework import ConnexionMiddleware, Resolver
from handlers.contract.public_url import PublicUrl
from handlers.contract.scope import RequestState
from handlers.documentation import pages
from handlers.idempotency import IdempotencyKeys
from handlers.lookup import find_handlers
from handlers.observability import access_log, health
from handlers.services import Services
from handlers.settings import ServerSettings
from models.database.address import open_database
from models.database.errors import ConfigurationError
from models.keys import KeyCache

CANCEL_TIMEOUT = 1  # seconds to wait at shutdown for background work that was cancelled


def create_app(settings: ServerSettings | None = None) -> ConnexionMiddleware:
    """Create the application. Without `settings`, read the settings from the environment.

    Raise ConfigurationError with a line for each fault if the contract cannot be served.
    """
    settings = settings or ServerSettings()
    database = open_database(settings.database_url, settings.database_connections)
    keys = KeyCache(database)
    idempotency = IdempotencyKeys(database, timedelta(hours=settings.idempotency_hours))
    faults: list[str] = []
    handlers = find_handlers(Services(database, idempotency), faults)
    access = find_access(keys, faults)
    if settings.validate_responses:
        responses.check(faults)
    if faults:
        raise ConfigurationError("\n".join(f"{document.PATH.name}: {fault}" for fault in dict.fromkeys(faults)))
    operations = {name: compressed(name, handler, settings.gzip_min_size) for name, handler in handlers.items()}
    open_routes = [*pages.routes(keys), *health.routes(database)]
    public_url = settings.public_url and str(HttpUrl(settings.public_url)).rstrip("/")
    origins = settings.allowed_origins.replace(",", " ").split()
    observers = [access_log.write] if settings.access_log else []
    background = [keys.refresh_forever, idempotency.purge]
    if settings.metrics:
        from handlers.observability import metrics  # noqa: PLC0415, installed with an extra

        observers.append(metrics.count)
        background.append(partial(metrics.watch, database))
    checks: list[dispatch.Check] = [Security(open_routes, access)]
    if settings.rate_limit:
        from handlers.access.rate_limits import RateLimits  # noqa: PLC0415, installed with an extra

        checks.insert(0, RateLimits(keys, settings.rate_limit, settings.rate_limit_storage))

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[RequestState]:
        await database.start()
        running = [asyncio.create_task(run()) for run in background]
        # Exclude the existing objects from garbage collection. A full collection of them would take 30 to 40 ms.
        gc.collect()
        gc.freeze()
        yield {"observers": observers, "public_url": public_url}
        for work in running:
            work.cancel()
        # Otherwise the end of the event loop would cancel a query that is being cancelled already.
        await asyncio.wait(running, timeout=CANCEL_TIMEOUT)
        await database.shut_down()

    app = ConnexionMiddleware(
        # Redirects to paths with or without a final slash would not have the prefix of a proxy.
        Router(open_routes, redirect_slashes=False, default=routing.without_operation, lifespan=lifespan),
        middlewares=[
            *([partial(CrossOrigin, origins=origins)] if origins else []),
            *([responses.ResponseValidation] if settings.validate_responses else []),
            *([partial(PublicUrl, public_url=public_url)] if public_url else []),
            partial(dispatch.Dispatch, checks=checks),
        ],
        resolver=Resolver(operations.get),
    )
    app.add_api(_routed_parts())
    return app


def _routed_parts() -> dict[str, Any]:
    """Return the parts of the contract that Connexion uses: operation ids, and full paths.

    Connexion refuses OpenAPI 3.1, and would resolve every reference in the schemas again.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation_id, operation in document.operations().items():
        routed = {"operationId": operation_id, "responses": {"default": {"description": ""}}}
        paths.setdefault(operation.path, {})[operation.method.lower()] = routed
    return {"openapi": "3.0.3", "info": {"title": "", "version": ""}, "paths": paths}
