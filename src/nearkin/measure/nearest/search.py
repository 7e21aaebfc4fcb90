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

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from nearkin.measure.inputs import as_given, matrix, own_places
from nearkin.measure.nearest import copies
from nearkin.measure.nearest.exact import (
    Array,
    Points,
    Waiting,
    blocks,
    from_keys,
    listed_similarities,
    points_of,
    similarities,
    to_keys,
    waiting_of,
)
from nearkin.measure.nearest.screen import GROUP, Screen, plain_arithmetic, precisions

NOTHING = torch.iinfo(torch.int64).min
"""a key below all others"""
TILE = 8192
"""columns at a time of brute force"""


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
        check_k(k, search)
        found = from_keys(nearest_keys(search, k))
    return Neighbours(*(as_given(each, query) for each in found))


def check_k(k: int, search: Search) -> None:
    """k is in 1..M, or 1..M - 1 where queries stand in the gallery."""
    most = len(search.gallery) - (search.itself is not None)
    if not 1 <= k <= most:
        raise ValueError(f"k must be in 1..{most}, got {k}")


@dataclass(frozen=True)
class Search:
    """Some queries and what they are searched in.

    itself: (B,) where each query stands in the gallery, -1 for nowhere; it is not its own
        neighbour. None where no query stands there.
    memory: bytes that the work may take.
    screens: those of this gallery that were made so far.
    dtypes: what to screen in, cheapest first; None: what is fast on this device.
    """

    query: Points | Waiting
    gallery: Points | Waiting
    itself: Tensor | None
    memory: float
    screens: dict[torch.dtype, Screen] = field(default_factory=dict)
    dtypes: tuple[torch.dtype, ...] | None = None

    @property
    def device(self) -> torch.device:
        return self.query.rows.device

    def on_grid(self) -> Search:
        """The same with the queries on the grid: few enough to hold."""
        return replace(self, query=self.query.on_grid())

    def __getitem__(self, rows: Tensor) -> Search:
        """These queries only; where they are all of them, nothing is copied."""
        if len(rows) == len(self.query) and bool((rows.diff() == 1).all()):
            return self
        itself = None if self.itself is None else self.itself[rows]
        return replace(self, query=self.query[rows], itself=itself)

    def pieces(self) -> Iterator[tuple[int, Search]]:
        """(start, search) in one part of the gallery after the other: screens take memory too."""
        size = piece_size(self.gallery.width, self.memory)
        if len(self.gallery) <= size and isinstance(self.gallery, Points):
            yield 0, self
            return
        for start, piece in blocks(self.gallery, size):
            itself = None if self.itself is None else self.itself - start
            yield start, Search(self.query, piece.on_grid(), itself, self.memory)

    def screen(self, dtype: torch.dtype) -> Screen:
        if dtype not in self.screens:
            self.screens[dtype] = Screen(self.query, self.gallery.on_grid(), dtype)
        return self.screens[dtype]

    def own_places(self, start: int, size: int) -> tuple[Tensor, Tensor]:
        """(row, column) of every query that meets itself in these columns of the gallery."""
        if self.itself is None:
            none = torch.empty(0, dtype=torch.int64, device=self.device)
            return none, none
        place = self.itself - start
        row = ((place >= 0) & (place < size)).nonzero()[:, 0]
        return row, place[row]


def search_of(
    query: Tensor,
    gallery: Tensor | None,
    metric: str,
    memory: float,
    itself: Tensor | None = None,
) -> Search:
    """The search of queries in a gallery, or each among all the others.

    Sets that would take more than a quarter of the memory on the grid go there part by part.
    """
    if gallery is None:
        itself = torch.arange(len(query), device=query.device)
    rows = len(query) + (0 if gallery is None else len(gallery))
    prepared = points_of if rows * (4 * query.shape[1] + 16) <= memory / 4 else waiting_of
    return Search(*prepared(query, gallery, metric), itself, memory)


