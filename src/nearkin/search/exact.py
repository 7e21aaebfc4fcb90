"""Exact search of an index: by the open gallery where torch is loaded, else by NumPy alone.

Both give the similarities of measure/nearest/exact.py: rows on a grid of 2^-24, products summed
without rounding in float64, one rounding to float32, ties to the lower index. NumPy's way needs no
import of torch, which takes longer than the search of some thousand photographs.

Dimensions: N items, B queries, D embedding.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa

from nearkin.search.store import vectors_of

SMALL = 20_000  # items: up to here NumPy answers from a cold start sooner than torch is imported
STEPS = 2.0**24
NAMES = {"cosine": "cosine", "inner": "inner product", "euclidean": "minus distance"}
"""What the similarities of a metric are; higher is nearer."""


class Opened:
    """The items of one version of an index, ready to be searched."""

    def __init__(self, items: pa.Table, metric: str):
        self.metric = metric
        self.paths: list[str] = items["path"].to_pylist()
        self.labels: list[str | None] = items["label"].to_pylist()
        self.vectors = vectors_of(items)
        self._prepared: Any = None

    def nearest(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and places (B, k) of the nearest items, k cut to how many there are."""
        if k < 1:
            raise ValueError(f"k must be 1 or more, got {k}")
        if not self.paths:
            raise ValueError("the index holds no photograph that could be found")
        k = min(k, len(self.paths))
        if "torch" not in sys.modules and len(self.paths) <= SMALL:
            return self._by_numpy(vectors, k)
        if self._prepared is None or isinstance(self._prepared, tuple):
            from nearkin.measure.nearest.gallery import Gallery

            self._prepared = Gallery(self.vectors, self.metric)
        found = self._prepared.neighbours(np.asarray(vectors, dtype=np.float32), k)
        return np.asarray(found.similarities), np.asarray(found.indices)

    def _by_numpy(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self._prepared is None:
            self._prepared = points(self.vectors, self.metric)
        similarity = similarities(points(vectors, self.metric), self._prepared, self.metric)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(similarity, order, 1), order


def points(x: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rows (N, D) on the grid, scale (N,) and squared norms (N,), float64: those of `Points`."""
    x = np.asarray(x, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError("embeddings hold NaN or infinity")
    norm = np.linalg.norm(x, axis=1)
    if metric == "cosine":
        scale = np.ones(len(x))
        rows = x / np.where(norm == 0, 1, norm)[:, None]
    else:
        scale = np.where(norm == 0, 1, np.exp2(np.frexp(norm)[1]))
        rows = x / scale[:, None]
    rows = np.round(rows * STEPS) / STEPS
    return rows, scale, (rows**2).sum(1) * scale**2


def similarities(query: tuple, items: tuple, metric: str) -> np.ndarray:
    """(B, N) float32: cosine, inner product, or minus the Euclidean distance."""
    (a, a_scale, a_square), (b, b_scale, b_square) = query, items
    dots = a @ b.T
    if metric == "cosine":
        return dots.astype(np.float32)
    dots *= a_scale[:, None] * b_scale
    if metric == "inner":
        return dots.astype(np.float32)
    return -np.sqrt((a_square[:, None] + b_square - 2 * dots).clip(0)).astype(np.float32)
