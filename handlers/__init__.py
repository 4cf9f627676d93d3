"""The HTTP side of the service: the operations, and everything between a connection and an operation."""

import warnings

# Connexion imports Starlette's test client, which warns about a library that only tests use.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient` is deprecated")
