"""Searches among many copies of few points, such as collapsed embeddings: every pair would tie, so
that no screen proves anything. Each distinct query is searched for once, and its copies share what
is found; each leaves itself out.

Dimensions: B queries, M gallery, U distinct queries, V distinct gallery items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearkin.measure.nearest.exact import Points, blocks, from_keys, similarities, to_keys

FEW = 8
"""Points of which there are as many copies each, on average, are worth it."""
LEAST = 256  # items; below, brute force is quick enough


@dataclass(frozen=True)
class Copies:
    """Points with the first of their copies: items (U,) stand for all (N,), by `of` (N,)."""

    items: Points
    of: Tensor


def copies(points: Any) -> Copies | None:
    """The distinct ones among points, where they are few; else None."""
    if not isinstance(points, Points) or len(points) < LEAST:
        return None
    count = len(points)
    random = torch.Generator().manual_seed(0)
    weights = torch.rand(points.width, generator=random, dtype=torch.double)
    weights = weights.to(points.rows.device)
    sums = torch.cat([block.double() @ weights for _, block in blocks(points.rows, 4096)])
    _, of = torch.unique(sums, return_inverse=True)
    distinct = int(of.max()) + 1
    if distinct * FEW > count:
        return None
    place = torch.arange(count, device=of.device)
    first = torch.full((distinct,), count, device=of.device).scatter_reduce(0, of, place, "amin")
    for start, part in blocks(points, 4096):  # equal sums are a hint, equal points a proof
        same = points[first[of[start : start + len(part)]]]
        if not (torch.equal(part.rows, same.rows) and torch.equal(part.scale, same.scale)):
            return None
    return Copies(points[first], of)


def keys_of(search: Any, query: Copies, gallery: Copies) -> Iterator[tuple[Tensor, Tensor]]:
    """(numbers of distinct queries, their keys (u, M) to every gallery item), block by block."""
    places = torch.arange(len(gallery.of), device=gallery.of.device)
    size = max(1, int(search.memory / 64 / len(places)))
    for start, some in blocks(query.items, size):
        numbers = torch.arange(start, start + len(some), device=places.device)
        yield numbers, to_keys(similarities(some, gallery.items)[:, gallery.of], places)


def nearest(
    search: Any, query: Copies, gallery: Copies, k: int, nothing: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(positions of queries, their k largest keys), each without itself."""
    wanted = min(k + (search.itself is not None), len(gallery.of))
    for numbers, keys in keys_of(search, query, gallery):
        best = keys.topk(wanted, 1).values
        rows = ((query.of >= numbers[0]) & (query.of <= numbers[-1])).nonzero()[:, 0]
        for _, some in blocks(rows, max(1, int(search.memory / 64 / wanted))):
            found = best[query.of[some] - numbers[0]]
            if search.itself is not None:
                itself = from_keys(found)[1] == search.itself[some, None]
                found = found.masked_fill(itself, nothing).topk(k, 1).values
            yield some, found


def above(
    search: Any, query: Copies, gallery: Copies, targets: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """(positions of queries, how many keys are larger than their targets), each without itself."""
    for numbers, keys in keys_of(search, query, gallery):
        ordered = keys.sort(1).values
        rows = ((query.of >= numbers[0]) & (query.of <= numbers[-1])).nonzero()[:, 0]
        number = query.of[rows] - numbers[0]
        count = torch.empty_like(rows)
        for i in range(len(numbers)):
            mine = number == i
            count[mine] = len(gallery.of) - torch.searchsorted(
                ordered[i], targets[rows[mine]], right=True
            )
        if search.itself is not None:
            place = search.itself[rows]
            there = (place >= 0) & (place < len(gallery.of))
            own = keys[number, place.clamp(0, len(gallery.of) - 1)]
            count -= (there & (own > targets[rows])).long()
        yield rows, count
