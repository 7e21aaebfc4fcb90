"""Exact nearest neighbours, ties by index."""
