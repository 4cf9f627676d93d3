"""Makes the application: the contract, behind the few layers that a request goes through."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from connexion import ConnexionMiddleware, ProblemException
from connexion.resolver import Resolver
from inflection import underscore
from starlette.exceptions import HTTPException
from starlette.routing import Router

from handlers import idempotency, tasks
from handlers.access.cross_origin import CrossOrigin
from handlers.access.security import BearerKey, Security
from handlers.contract import document as contract
from handlers.contract import problems
from handlers.contract.dispatch import Dispatch
from handlers.contract.responses import ResponseValidation
from handlers.contract.routing import ContractRouting, without_operation
from handlers.documentation import pages as documentation
from handlers.observability import health, observation
from handlers.settings import ServerSettings
from models.database.address import bind, database
from models.database.errors import ChangedError, MissingError, UnavailableError


def create_app(settings: ServerSettings | None = None) -> ConnexionMiddleware:
    """Make the application.

    Args:
        settings: What is set; None for what the environment says.
    """
    settings = settings or ServerSettings()
    observers = observation.observers(settings)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[Mapping[str, Any]]:
        bind(settings.database_url, settings.database_connections)
        await database.start()
        background = [asyncio.create_task(idempotency.forget(timedelta(hours=settings.idempotency_hours)))]
        if settings.metrics:
            from handlers.observability import metrics  # noqa: PLC0415, as in observation.py

            background.append(asyncio.create_task(metrics.watch_database()))
        # What is there now stays: without this, a full collection now and then looks at all of it, for 30 to 40 ms.
        gc.collect()
        gc.freeze()
        yield {"observers": observers}
        for task in background:
            task.cancel()
        await database.shut_down()

    observed = [observation.Observation] if observers else []
    origins = settings.allowed_origins.replace(",", " ").split()
    cross_origin = [partial(CrossOrigin, origins=origins)] if origins else []
    # A wrong answer is itself answered by the outer layer.
    validation = [problems.Exceptions, ResponseValidation] if settings.validate_responses else []
    routes = [*documentation.routes(settings), *health.routes()]
    security = partial(Security, open_routes=routes)
    app = ConnexionMiddleware(
        Router(routes, default=without_operation, lifespan=lifespan),
        middlewares=[
            *observed,
            *cross_origin,
            *validation,
            problems.Exceptions,
            ContractRouting,
            *_rate_limits(settings),
            security,
            Dispatch,
        ],
        resolver=Resolver(lambda operation_id: getattr(tasks, underscore(operation_id))),
        # What leads to no operation needs a key too.
        auth_all_paths=True,
        security_map={"bearer": BearerKey},
    )
    app.add_api(contract.document())
    # Connexion has handlers of its own for these three, which word problems themselves.
    app.add_error_handler(HTTPException, problems.refused)
    app.add_error_handler(ProblemException, problems.refused)
    app.add_error_handler(Exception, problems.failed)
    app.add_error_handler(MissingError, problems.missing)
    app.add_error_handler(ChangedError, problems.changed)
    app.add_error_handler(UnavailableError, problems.unavailable)
    return app


def _rate_limits(settings: ServerSettings) -> list[Any]:
    """Return the layers that limit requests; none where there are no limits."""
    if not settings.rate_limit:
        return []
    # Its libraries take 7 MB, which only a service with limits has use for.
    from handlers.access.rate_limits import RateLimits  # noqa: PLC0415

    limits = partial(RateLimits, rate_limit=settings.rate_limit, storage=settings.rate_limit_storage)
    # Refusals from behind it pass through it too.
    return [limits, problems.Exceptions]
