"""Everything that speaks HTTP: the operations of the contract, and the parts between the wire and an operation."""

import warnings

# Connexion imports Starlette's test client, which warns of a library that only tests would use.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient` is deprecated")
