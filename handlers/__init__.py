"""The HTTP side of the service: the operations, and everything between a connection and an operation."""
