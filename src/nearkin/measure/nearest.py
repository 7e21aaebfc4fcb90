"""Exact nearest neighbours and ranks, in blocks that fit: cheap first, exact after.

The similarity of a pair is that of exact.py: the same bits in whatever block it is met. Ties
are broken by index, rank = 1 + the number of larger similarities + the number of equal ones
with a lower index, so every top-k and every rank has one right answer, that of brute force.

It is found without computing most similarities. A screen (screen.py) scores all pairs with a
low-precision product and knows how wrong it can be; only the items that it cannot rule out are
computed exactly. A query for which that would be too many goes to a screen of higher precision,
and at last to brute force.

Dimensions: B queries, M gallery, D embedding, G groups' size, W groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nearkin.measure.exact import (
    Points,
    blocks,
    from_keys,
    pair_similarities,
    points_of,
    similarities,
    to_keys,
)
from nearkin.measure.screen import Screen, plain_arithmetic, precisions

NOTHING = torch.iinfo(torch.int64).min
"""a key below all others"""
TILE = 8192
"""columns at a time of brute force"""


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
    with plain_arithmetic(query.device):
        asked, searched = points_of(query, gallery, metric)
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
    found = torch.full((len(query), k), NOTHING, dtype=torch.int64, device=query.rows.device)
    for start, piece in blocks(gallery, piece_size(gallery, memory)):
        inside = None if itself is None else itself - start
        for rows, keys in _nearest_in(query, piece, min(k, len(piece)), inside, memory):
            keys = torch.where(keys == NOTHING, NOTHING, keys - start)
            found[rows] = torch.cat([found[rows], keys], 1).topk(k).values
    return found


def ranks(
    query: Points, gallery: Points, targets: Tensor, itself: Tensor | None, *, memory: float
) -> Tensor:
    """The rank (B,) of one gallery item each, given by its key: 1 + the number of larger keys."""
    above = torch.zeros(len(query), dtype=torch.int64, device=query.rows.device)
    for start, piece in blocks(gallery, piece_size(gallery, memory)):
        inside = None if itself is None else itself - start
        for rows, count in _above_in(query, piece, targets + start, inside, memory):
            above[rows] += count
    return 1 + above


def piece_size(gallery: Points, memory: float) -> int:
    """How many gallery items are searched at a time: their screens take a part of the memory."""
    return max(4096, int(memory / 16 / gallery.rows.shape[1]))


Found = Iterator[tuple[Tensor, Tensor]]
"""(positions of queries, what was found for them)"""


def _nearest_in(
    query: Points, gallery: Points, k: int, itself: Tensor | None, memory: float
) -> Found:
    """The k largest keys of every query, in one piece of the gallery."""

    def exact(_: Tensor, tiles: Iterator[Tensor]) -> Tensor:
        best: Tensor | None = None
        for keys in tiles:
            both = keys if best is None else torch.cat([best, keys], 1)
            best = both.topk(min(k, both.shape[1])).values
        assert best is not None
        return best

    def cheap(rows: Tensor, screen: Screen, scores: Tensor, error: Tensor) -> tuple:
        return _nearest_screened(query[rows], gallery, k, screen, scores, error)

    group = int((len(gallery) / (3 * k)) ** 0.5)  # balances what follows the product
    return _cascade(query, gallery, itself, memory, group, cheap, exact)


def _above_in(
    query: Points, gallery: Points, targets: Tensor, itself: Tensor | None, memory: float
) -> Found:
    """How many keys of one piece of the gallery are larger than each query's target."""

    def exact(rows: Tensor, tiles: Iterator[Tensor]) -> Tensor:
        return torch.stack([(keys > targets[rows, None]).sum(1) for keys in tiles]).sum(0)

    def cheap(rows: Tensor, screen: Screen, scores: Tensor, error: Tensor) -> tuple:
        return _above_screened(query[rows], gallery, targets[rows], screen, scores, error)

    return _cascade(query, gallery, itself, memory, 64 if len(gallery) >= 1024 else 1, cheap, exact)


def _cascade(
    query: Points,
    gallery: Points,
    itself: Tensor | None,
    memory: float,
    group: int,
    cheap: Callable[[Tensor, Screen, Tensor, Tensor], tuple[Tensor, Tensor]],
    exact: Callable[[Tensor, Iterator[Tensor]], Tensor],
) -> Found:
    """Ask screens of rising precision, then brute force, each for what is still unproved.

    A screen that proves less than a quarter of a block is given up: it would not pay.
    """
    left = torch.arange(len(query), device=query.rows.device)
    for dtype in precisions(query.rows.device) if group >= 4 else ():
        screen = Screen(query, gallery, dtype, group)
        unproved, seen = [], 0
        for rows, scores, error in screened(query, screen, left, itself, memory):
            proved, found = cheap(rows, screen, scores, error)
            yield rows[proved], found
            unproved.append(rows[~proved])
            seen += len(rows)
            if 4 * len(found) < len(rows):
                break
        left = torch.cat([*unproved, left[seen:]])
        if not len(left):
            return
    for rows, tiles in key_tiles(query, gallery, left, itself, memory):
        yield rows, exact(rows, tiles)


