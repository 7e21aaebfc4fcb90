"""Exact nearest neighbours and ranks, in blocks that fit.

The similarity of a pair is that of exact.py, the same bits in whatever block it is met. Ties
are broken by index: rank = 1 + the number of larger similarities + the number of equal ones
with a lower index. So every top-k and every rank has one right answer, that of brute force.

Dimensions: B queries, M gallery, D embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearkin.measure.exact import (
    Points,
    blocks,
    check_embeddings,
    from_keys,
    points,
    similarities,
    to_keys,
)

NOTHING = torch.iinfo(torch.int64).min
"""a key below all others"""


class Neighbours(NamedTuple):
    """The k nearest of each query, nearest first: both (B, k), float32 and int64."""

    similarities: Tensor
    indices: Tensor


def neighbours(
    query: Tensor,
    k: int,
    gallery: Tensor | None = None,
    *,
    metric: str = "cosine",
    memory: float = 1e9,
) -> Neighbours:
    """The k nearest gallery items of each query, exactly; ties go to the lower index.

    Args:
        query: (B, D) floats.
        k: how many, 1 to M (M - 1 without a gallery).
        gallery: (M, D) floats; by default the queries themselves, and then nobody is its own
            neighbour.
        metric: "cosine", "inner" (product) or "euclidean". Similarities are larger for nearer
            items: that of "euclidean" is minus the distance.
        memory: bytes that the work may take beside its inputs and outputs.

    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> neighbours(x, 1)
    Neighbours(similarities=tensor([[0.8000], [0.8000], [0.6000]]),
               indices=tensor([[1], [0], [1]]))
    """
    check_embeddings(query, "query", zero=True)
    asked = points(query, metric)
    searched = asked
    if gallery is not None:
        check_embeddings(gallery, "gallery", zero=True)
        if gallery.shape[1] != query.shape[1]:
            wanted = f"as many columns as query, {query.shape[1]}"
            raise ValueError(f"gallery must have {wanted}, got {gallery.shape[1]}")
        searched = points(gallery, metric)
    itself = torch.arange(len(asked), device=query.device) if gallery is None else None
    most = len(searched) - (gallery is None)
    if not 1 <= k <= most:
        raise ValueError(f"k must be in 1..{most}, got {k}")
    return Neighbours(*from_keys(nearest_keys(asked, searched, k, itself, memory=memory)))


def nearest_keys(
    query: Points, gallery: Points, k: int, itself: Tensor | None, *, memory: float
) -> Tensor:
    """The k largest keys (B, k) of each query, in descending order.

    itself: (B,) where a query stands in the gallery, if it does; it is left out.
    """
    device = query.rows.device
    found = torch.full((len(query), k), NOTHING, dtype=torch.int64, device=device)
    for rows, columns, keys in key_tiles(query, gallery, itself, memory=memory):
        best = keys.topk(min(k, keys.shape[1])).values
        found[rows] = (
            best
            if columns.start == 0 and best.shape[1] == k
            else (torch.cat([found[rows], best], 1).topk(k).values)
        )
    return found


def ranks(
    query: Points, gallery: Points, targets: Tensor, itself: Tensor | None, *, memory: float
) -> Tensor:
    """The rank (B,) of one gallery item each, given by its key: 1 + the number of larger keys."""
    above = torch.zeros(len(query), dtype=torch.int64, device=query.rows.device)
    for rows, _, keys in key_tiles(query, gallery, itself, memory=memory):
        above[rows] += (keys > targets[rows, None]).sum(1)
    return 1 + above


def key_tiles(query: Points, gallery: Points, itself: Tensor | None, *, memory: float):
    """(rows, columns, keys) of tile after tile of the whole matrix of keys."""
    wide = 8192
    tall = max(1, min(1024, int(memory / (40 * wide))))
    columns_of = torch.arange(len(gallery), device=gallery.rows.device)
    for top in range(0, len(query), tall):
        rows = slice(top, min(top + tall, len(query)))
        for left, indices in blocks(columns_of, wide):
            columns = slice(left, left + len(indices))
            keys = to_keys(similarities(query[rows], gallery[columns]), indices)
            if itself is not None:
                keys.masked_fill_(itself[rows, None] == indices, NOTHING)
            yield rows, columns, keys
