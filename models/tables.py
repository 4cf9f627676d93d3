"""Find the tables of the database: the Peewee models in this package."""

from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType

import peewee

import models

# These parts of the package define no tables of the current release.
WITHOUT_TABLES = {"database", "migrations", "transfer"}


def all_tables(package: ModuleType = models) -> list[type[peewee.Model]]:
    """Return all models; a table comes after those that it refers to. A model from which others derive is no table."""
    found = set()
    for module in walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.split(".")[1] not in WITHOUT_TABLES:
            found |= {item for item in vars(import_module(module.name)).values() if _is_model(item)}
    return [*peewee.sort_models(model for model in found if not model.__subclasses__())]  # type: ignore[attr-defined]


def _is_model(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, peewee.Model)
