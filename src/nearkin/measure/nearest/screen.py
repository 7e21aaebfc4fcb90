"""Cheap scores that tell where to look: low-precision products with a proven bound on their error.

The score of gallery item y for query x is

    cosine, inner   x . (y - m)                    =  (x - c) . (y - m) + b,  b = c . (y - m)
    Euclidean       (|x - m|^2 - |x - y|^2) / 2    =  (x - c) . (y - m) + b,  b = -|y - m|^2 / 2

an increasing function of their similarity, for each query its own. m is the gallery's mean, and
c that of the queries (Euclidean: m): what all have in common is taken out, so that numbers and
their errors are small. b rides in three more columns of the product, and is left out where c is
near 0.

With x', y' the rounded x - c and y - m (D columns), b' the rounded b, u the rounding of a sum
and v that of the result, the score before its own rounding is wrong by at most

    |x'| |y - m - y'| + |x - c - x'| |y - m| + |b - b'|     rounding of the inputs
    + D u (|x'| |y'| + 2 |b|)                               the sum, in whatever order
    + what the similarity loses in its rounding to float32  (exact.py)

by the inequality of Cauchy and Schwarz, and by v times its own size more after it.

Dimensions: B queries, M gallery, D columns.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from nearkin.measure.nearest.exact import IN_CACHE, Points, Waiting, blocks, power_above

SUM = 2.0**-23
"""u: twice float32's rounding, so that hardware which cuts instead of rounding is covered"""
GROUP = 64
"""items of the gallery that stand side by side; as many or fewer are looked at together"""
RESULT = {torch.bfloat16: 1.02 * 2.0**-8, torch.float32: 0.0, torch.int32: 0.0}
"""v: a bfloat16 product is rounded to 8 bits once more; 1.02 covers 1 / (1 - v)"""


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast, float32 products in float32: what the bounds rely on."""
    precision = torch.get_float32_matmul_precision()
    cuda = torch.backends.cuda.matmul
    reduced = cuda.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    cuda.allow_bf16_reduced_precision_reduction = False
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        cuda.allow_bf16_reduced_precision_reduction = reduced


@cache
def precisions(device: torch.device) -> tuple[torch.dtype, ...]:
    """What to screen in, cheapest first: each where its products are clearly the faster ones.

    int8 is what IntegerScreen takes.
    """
    times = {}
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        x = torch.ones(1024, 512, dtype=dtype, device=device)
        if dtype == torch.int8 and not integers_are_exact(x):
            continue
        trials = []
        for _ in range(4):
            start = time.perf_counter()
            out = torch._int_mm(x, x.T) if dtype == torch.int8 else torch.mm(x, x.T)
            float(out[0, 0])  # waits for a GPU
            trials.append(time.perf_counter() - start)
        times[dtype] = min(trials)
    order = [torch.float32]
    for dtype in times:
        if times[dtype] < 0.7 * times[order[0]]:
            order.insert(0, dtype)
    return tuple(order)


def integers_are_exact(ones: Tensor) -> bool:
    """Whether torch multiplies 8-bit integers here, and no sum of two products is cut to 16 bits,
    as it would be by processors without instructions for it."""
    if ones.device.type != "cpu":
        return False
    try:
        large = torch._int_mm(127 * ones, -127 * ones.T)
    except (AttributeError, RuntimeError):
        return False
    return bool((large == -127 * 127 * ones.shape[1]).all())


@dataclass(frozen=True)
class Scores:
    """Screened scores of some queries, and how wrong they can be.

    values: (B, M), or by groups (B, W, G), in multiples of step; `nothing` stands for no item.
    error: (B,) how wrong each query's can be before their own rounding.
    step: (B,) what an integer counts; 1 where values are floats.
    """

    values: Tensor
    error: Tensor
    step: Tensor

    @property
    def nothing(self) -> float:
        """Less than any score: -inf, or the smallest integer."""
        return lowest(self.values.dtype)

    def surely(self, screened: Tensor) -> Tensor:
        """What the exact score of an item with this screened score is at least."""
        screened = screened.double()
        return (screened - RESULT[self.values.dtype] * screened.abs()) * self.step - self.error

    def lower(self, score: Tensor) -> Tensor:
        """An item with this exact score, or a higher one, is not screened below."""
        bound = (score - self.error) / self.step
        return self._rounded(bound - RESULT[self.values.dtype] * bound.abs(), -torch.inf)

    def upper(self, score: Tensor) -> Tensor:
        """An item with this exact score, or a lower one, is not screened above."""
        bound = (score + self.error) / self.step
        return self._rounded(bound + RESULT[self.values.dtype] * bound.abs(), torch.inf)

    def _rounded(self, bound: Tensor, towards: float) -> Tensor:
        """(B,) in the scores' precision, rounded towards minus or plus infinity."""
        dtype = self.values.dtype
        if not dtype.is_floating_point:
            whole = bound.floor() if towards < 0 else bound.ceil()
            return whole.nan_to_num(-torch.inf).clamp(-(2.0**31), 2.0**31 - 1).to(dtype)
        near = bound.to(dtype)
        passed = near.double() > bound if towards < 0 else near.double() < bound
        return torch.where(passed, torch.nextafter(near, torch.full_like(near, towards)), near)


