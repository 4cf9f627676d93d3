"""The documentation that the service publishes."""
