"""The parts of Connexion that the service uses, imported without libraries that only other parts of it use.

Connexion imports Requests for references to other servers, HTTPX for OAuth 2, Jinja for templates, and Starlette's test
client for tests. Together they would take a quarter of the time in which the service starts, and 9 MB of memory.
Connexion gets placeholders, which import them when they are used. Other importers get the libraries themselves.
"""

import sys
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

# Modules that Connexion imports but uses only in functions, and the class that it imports from each, if any.
DEFERRED = {
    "httpx": None,
    "jinja2": None,
    "requests": None,
    "starlette.templating": "Jinja2Templates",
    "starlette.testclient": "TestClient",
}


class Placeholder(ModuleType):
    """Takes the place of a module, and imports that module when an attribute is read."""

    def __getattr__(self, name: str) -> Any:
        # The import system, and tools that inspect modules, read such attributes.
        if name.startswith("__"):
            raise AttributeError(name)
        _uninstall(self)
        return getattr(import_module(self.__name__), name)


def placeholder_for(name: str, class_name: str | None) -> Placeholder:
    """Return a placeholder for a module. A class of the module is replaced by a function that creates its objects."""
    placeholder = Placeholder(name)
    if class_name:
        setattr(placeholder, class_name, partial(_create, name, class_name))
    return placeholder


def _create(module: str, class_name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(import_module(module), class_name)(*arguments, **options)


def _uninstall(*placeholders: Placeholder) -> None:
    for placeholder in placeholders:
        if sys.modules.get(placeholder.__name__) is placeholder:
            del sys.modules[placeholder.__name__]


placeholders = [placeholder_for(*item) for item in DEFERRED.items() if item[0] not in sys.modules]
sys.modules.update({placeholder.__name__: placeholder for placeholder in placeholders})
try:
    from connexion import ConnexionMiddleware
    from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
    from connexion.operations import AbstractOperation
    from connexion.resolver import Resolver
    from connexion.spec import Specification
finally:
    _uninstall(*placeholders)

__all__ = [
    "AbstractOperation",
    "ConnexionMiddleware",
    "Resolver",
    "RoutedAPI",
    "RoutedMiddleware",
    "Specification",
]
