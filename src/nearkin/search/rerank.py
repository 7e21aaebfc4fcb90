"""Re-ranking: the nearest of a query in a new order, after all of them have listened to their
neighbours.

    x' = unit(x + sum over the k nearest items j of max(0, cos(x, x_j))^a x_j)

of the query and of its candidates, which are then ordered by the cosines of the x'. No item counts
itself. It needs no training, and is for embeddings by cosine alone: it gains where the nearest are
mostly kin, and loses where they are not. Measured on half of the classes (stored features, k = 5,
a = 3), R@1 / MAP@R before and after: CUB, whitened to 128-D 60.4 / 19.9 and 61.8 / 25.4, as they
are 57.0 / 17.3 and 58.4 / 22.4; Cars196 crops, whitened 66.5 / 13.2 and 67.9 / 16.1, as they are
60.3 / 8.3 and 58.6 / 9.7.
Source: Radenović, Tolias & Chum, Fine-tuning CNN image retrieval, TPAMI 2019, section 3.4 (the
power a of query expansion); Turcot & Lowe, 2009 (the same for the items).
Dimensions: N items, C candidates, D embedding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nearkin.search.exact import Opened

CANDIDATES = 100
NEIGHBOURS = 5
POWER = 3.0


def candidates(k: int) -> int:
    """How many of the nearest are put in a new order where k are wanted."""
    return max(CANDIDATES, k)


def reranked(vector: np.ndarray, places: Any, opened: Opened) -> np.ndarray:
    """The order of a query's candidates (C,) after all have listened to their neighbours.

    Args:
        vector: (D,) of the query.
        places: (C,) of its candidates among the items, nearest first.

    Returns:
        Positions in `places`, nearest first; ties stay in their order.
    """
    items = unit(opened.vectors)
    query, found = unit(vector[None]), items[places]
    own = refined(query, query @ items.T, items)
    cosines = found @ items.T
    cosines[np.arange(len(found)), places] = -np.inf  # no item is its own neighbour
    return np.argsort(-(refined(found, cosines, items) @ own[0]), kind="stable")


def refined(x: np.ndarray, cosines: np.ndarray, items: np.ndarray) -> np.ndarray:
    """x' (B, D) of unit vectors x, whose cosines with the items are (B, N)."""
    k = min(NEIGHBOURS, len(items))
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    weights = np.take_along_axis(cosines, near, 1).clip(0) ** POWER
    return unit(x + (weights[..., None] * items[near]).sum(1))


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; zeros stay."""
    x = np.asarray(x, np.float32)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm == 0, 1, norm)
