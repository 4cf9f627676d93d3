"""Offline commands: backup and copy."""
