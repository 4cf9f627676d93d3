"""Observability for operators: health probes, access log and metrics."""