def piece_size(width: int, memory: float) -> int:
    """How many items of a gallery (M, width) are searched at a time."""
    return max(4096, int(memory / 16 / width))


def nearest_keys(search: Search, k: int) -> Tensor:
    """The k largest keys (B, k) of each query, in descending order."""
    found = torch.full((len(search.query), k), NOTHING, device=search.device)
    for start, piece in search.pieces():
        for rows, keys in _nearest_in(piece, min(k, len(piece.gallery))):
            keys = torch.where(keys == NOTHING, NOTHING, keys - start)
            found[rows] = torch.cat([found[rows], keys], 1).topk(k).values
    return found


def ranks(search: Search, targets: Tensor) -> Tensor:
    """The rank (B,) of one gallery item each, given by its key: 1 + the number of larger keys."""
    above = torch.zeros_like(targets)
    for start, piece in search.pieces():
        for rows, count in _above_in(piece, targets + start):
            above[rows] += count
    return 1 + above


Found = Iterator[tuple[Tensor, Tensor]]
"""(positions of queries, what was found for them)"""


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

    def cheap(rows: Tensor, screen: Screen, scores: Tensor, error: Tensor) -> tuple:
        return _nearest_screened(search[rows].on_grid(), k, screen, scores, error)

    balanced = (len(search.gallery) / (3 * k)) ** 0.5  # between the work on groups and in them
    return _cascade(search, balanced, cheap, exact)


def _above_in(search: Search, targets: Tensor) -> Found:
    """How many keys of one piece of the gallery are larger than each query's target."""
    few = copies_in(search)
    if few:
        return copies.above(search, *few, targets)

    def exact(rows: Tensor, tiles: Iterator[Tensor]) -> Tensor:
        return torch.stack([(keys > targets[rows, None]).sum(1) for keys in tiles]).sum(0)

    spare: dict[torch.dtype, Tensor] = {}  # fresh memory for each block costs as much as the rest

    def cheap(rows: Tensor, screen: Screen, scores: Tensor, error: Tensor) -> tuple:
        mask = spare.setdefault(scores.dtype, torch.empty_like(scores))[: len(scores)]
        return _above_screened(search[rows].on_grid(), targets[rows], screen, scores, error, mask)

    return _cascade(search, len(search.gallery) / GROUP, cheap, exact)


def copies_in(search: Search) -> tuple[copies.Copies, copies.Copies] | None:
    """The distinct queries and gallery items, where both are few; else None."""
    if len(search.query) < copies.LEAST:
        return None
    gallery = copies.copies(search.gallery)
    query = gallery if search.query is search.gallery else gallery and copies.copies(search.query)
    return (query, gallery) if query and gallery else None


def _cascade(
    search: Search,
    group: float,
    cheap: Callable[[Tensor, Screen, Tensor, Tensor], tuple[Tensor, Tensor]],
    exact: Callable[[Tensor, Iterator[Tensor]], Tensor],
) -> Found:
    """Ask screens of rising precision, then brute force, each for what is still unproved.

    A screen that proves less than a quarter of a block is given up: it would not pay. Nor do
    groups of fewer than four.
    """
    left = torch.arange(len(search.query), device=search.device)
    group = min(GROUP, 2 ** int(math.log2(max(group, 1))))
    dtypes = precisions(search.device) if search.dtypes is None else search.dtypes
    for dtype in dtypes if group >= 4 else ():
        screen = search.screen(dtype)
        unproved, seen = [], 0
        for rows, scores, error in _screened(search, screen, left, group):
            proved, found = cheap(rows, screen, scores, error)
            yield rows[proved], found
            unproved.append(rows[~proved])
            seen += len(rows)
            if 4 * len(found) < len(rows):
                break
        left = torch.cat([*unproved, left[seen:]])
        if not len(left):
            return
    for _, rows in blocks(left, max(1, min(1024, int(search.memory / (64 * TILE))))):
        yield rows, exact(rows, key_tiles(search[rows].on_grid()))


