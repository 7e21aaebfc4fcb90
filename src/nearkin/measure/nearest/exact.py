"""What a similarity is, to the last bit: one number a pair, whoever computes it, in any order.

A matrix product in floating point depends on how it is cut into blocks, so two equal rows may
get unequal scores, and ties become noise. Here rows are first put on a grid: coordinates are
multiples of 2^-24 of a power of two above the row's norm (as fine as float32 is at the largest
of them). Products are then multiples of 2^-48 and their sums stay below 2^5, so that float64
holds every partial sum exactly: any order, block, thread or device gives the same bits. The
similarity is that exact number rounded once to float32; equal ones are ties, and the lower
index goes first.

Dimensions: N items, B queries, M gallery, P pairs, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nearkin.measure.inputs import check_embeddings
from nearkin.registry import METRICS

Array = Tensor | ArrayLike
"""what is a tensor or becomes one: arrays of NumPy, lists, tables of pandas"""
STEPS = 2.0**24
LOW_BITS = 2**32 - 1
IN_CACHE = 512
"""rows at a time of what is done row by row in float64"""


@dataclass(frozen=True)
class Points:
    """Embeddings on the grid: item i is scale[i] * rows[i], with |rows[i]| < 2.

    rows: (N, D) float32, multiples of 2^-24.
    scale: (N,) float64, powers of two; all 1 for the cosine, whose rows are unit vectors.
    square: (N,) float64, the squared norm of the item, exact.
    """

    rows: Tensor
    scale: Tensor
    square: Tensor
    metric: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> Points:
        if isinstance(which, Tensor) and which.dtype == torch.int64:
            rows = self.rows.index_select(0, which)
        else:
            rows = self.rows[which]
        return Points(rows, self.scale[which], self.square[which], self.metric)

    @property
    def width(self) -> int:
        """D"""
        return self.rows.shape[1]

    def on_grid(self) -> Points:
        return self


@dataclass(frozen=True)
class Waiting:
    """Embeddings that go on the grid when and where they are needed, as Points of all take memory.

    x: all of them, perhaps memory-mapped; rows: (N,) which of them these are.
    """

    x: Tensor
    rows: Tensor
    metric: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> Waiting:
        return Waiting(self.x, self.rows[which], self.metric)

    @property
    def width(self) -> int:
        """D"""
        return self.x.shape[1]

    def on_grid(self) -> Points:
        return points(self.x.detach().index_select(0, self.rows), self.metric)


Rows = TypeVar("Rows", Tensor, Points, Waiting, Points | Waiting)


def blocks(x: Rows, size: int) -> Iterator[tuple[int, Rows]]:
    """(start, x[start : start + size]) for one start after the other."""
    for start in range(0, len(x), size):
        yield start, x[start : start + size]


def points(x: Tensor, metric: str = "cosine") -> Points:
    """Put embeddings x (N, D) on the grid. A zero row has cosine 0 to everything."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    rows = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    scale = torch.ones(len(x), dtype=torch.float64, device=x.device)
    square = torch.empty_like(scale)
    for start, block in blocks(x.detach(), IN_CACHE):
        here = slice(start, start + len(block))
        block = block.float().double()
        norm = torch.linalg.vector_norm(block, dim=1)
        if metric == "cosine":
            block /= torch.where(norm == 0, 1, norm)[:, None]
        else:
            scale[here] = power_above(norm)
            block /= scale[here, None]
        rows[here] = block.mul_(STEPS).round_().div_(STEPS)
        square[here] = block.square_().sum(1) * scale[here] ** 2
    return Points(rows, scale, square, metric)


def points_of(query: Tensor, gallery: Tensor | None, metric: str) -> tuple[Points, Points]:
    """Both sets on the grid, checked; without a gallery the queries are searched themselves."""
    check_both(query, gallery, metric)
    asked = points(query, metric)
    return asked, asked if gallery is None or gallery is query else points(gallery, metric)


