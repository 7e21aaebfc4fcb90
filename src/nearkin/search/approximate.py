"""Approximate search of an index that knows how much it misses.

Before it answers, it searches for stored items both ways, and looks into as few parts of the store
as bring back the share of exact neighbours that was wanted.

Dimensions: B queries, D embedding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nearkin.search.exact import Opened, points, similarities

SAMPLE = 200  # stored items that are searched for both ways
Z = 1.959964  # of a 95 % interval


class Approximate:
    """A search with the least effort of 1, 2, 4, ... parts whose recall, with its 95 % interval, is
    what was wanted; the exact one where none is.

    Args:
        opened: all items, or those with `label`.
        k: neighbours of each query.
        recall: the share of the exact k nearest that is to be found, in (0, 1].
    """

    def __init__(
        self, store: Any, opened: Opened, metric: str, k: int, recall: float, label: str | None
    ):
        if not 0 < recall <= 1:
            raise ValueError(f"recall must be in (0, 1], got {recall}")
        self.store, self.opened, self.metric, self.label = store, opened, metric, label
        self.k = min(k, len(opened.paths))
        self.place = {path: i for i, path in enumerate(opened.paths)}
        store.build(metric)
        count = min(SAMPLE, len(opened.paths))
        sample = np.linspace(0, len(opened.paths) - 1, count).astype(int)
        vectors = opened.vectors[sample]
        _, exact = opened.nearest(vectors, self.k)
        self.effort, self.count = 1, count
        while True:
            shares = self.shares(vectors, exact)
            self.recall, half = float(shares.mean()), Z * float(shares.std()) / np.sqrt(count)
            self.low, self.high = max(0.0, self.recall - half), min(1.0, self.recall + half)
            if self.low >= recall or not self.effort:
                return
            self.effort = 0 if self.effort >= store.parts() else 2 * self.effort

    def shares(self, vectors: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """(B,) the share of each query's exact neighbours (B, k) that are found."""
        found = self.store.nearest(vectors, self.k, self.metric, self.label, self.effort)
        places = [{self.place[path] for path in paths if path in self.place} for paths in found]
        return np.array(
            [len(set(e.tolist()) & f) / self.k for e, f in zip(exact, places, strict=True)]
        )

    def nearest(self, vectors: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Exact similarities and places of what is found for each query, nearest first."""
        found = self.store.nearest(vectors, self.k, self.metric, self.label, self.effort)
        rows, places = [], []
        for vector, paths in zip(vectors, found, strict=True):
            at = np.array(sorted(self.place[path] for path in paths if path in self.place), int)
            near = similarities(
                points(vector[None], self.metric),
                points(self.opened.vectors[at], self.metric),
                self.metric,
            )[0]
            order = np.argsort(-near, kind="stable")
            rows.append(near[order])
            places.append(at[order])
        return rows, places

    def __str__(self) -> str:
        """What was measured, in words."""
        effort = f"{self.effort} of {self.store.parts()} parts" if self.effort else "all, exactly"
        return (
            f"recall {self.recall:.3f} ({self.low:.3f} to {self.high:.3f}, of {self.count} stored "
            f"photographs), looking at {effort}"
        )
