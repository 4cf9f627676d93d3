"""Helpers that several tests share, for services, databases, requests, and raw bytes on a socket."""