def screened(
    query: Points, screen: Screen, rows: Tensor, itself: Tensor | None, memory: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(positions, scores (B, G, W), error) of block after block of these queries.

    Group w is the gallery items {w, w + W, w + 2W, ...}; a score of -inf stands for no item.
    """
    tall = max(1, min(1024, int(memory / 4 / len(screen.rows) / screen.rows.element_size())))
    buffer = screen.rows.new_empty(min(tall, len(rows)), len(screen.rows))
    for _, block in blocks(
        rows, tall
    ):  # into one buffer: fresh memory costs as much as the product
        scores, error = screen.scores(query[block], out=buffer[: len(block)])
        scores[:, screen.size :] = -torch.inf
        if itself is not None:
            place = itself[block]
            here = ((place >= 0) & (place < screen.size)).nonzero()[:, 0]
            scores[here, place[here]] = -torch.inf
        yield block, scores.view(len(block), screen.group, -1), error


def _nearest_screened(
    query: Points, gallery: Points, k: int, screen: Screen, scores: Tensor, error: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) bool, for which queries the screen sufficed, and the k largest keys of those.

    Let t be the k-th largest of the groups' maxima: k items are screened at t or above, so the
    k-th nearest is at least as similar as t surely means, and no item screened below `cut` can
    be among the k nearest.
    """
    maxima = group_maxima(scores)
    cut = screen.lower(screen.surely(maxima.float().topk(k).values[:, -1], error), error)
    opened = maxima >= cut[:, None]
    few = 4 * k + 64
    proved = cut.isfinite() & (opened.sum(1) <= few)
    row, column = members(scores, opened & proved[:, None], cut)
    count = torch.bincount(row, minlength=len(scores))
    proved &= count <= few
    kept = proved[row]
    row, column = row[kept], column[kept]
    count = torch.where(proved, count, 0)
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    keys = torch.full((len(scores), max(k, int(count.max()))), NOTHING, device=row.device)
    keys[row, place] = pair_keys(query, gallery, row, column)
    return proved, keys[proved].topk(k).values


def _above_screened(
    query: Points, gallery: Points, targets: Tensor, screen: Screen, scores: Tensor, error: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) bool, for which queries the screen sufficed, and their counts of larger keys.

    Items screened above `high` are surely nearer than the target, those below `low` surely
    not; the few between are computed. Groups are of 64, a count that bfloat16 holds.
    """
    exact = screen.score_of(query, from_keys(targets)[0])
    low, high = screen.lower(exact, error), screen.upper(exact, error)
    mask = torch.empty_like(scores)
    above = torch.gt(scores, high[:, None, None], out=mask).sum(1)  # (B, W)
    unsure = torch.ge(scores, low[:, None, None], out=mask).sum(1) - above
    proved = (unsure.float().sum(1) <= 256) & low.isfinite()
    row, column = members(scores, (unsure > 0) & proved[:, None], low, high)
    larger = pair_keys(query, gallery, row, column) > targets[row]
    count = above.float().sum(1).long() + torch.bincount(row[larger], minlength=len(above))
    return proved, count[proved]


def group_maxima(scores: Tensor) -> Tensor:
    """(B, W) the largest score of each group, by way of integers: three times as quick here.

    Bits of floats, read as integers, keep the order of positive ones, place negative ones below
    them, and turn the order of those.
    """
    bits = scores.view({torch.bfloat16: torch.int16, torch.float32: torch.int32}[scores.dtype])
    largest = bits.amax(1)
    if (largest < 0).any():
        largest = torch.where(largest < 0, bits.amin(1), largest)
    return largest.view(scores.dtype)


def members(
    scores: Tensor, opened: Tensor, low: Tensor, high: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(row, column) of every score in low..high (B,) that stands in an opened group (B, W)."""
    row, group = opened.nonzero().T
    inside = scores[row, :, group]  # (opened groups, G)
    wanted = inside >= low[row, None]
    if high is not None:
        wanted &= inside <= high[row, None]
    which, member = wanted.nonzero().T
    return row[which], member * scores.shape[2] + group[which]


def pair_keys(query: Points, gallery: Points, row: Tensor, column: Tensor) -> Tensor:
    """(P,) keys of pairs, a few at a time, so that they stay in cache."""
    keys = torch.empty_like(column)
    some = 256 if column.device.type == "cpu" else 2**16
    for start in range(0, len(row), some):
        here = slice(start, start + some)
        pairs = pair_similarities(query, gallery, row[here], column[here])
        keys[here] = to_keys(pairs, column[here])
    return keys


def key_tiles(
    query: Points, gallery: Points, rows: Tensor, itself: Tensor | None, memory: float
) -> Iterator[tuple[Tensor, Iterator[Tensor]]]:
    """Brute force: block after block of these queries, and tiles of their keys."""

    def tiles(block: Tensor) -> Iterator[Tensor]:
        for left, piece in blocks(gallery, TILE):
            indices = torch.arange(left, left + len(piece), device=block.device)
            keys = to_keys(similarities(query[block], piece), indices)
            if itself is not None:
                keys.masked_fill_(itself[block, None] == indices, NOTHING)
            yield keys

    for _, block in blocks(rows, max(1, min(1024, int(memory / (64 * TILE))))):
        yield block, tiles(block)
