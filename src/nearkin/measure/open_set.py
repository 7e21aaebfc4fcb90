"""Open sets: queries of which some are of classes that the gallery lacks.

Dimensions: B, Q and U queries (all, known, unknown), N items, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nearkin.measure.inputs import matrix
from nearkin.measure.nearest.exact import Array, Points, points_of, similarities
from nearkin.measure.nearest.screen import plain_arithmetic
from nearkin.measure.rates import ENOUGH, area, check_rate


@dataclass(frozen=True)
class OpenSet:
    """Nearest items of queries, of which some are of unknown classes.

    kin: (Q,) similarity of the nearest item of a known query's own class.
    rivals: (Q,) similarity of the nearest item of another class, for the same queries.
    others: (U,) similarity of the nearest item, for queries of unknown classes.
    """

    kin: np.ndarray
    rivals: np.ndarray
    others: np.ndarray

    @property
    def auroc(self) -> float:
        """Probability that a known query's nearest item is more similar than an unknown one's."""
        known = np.maximum(self.kin, self.rivals)
        edges = np.unique(np.concatenate([known, self.others, [np.inf]]))
        known, unknown = np.sort(known), np.sort(self.others)
        counts = [len(x) - np.searchsorted(x, edges, side="left") for x in (known, unknown)]
        return area(*counts)

    def tar(self, value: float) -> float:
        """Share of the known queries whose nearest item is kin, and accepted (DIR)."""
        return float(((self.kin > self.rivals) & (self.kin >= value)).mean())

    def dir_at(self, far: float) -> float | None:
        """Detection and identification rate at this FAR of unknown queries; None for too few."""
        check_rate("far", far)
        if far * len(self.others) < ENOUGH["pairs"]:
            return None
        unknown = np.sort(self.others)[::-1]
        return self.tar(float(np.nextafter(unknown[int(far * len(unknown))], np.float32(inf))))


def open_set(
    query: Array,
    query_labels: ArrayLike,
    gallery: Array,
    gallery_labels: ArrayLike,
    *,
    metric: str = "cosine",
    memory: float = 2.5e8,
) -> OpenSet:
    """Queries searched in a gallery that lacks the classes of some: are those told as unknown?

    Raises:
        ValueError: no query, or every query, is of a class that the gallery has.
    """
    kinds = np.unique(
        np.concatenate([np.asarray(query_labels), np.asarray(gallery_labels)]), return_inverse=True
    )[1]
    queries, searched = points_of(matrix(query, "query"), matrix(gallery, "gallery"), metric)
    labels, held = (torch.from_numpy(k) for k in np.split(kinds, [len(queries)]))
    known = torch.isin(labels, held).numpy()
    if known.all() or not known.any():
        which = "all" if known.all() else "none"
        raise ValueError(f"open set wanted known and unknown queries, got {which} known")
    kin, others, _ = nearest_sides(queries, labels, searched, held, memory)
    return OpenSet(kin[known], others[known], others[~known])


def nearest_of_both(searched: Points, kind: Tensor, memory: float) -> tuple[OpenSet, np.ndarray]:
    """Every item once as known, among all others, and once as unknown, without its class.

    Also the class (N,) of each item's nearest item of another class.
    """
    kin, others, rival = nearest_sides(searched, kind, searched, kind, memory, itself=True)
    alone = np.isneginf(kin)
    if alone.all() or np.isneginf(others).any():
        raise ValueError("verification wanted two classes and two items of one, got fewer")
    return OpenSet(kin[~alone], others[~alone], others), rival


def nearest_sides(
    queries: Points, labels: Tensor, searched: Points, held: Tensor, memory: float, itself=False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B,) similarity of the nearest kin, of the nearest other, and that other's class.

    A similarity is -inf where there is none.
    """
    found, rival = torch.full((2, len(labels)), -inf), torch.empty_like(labels)
    rows = max(1, int(memory / (32 * len(held))))
    with plain_arithmetic(held.device):
        for start in range(0, len(labels), rows):
            here = slice(start, min(start + rows, len(labels)))
            block = similarities(queries[here], searched)
            kin = labels[here, None] == held
            nearest = block.masked_fill(kin, -inf).max(1)
            found[1, here], rival[here] = nearest.values.cpu(), held[nearest.indices]
            if itself:
                kin[torch.arange(len(block)), torch.arange(here.start, here.stop)] = False
            found[0, here] = block.masked_fill(~kin, -inf).amax(1).cpu()
    return found[0].numpy(), found[1].numpy(), rival.cpu().numpy()
