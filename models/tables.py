"""Find the tables of the database, which are the Peewee models in this package, and check that it has their columns."""

from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType

import peewee

import models
from models.database.address import connected
from models.database.errors import ConfigurationError

# These parts of the package define no tables of the current release.
WITHOUT_TABLES = {"database", "migrations", "transfer"}


def all_tables(package: ModuleType = models) -> list[type[peewee.Model]]:
    """Return all models; a table comes after those that it refers to. A model from which others derive is no table."""
    names = [module.name for module in walk_packages(package.__path__, f"{package.__name__}.")]
    modules = [import_module(name) for name in names if name.split(".")[1] not in WITHOUT_TABLES]
    found = {item for module in modules for item in vars(module).values() if isinstance(item, type)}
    tables = [item for item in found if issubclass(item, peewee.Model) and not item.__subclasses__()]
    return [*peewee.sort_models(tables)]  # type: ignore[attr-defined]


def check_columns(url: str) -> None:
    """Raise ConfigurationError if the database at a URL lacks a column of a model: a migration is missing."""
    with connected(url) as database:
        for table in all_tables():
            name = table._meta.table_name
            present = {column.name for column in database.get_columns(name)}
            if missing := [column for column in table._meta.columns if column not in present]:
                message = f"The table {name} has no column {', '.join(missing)}: add a migration to models/migrations."
                raise ConfigurationError(message)
