"""What an operator sees: health probes, access log, metrics."""