def key_tiles(search: Search) -> Iterator[Tensor]:
    """Brute force: the keys of all queries, for one part of the gallery after the other."""
    query = search.query.on_grid()
    for start, piece in blocks(search.gallery.on_grid(), TILE):
        indices = torch.arange(start, start + len(piece), device=search.device)
        keys = to_keys(similarities(query, piece), indices)
        keys[search.own_places(start, len(piece))] = NOTHING
        yield keys


def _screened(
    search: Search, screen: Screen, rows: Tensor, group: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(positions, scores (B, G, W), error (B,)) of block after block of these queries.

    Group w is the gallery items {w, w + W, w + 2W, ...}; a score of -inf stands for no item.
    """
    tall = int(min(search.memory / 4, 2**26) / len(screen.rows) / screen.rows.element_size())
    tall = max(1, min(512, tall, len(rows)))
    buffer = screen.rows.new_empty(tall, len(screen.rows))  # fresh memory for each costs as much
    for _, block in blocks(rows, tall):  # as the product
        part = search[block].on_grid()
        scores, error = screen.scores(part.query.on_grid(), out=buffer[: len(block)])
        scores[:, screen.size :] = -torch.inf
        scores[part.own_places(0, screen.size)] = -torch.inf
        yield block, scores.view(len(block), group, -1), error


def _nearest_screened(
    search: Search, k: int, screen: Screen, scores: Tensor, error: Tensor
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
    proved &= torch.bincount(row, minlength=len(proved)) <= few
    kept = proved[row]
    return proved, key_lists(search, row[kept], column[kept], k)[proved].topk(k).values


def _above_screened(
    search: Search, targets: Tensor, screen: Screen, scores: Tensor, error: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) bool, for which queries the screen sufficed, and their counts of larger keys.

    Items screened above `high` are surely nearer than the target, those below `low` surely
    not; the few between are computed. bfloat16 can count to 256, and a group is smaller. `mask`
    is overwritten: a comparison in the type of the scores is added up the more quickly.
    """
    exact = screen.score_of(search.query.on_grid(), from_keys(targets)[0])
    low, high = screen.lower(exact, error), screen.upper(exact, error)
    above = torch.gt(scores, high[:, None, None], out=mask).sum(1)  # (B, W)
    unsure = torch.ge(scores, low[:, None, None], out=mask).sum(1) - above
    proved = (unsure.float().sum(1) <= 256) & low.isfinite()
    row, column = members(scores, (unsure > 0) & proved[:, None], low, high)
    larger = key_lists(search, row, column) > targets[:, None]
    return proved, (above.float().sum(1).long() + larger.sum(1))[proved]


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


def key_lists(search: Search, row: Tensor, column: Tensor, width: int = 0) -> Tensor:
    """(B, C) keys of pairs, of which (P,) row is sorted: to each row its own, and NOTHING after.

    C is the length of the longest list, and at least `width`. Lists of like length are computed
    together, a few at a time, so that they stay in cache.
    """
    count = torch.bincount(row, minlength=len(search.query))
    longest = max(width, int(count.max()))
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    columns = row.new_zeros(len(count), longest)
    columns[row, place] = column
    found = torch.zeros_like(columns, dtype=torch.float32)
    query, gallery = search.query.on_grid(), search.gallery.on_grid()
    some = 1024 if row.device.type == "cpu" else 2**16
    order = count.argsort()
    while len(order) and (length := int(count[order[-1]])):
        order, rows = order.tensor_split([-max(1, some // length)])
        part = columns[rows, :length]
        found[rows, :length] = listed_similarities(query[rows], gallery, part)
    nothing = torch.arange(longest, device=row.device) >= count[:, None]
    return to_keys(found, columns).masked_fill_(nothing, NOTHING)
