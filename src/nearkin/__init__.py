"""Nearkin: embeddings in which near means kin."""

__version__ = "0.1.0"
