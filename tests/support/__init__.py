"""Helpers for several tests: services, databases, requests, and raw bytes on a socket."""
