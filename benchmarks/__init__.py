"""Measurements beside our peers: `python -m benchmarks`."""
