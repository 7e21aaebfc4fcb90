"""A screen in 8-bit integers, whose products are three to four times as quick as those of float32
on processors that have instructions for them, and exact: only the rounding of the inputs counts.

The score is that of screen.py. As one step, s for the gallery, is to fit all coordinates, y - m is
turned first by an orthogonal R that spreads each over all of them, and x - c with it, so that their
product stays. With D = 32 P columns, R is random signs, then the cosine transforms of P and of 32:

    R = (C_P (x) C_32) diag(signs),    C_n[i, j] = sqrt(2 / n) cos(pi i (2 j + 1) / 2 n),  i > 0

b rides in SPREAD more columns of the gallery, whose sum is b / (s B) to the nearest integer, where
the query has B; its own step is B over an integer. Centre c is m, in the scale of the queries.

Dimensions: B queries, M gallery, D columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearkin.measure.nearest.exact import IN_CACHE, Points, blocks
from nearkin.measure.nearest.screen import GROUP, Scores, Screen, norm, up

MOST = 127
"""the largest number in 8 bits whose negative is one, too"""
SPREAD = 32
"""columns over which b is spread: a whole tile"""
TINY = 2.0**-120


class IntegerScreen(Screen):
    """Scores in int32 of one gallery for any queries, and how wrong they can be."""

    def __init__(self, gallery: Points) -> None:
        self._take(gallery)
        self.lifted = self.euclidean or bool(self.mean.norm() > 0.1 * self.largest)
        self.mean *= self.lifted
        self.size_of_query = 1 if self.euclidean else 1 / self.largest.clamp_min(TINY)
        self.centre = self.mean * self.size_of_query
        self.turn = Turn(self.width, gallery.rows.device)
        self.columns = self.turn.columns
        self._choose_steps(gallery)
        shape = up(self.size, GROUP), self.columns + SPREAD * self.lifted
        self._fill_all(gallery, torch.zeros(shape, dtype=torch.int8))
        self.offset, self.offset_loss = (
            each * self.size_of_query for each in (self.offset, self.offset_loss)
        )

    @property
    def scored(self) -> torch.dtype:
        return torch.int32

    def _offset(self, items: Tensor) -> Tensor:
        """b (M,) for queries in the scale of the gallery."""
        return -(items * items).sum(1) / 2 if self.euclidean else items @ self.mean

    def _choose_steps(self, gallery: Points) -> None:
        """s, and B = s times an integer: the smallest in which all of the gallery fits."""
        step = offset = torch.full_like(self.unit, TINY)
        for _, block in blocks(gallery, IN_CACHE):
            items = self._scaled(block) - self.mean
            step = torch.maximum(step, self.turn(items).abs().max() / MOST)
            if self.lifted:
                offset = torch.maximum(offset, self._offset(items).abs().max())
        most = SPREAD * MOST
        self.step = torch.maximum(step, (offset / most / MOST).sqrt())
        self.lift = (offset / most / self.step**2).ceil().clamp(1, MOST) * self.step

    def _fill(self, rows: Tensor, gallery: Points) -> Tensor:
        items = self._scaled(gallery) - self.mean
        turned = self.turn(items)
        whole = (turned / self.step).round_().clamp_(-MOST, MOST)
        rows[:, : self.columns] = whole
        kept = whole * self.step
        bounds = [norm(kept).max(), norm(turned - kept).max()]
        if not self.lifted:
            return torch.stack([*bounds, torch.zeros_like(self.unit), torch.zeros_like(self.unit)])
        offset = self._offset(items)
        whole = (offset / (self.step * self.lift)).round()
        rest = whole.clone()
        for column in range(self.columns, self.columns + SPREAD):
            rows[:, column] = rest.clamp(-MOST, MOST)
            rest -= rows[:, column]
        loss = offset - (whole - rest) * self.step * self.lift
        return torch.stack([*bounds, offset.abs().max(), loss.abs().max()])

    def scores(self, query: Points, out: Tensor) -> Scores:
        turned = self.turn(self._centred(query))
        step = (turned.abs().amax(1) / MOST).clamp_min(TINY)
        rows = torch.zeros(len(query), self.rows.shape[1], dtype=torch.int8, device=out.device)
        if self.lifted:
            lift = self.lift * self.size_of_query
            times = (lift / step).floor().clamp(1, MOST)
            step = lift / times
            rows[:, self.columns : self.columns + SPREAD] = times[:, None]
        whole = (turned / step[:, None]).round_().clamp_(-MOST, MOST)
        rows[:, : self.columns] = whole
        torch._int_mm(rows, self.rows.T, out=out)
        kept = whole * step[:, None]
        size, loss = norm(kept), norm(turned - kept)
        error = self.inputs_rounding(query, size, loss) + self.turning(size + loss)
        return Scores(out, error, step * self.step)

    def turning(self, size: Tensor) -> Tensor:
        """(B,) how much float64 loses in R and in bounds, for queries of this |x - c|."""
        return self.rows.shape[1] * 2.0**-49 * (size * (self.norm + self.loss) + self.offset)


class Turn:
    """R, for items (N, width); columns: D, the multiple of 32 at or above width."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.columns = up(width, 32)
        random = torch.Generator().manual_seed(0)
        signs = torch.randint(2, (width,), generator=random) * 2.0 - 1
        self.signs = signs.double().to(device)
        self.left, self.right = (cosines(size).to(device) for size in (self.columns // 32, 32))

    def __call__(self, items: Tensor) -> Tensor:
        signed = items.new_zeros(len(items), self.columns)
        torch.mul(items, self.signs, out=signed[:, : items.shape[1]])
        turned = self.left @ (signed.view(len(items), -1, 32) @ self.right.T)
        return turned.view(len(items), -1)


def cosines(size: int) -> Tensor:
    """(size, size) float64, orthogonal: the discrete cosine transform."""
    i, j = torch.arange(size, dtype=torch.double)[:, None], torch.arange(size, dtype=torch.double)
    found = torch.cos(math.pi * i * (2 * j + 1) / (2 * size)) * math.sqrt(2 / size)
    found[0] /= math.sqrt(2)
    return found