class Screen:
    """Low-precision scores of one gallery for some queries, and how wrong they can be.

    query: whose centre c is taken out; None, for a screen of any queries: none is.
    dtype: torch.bfloat16 or torch.float32.
    rows: (M padded with zeros to a multiple of GROUP, columns) of that type. Items that stand side
        by side in the gallery are often alike, and stand far apart here: with W = rows / GROUP,
        rows w GROUP, w GROUP + 1, ... are the items w, w + W, ....
    """

    rows: Tensor
    norm: Tensor
    """the largest |y'|, and of all others below"""
    loss: Tensor
    """|y - m - y'|"""
    offset: Tensor
    """|b|"""
    offset_loss: Tensor
    """|b - b'|"""

    def __init__(self, query: Points | Waiting | None, gallery: Points, dtype: torch.dtype) -> None:
        self._take(gallery)
        if self.euclidean:
            self.centre, self.lifted = self.mean, True
        elif query is None:
            self.centre, self.lifted = torch.zeros_like(self.mean), False
        else:
            self.centre = _mean(part.on_grid().rows.double() for _, part in blocks(query, IN_CACHE))
            self.lifted = bool(self.centre.norm() > 0.1)
            self.centre *= self.lifted
        columns = up(self.width + 3 * self.lifted, 32)  # whole tiles are multiplied more quickly
        self._fill_all(gallery, torch.zeros(up(self.size, GROUP), columns, dtype=dtype))

    @property
    def scored(self) -> torch.dtype:
        """The type of the scores."""
        return self.rows.dtype

    def _take(self, gallery: Points) -> None:
        """The gallery's size, scale and mean.

        It is scaled by a power of two to norms below 1; the queries of cosine and inner product
        each on their own: rows on the grid are.
        """
        self.euclidean = gallery.metric == "euclidean"
        self.size, self.width = gallery.rows.shape
        largest = gallery.square.max().sqrt()
        self.unit = power_above(largest)
        self.largest = largest / self.unit
        self.mean = _mean(self._scaled(block) for _, block in blocks(gallery, IN_CACHE))

    def _fill_all(self, gallery: Points, rows: Tensor) -> None:
        self.rows = rows.to(gallery.rows.device)
        bounds = []
        for start, block in blocks(gallery, IN_CACHE):
            part = self.rows.new_zeros(len(block), rows.shape[1])
            bounds.append(self._fill(part, block))
            items = torch.arange(start, start + len(block), device=part.device)
            self.rows[self.places(items)] = part
        self.norm, self.loss, self.offset, self.offset_loss = torch.stack(bounds).amax(0)

    def places(self, items: Tensor) -> Tensor:
        """In which rows items of the gallery stand."""
        apart = len(self.rows) // GROUP
        return items % apart * GROUP + items // apart

    def items(self, places: Tensor) -> Tensor:
        """Which items of the gallery stand in these rows."""
        return places % GROUP * (len(self.rows) // GROUP) + places // GROUP

    def _fill(self, rows: Tensor, gallery: Points) -> Tensor:
        """Round gallery items into `rows`; the largest |y'|, |y - m - y'|, |b| and |b - b'|."""
        items = self._scaled(gallery) - self.mean
        rows[:, : self.width] = items
        kept = rows[:, : self.width].double()
        bounds = [norm(kept).max(), norm(items - kept).max()]
        if not self.lifted:
            return torch.stack([*bounds, torch.zeros_like(self.unit), torch.zeros_like(self.unit)])
        offset = self._offset(items)
        rest = offset.clone()
        for column in range(self.width, self.width + 3):
            rows[:, column] = rest
            rest -= rows[:, column].double()
        return torch.stack([*bounds, offset.abs().max(), rest.abs().max()])

    def _offset(self, items: Tensor) -> Tensor:
        """b (M,) of y - m."""
        return -(items * items).sum(1) / 2 if self.euclidean else items @ self.centre

    def _centred(self, query: Points) -> Tensor:
        """(B, D) float64: x - c."""
        return (self._scaled(query) if self.euclidean else query.rows.double()) - self.centre

    def scores(self, query: Points, out: Tensor) -> Scores:
        """The scores (B, M) of the rows in their order, in `out`."""
        items = self._centred(query)
        rows = torch.zeros(len(query), self.rows.shape[1], dtype=self.scored, device=items.device)
        rows[:, : self.width] = items
        rows[:, self.width : self.width + 3 * self.lifted] = 1
        torch.mm(rows, self.rows.T, out=out)
        kept = rows[:, : self.width].double()
        size, loss = norm(kept), norm(items - kept)
        error = rows.shape[1] * SUM * (size * self.norm + 2 * self.offset)
        error += self.inputs_rounding(query, size, loss)
        return Scores(out, error, torch.ones_like(error))

    def inputs_rounding(self, query: Points, size: Tensor, loss: Tensor) -> Tensor:
        """(B,) the part of the error that is not of the sum, with |x'| and |x - c - x'| (B,)."""
        error = size * self.loss + loss * (self.norm + self.loss) + self.offset_loss
        error += 2.0**-100  # what underflows
        return error + self._similarity_rounding(query, size + loss + self.norm + self.loss)

    def score_of(self, query: Points, similarity: Tensor) -> Tensor:
        """(B,) float64: the score of an item of this similarity to its query."""
        if self.euclidean:
            square = norm(self._scaled(query) - self.mean) ** 2
            return (square - (similarity.double() / self.unit) ** 2) / 2
        return similarity.double() / (query.scale * self.unit) - query.rows.double() @ self.mean

    def _similarity_rounding(self, query: Points, spread: Tensor) -> Tensor:
        """(B,) by how much float32's rounding of a similarity can move a score.

        spread: (B,) what |x - m| + |y - m| is at most. Infinite where float32 would overflow.
        """
        if self.euclidean:  # of |x - y| <= spread, after float64's of |x|^2 + |y|^2 - 2 x.y
            size = query.square.sqrt() / self.unit
            scale, most = self.unit, (size + self.largest) ** 2
            moved = 2.0**-23 * spread**2 + 2.0**-50 * most
        else:
            scale, most = query.scale * self.unit, query.square.sqrt() / query.scale * self.largest
            moved = 2.0**-23 * most
        moved = moved + 2.0**-148 / scale * (1 + most.sqrt())  # near float32's smallest number
        fits = (scale * (1 + most) < 2.0**126) & (most < 2.0**120)
        return torch.where(fits, moved, torch.inf)

    def _scaled(self, points: Points) -> Tensor:
        return points.rows.double() * (points.scale / self.unit)[:, None]


def norm(x: Tensor) -> Tensor:
    """Euclidean norms of the rows."""
    return torch.linalg.vector_norm(x, dim=1)


def lowest(dtype: torch.dtype) -> float:
    """What stands for no item among scores of this type."""
    return -torch.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _mean(parts: Iterable[Tensor]) -> Tensor:
    """The mean row of all parts."""
    sums, sizes = zip(*((part.sum(0), len(part)) for part in parts), strict=True)
    return torch.stack(sums).sum(0) / sum(sizes)


def up(size: int, step: int) -> int:
    """The multiple of `step` at or above `size`."""
    return -(-size // step) * step
