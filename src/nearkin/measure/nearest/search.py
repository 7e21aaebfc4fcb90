"""Exact nearest neighbours and ranks, in blocks that fit: cheap first, exact after.

The similarity of a pair is that of exact.py: the same bits in whatever block it is met. Ties
are broken by index, rank = 1 + the number of larger similarities + the number of equal ones
with a lower index, so every top-k and every rank has one right answer, that of brute force.

It is found without computing most similarities (cascade.py).

Dimensions: B queries, M gallery, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nearkin.measure.inputs import as_given, check_count, matrix, own_places
from nearkin.measure.nearest import copies
from nearkin.measure.nearest.brute import NOTHING, Search, search_of
from nearkin.measure.nearest.cascade import (
    Found,
    above_screened,
    cascade,
    nearest_screened,
)
from nearkin.measure.nearest.exact import Array, from_keys
from nearkin.measure.nearest.screen import Scores, Screen, plain_arithmetic


class Neighbours(NamedTuple):
    """The k nearest of each query, nearest first: both (B, k), float32 and int64."""

    similarities: Tensor
    indices: Tensor


def neighbours(
    query: Array,
    k: int,
    gallery: Array | None = None,
    *,
    itself: Array | None = None,
    metric: str = "cosine",
    memory: float = 1e9,
) -> Neighbours:
    """The k nearest gallery items of each query, exactly; ties go to the lower index.

    Args:
        query: (B, D) numbers: a tensor, or an array of NumPy, and then the result is arrays too.
        k: how many, 1 to M (M - 1 where queries stand in what is searched).
        gallery: (M, D); by default the queries themselves, and then nobody is its own neighbour.
        itself: (B,) the place of each query in the gallery, -1 where it does not stand there: it
            is not its own neighbour.
        metric: "cosine", "inner" (product) or "euclidean". Similarities are larger for nearer
            items: that of "euclidean" is minus the distance.
        memory: bytes that the work may take beside its inputs and outputs.

    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> neighbours(x, 1)
    Neighbours(similarities=tensor([[0.8000], [0.8000], [0.6000]]),
               indices=tensor([[1], [0], [1]]))
    """
    gallery = None if gallery is query else gallery
    x = matrix(query, "query")
    y = None if gallery is None else matrix(gallery, "gallery", x.device)
    with plain_arithmetic(x.device):
        search = search_of(x, y, metric, memory, own_places(itself, x, y))
        found = from_keys(nearest_keys(search, check_k(k, search)))
    return Neighbours(*(as_given(each, query) for each in found))


def check_k(k: int, search: Search) -> int:
    """k, if it is in 1..M, or 1..M - 1 where queries stand in the gallery."""
    return check_count(k, len(search.gallery) - (search.itself is not None))


def nearest_keys(search: Search, k: int) -> Tensor:
    """The k largest keys (B, k) of each query, in descending order."""
    found = torch.full((len(search.query), k), NOTHING, device=search.device)
    for start, piece in search.pieces():
        for rows, keys in _nearest_in(piece, min(k, len(piece.gallery))):
            keys = torch.where(keys == NOTHING, NOTHING, keys - start)
            found[rows] = torch.cat([found[rows], keys], 1).topk(k).values
        del piece  # and its screens, before the next is made
    return found


def ranks(search: Search, targets: Tensor) -> Tensor:
    """The rank (B,) of one gallery item each, given by its key: 1 + the number of larger keys."""
    above = torch.zeros_like(targets)
    for start, piece in search.pieces():
        for rows, count in _above_in(piece, targets + start):
            above[rows] += count
        del piece  # as above
    return 1 + above


def _nearest_in(search: Search, k: int) -> Found:
    """The k largest keys of every query, in one piece of the gallery."""
    few = copies_in(search)
    if few:
        return copies.nearest(search, *few, k, NOTHING)

    def exact(_: Tensor, tiles: Iterator[Tensor]) -> Tensor:
        best = next(tiles)
        best = best.topk(min(k, best.shape[1])).values
        for keys in tiles:
            both = torch.cat([best, keys], 1)
            best = both.topk(min(k, both.shape[1])).values
        return best

    def cheap(rows: Tensor, screen: Screen, scores: Scores) -> tuple[Tensor, Tensor]:
        return nearest_screened(search[rows].on_grid(), k, screen, scores)

    return cascade(search, len(search.gallery) / (2 * k), cheap, exact)  # twice as many groups


def _above_in(search: Search, targets: Tensor) -> Found:
    """How many keys of one piece of the gallery are larger than each query's target."""
    few = copies_in(search)
    if few:
        return copies.above(search, *few, targets)

    def exact(rows: Tensor, tiles: Iterator[Tensor]) -> Tensor:
        return torch.stack([(keys > targets[rows, None]).sum(1) for keys in tiles]).sum(0)

    spare: dict[torch.dtype, Tensor] = {}  # fresh memory for each block costs as much as the rest

    def cheap(rows: Tensor, screen: Screen, scores: Scores) -> tuple[Tensor, Tensor]:
        values = scores.values
        mask = spare.setdefault(values.dtype, torch.empty_like(values))[: len(values)]
        return above_screened(search[rows].on_grid(), targets[rows], screen, scores, mask)

    return cascade(search, len(search.gallery), cheap, exact)


def copies_in(search: Search) -> tuple[copies.Copies, copies.Copies] | None:
    """The distinct queries and gallery items, where both are few; else None."""
    if len(search.query) < copies.LEAST:
        return None
    gallery = copies.copies(search.gallery)
    query = gallery if search.query is search.gallery else gallery and copies.copies(search.query)
    return (query, gallery) if query and gallery else None