def waiting_of(query: Tensor, gallery: Tensor | None, metric: str) -> tuple[Waiting, Waiting]:
    """Both sets, checked, as those that wait."""
    check_both(query, gallery, metric)
    asked, searched = (
        Waiting(x, torch.arange(len(x), device=x.device), metric)
        for x in (query, query if gallery is None else gallery)
    )
    return asked, searched


def check_both(query: Tensor, gallery: Tensor | None, metric: str) -> None:
    """Refuse an unknown metric, what has no neighbours, and sets of different width."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    check_embeddings(query, "query", zero=True)
    if gallery is None or gallery is query:
        return
    check_embeddings(gallery, "gallery", zero=True)
    if gallery.shape[1] != query.shape[1]:
        wanted = f"as many columns as query, {query.shape[1]}"
        raise ValueError(f"gallery must have {wanted}, got {gallery.shape[1]}")


def power_above(x: Tensor) -> Tensor:
    """The power of two in (x, 2x]; 1 for 0."""
    return torch.where(x == 0, 1, x / torch.frexp(x).mantissa)


def similarities(query: Points, gallery: Points) -> Tensor:
    """(B, M) float32: cosine, inner product, or minus the Euclidean distance."""
    dots = query.rows.double() @ gallery.rows.double().T
    if query.metric == "cosine":
        return dots.float()
    scale = query.scale[:, None] * gallery.scale
    return _finish(dots, scale, query.square[:, None] + gallery.square, query.metric)


@dataclass(frozen=True)
class Spare:
    """Memory for the rows of listed pairs, used again and again: fresh pages cost as much as the
    work that is done in them.

    rows: (P, D) float32. products: (P, D) float64.
    """

    rows: Tensor
    products: Tensor

    @staticmethod
    def of(size: int, gallery: Points) -> Spare:
        """Memory for so many pairs with items of this gallery."""
        shape = size, gallery.width
        return Spare(
            gallery.rows.new_empty(shape), gallery.rows.new_empty(shape, dtype=torch.double)
        )


def listed_similarities(query: Points, gallery: Points, columns: Tensor, spare: Spare) -> Tensor:
    """(B, C) float32: of each query to its own list of items, columns (B, C); the same bits."""
    rows, products = spare.rows[: columns.numel()], spare.products[: columns.numel()]
    # index_select gathers whole rows, several times as quickly as indexing does
    torch.index_select(gallery.rows, 0, columns.flatten(), out=rows)
    rows, products = (each.view(*columns.shape, -1) for each in (rows, products))
    # twice as quick as torch's batched product of a matrix and a vector
    dots = torch.mul(rows, query.rows.double()[:, None], out=products).sum(2)
    if query.metric == "cosine":
        return dots.float()
    scale = query.scale[:, None] * gallery.scale[columns]
    return _finish(dots, scale, query.square[:, None] + gallery.square[columns], query.metric)


def _finish(dots: Tensor, scale: Tensor, squares: Tensor, metric: str) -> Tensor:
    if metric == "euclidean":  # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y
        return -(squares - 2 * scale * dots).clamp_min_(0).sqrt_().float()
    return (dots * scale).float()


def to_keys(similarity: Tensor, indices: Tensor) -> Tensor:
    """int64 that sort as neighbours do: larger similarity first, then the lower index.

    The upper half is the float's bits, turned so that integers order them; the lower half the
    index, counted down. No two items of a row share a key, so top-k has one right answer.
    """
    bits = (similarity + 0.0).view(torch.int32).long()  # + 0.0: minus zero equals zero
    return (_turn(bits) << 32) + (LOW_BITS - indices)


def from_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """similarity and indices of `to_keys`."""
    return _turn(keys >> 32).int().view(torch.float32), LOW_BITS - (keys & LOW_BITS)


def _turn(bits: Tensor) -> Tensor:
    """Bits of a negative float count down; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
