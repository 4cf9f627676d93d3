"""Turn the contract, openapi.yaml, into running operations."""
