"""Some queries and what they are searched in; brute force: exact keys of whole tiles or of lists.

The similarity of a pair is that of exact.py: the same bits in whatever block it is met.

Dimensions: B queries, M gallery, D embedding, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nearkin.measure.inputs import check_memory
from nearkin.measure.nearest.exact import (
    Points,
    Spare,
    Waiting,
    blocks,
    listed_similarities,
    points_of,
    similarities,
    to_keys,
    waiting_of,
)
from nearkin.measure.nearest.integers import IntegerScreen
from nearkin.measure.nearest.screen import Screen

NOTHING = torch.iinfo(torch.int64).min
"""a key below all others"""
TILE = 8192
"""columns at a time of brute force"""
SOME = 512
"""pairs at a time of lists"""


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
            self.screens[dtype] = screen_of(self.query, self.gallery.on_grid(), dtype)
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
    check_memory(memory)
    if gallery is None:
        itself = torch.arange(len(query), device=query.device)
    rows = len(query) + (0 if gallery is None else len(gallery))
    prepared = points_of if rows * (4 * query.shape[1] + 16) <= memory / 4 else waiting_of
    return Search(*prepared(query, gallery, metric), itself, memory)


def screen_of(query: Points | Waiting | None, gallery: Points, dtype: torch.dtype) -> Screen:
    """The screen of a gallery for these queries, or for any; its products are of this type."""
    return IntegerScreen(gallery) if dtype == torch.int8 else Screen(query, gallery, dtype)


def piece_size(width: int, memory: float) -> int:
    """How many items of a gallery (M, width) are searched at a time."""
    return max(4096, int(memory / 16 / width))


def key_tiles(search: Search) -> Iterator[Tensor]:
    """Brute force: the keys of all queries, for one part of the gallery after the other."""
    query = search.query.on_grid()
    for start, piece in blocks(search.gallery.on_grid(), TILE):
        indices = torch.arange(start, start + len(piece), device=search.device)
        keys = to_keys(similarities(query, piece), indices)
        keys[search.own_places(start, len(piece))] = NOTHING
        yield keys


def key_lists(search: Search, row: Tensor, column: Tensor, width: int = 0) -> Tensor:
    """(B, C) keys of pairs, of which (P,) row is sorted: to each row its own, and NOTHING after.

    C is the length of the longest list, and at least `width`. Lists of like length are computed
    together, a few at a time, so that they stay in cache.
    """
    count, place = in_lists(row, len(search.query))
    longest = max(width, int(count.max()))
    columns = row.new_zeros(len(count), longest)
    columns[row, place] = column
    found = torch.zeros_like(columns, dtype=torch.float32)
    query, gallery = search.query.on_grid(), search.gallery.on_grid()
    some = SOME if row.device.type == "cpu" else 2**16
    spare = Spare.of(min(max(some, longest), columns.numel()), gallery)
    order = count.argsort()
    while len(order) and (length := int(count[order[-1]])):
        order, rows = order.tensor_split([-max(1, some // length)])
        part = columns[rows, :length]
        found[rows, :length] = listed_similarities(query[rows], gallery, part, spare)
    nothing = torch.arange(longest, device=row.device) >= count[:, None]
    return to_keys(found, columns).masked_fill_(nothing, NOTHING)


def in_lists(row: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How many pairs (size,) a row has, and the place (P,) of each among them; row is sorted."""
    count = torch.bincount(row, minlength=size)
    return count, torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
