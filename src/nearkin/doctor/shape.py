"""The shape of a batch or a set of embeddings: how far spread, in how many directions, whose kin.

Dimensions: N items, D embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nearkin.tensors import squared_distances, unit

MOST = 256  # items of a batch that are looked at: eigenvalues of more take long

ROUNDING = 1e-6  # share of the variance that is no more than rounding


@dataclass(frozen=True)
class Shape:
    """What embeddings look like; all of the space in which they are compared.

    metric: by which they are compared.
    spread: mean squared distance to their mean, as a share of their mean squared length.
    first: share of the variance in the first principal direction.
    directions, needed: how many principal directions hold 95 % and 99 % of the variance.
    rest, remainder: lift without the first direction, and without the `directions`; NaN where
        these hold so little, or are so many, that nobody would ask.
    enough: lift in the `needed` alone; NaN where these are too many to ask.
    recall, chance: share of the items with kin whose nearest other is kin, and that of chance;
        NaN where none has kin.
    near, far: mean distance to kin and to others.
    """

    metric: str
    items: int
    classes: int
    dim: int
    spread: float
    first: float
    rest: float
    directions: int
    needed: int
    remainder: float
    enough: float
    recall: float
    chance: float
    near: float
    far: float

    @property
    def lift(self) -> float:
        """How far R@1 is above chance: 0 at chance, 1 where all is right."""
        return lift(self.recall, self.chance)


def lift(recall: float, chance: float) -> float:
    """(recall - chance) / (1 - chance)."""
    return (recall - chance) / max(1 - chance, 1e-9)


@torch.no_grad()
def shape_of(x: Tensor, labels: Tensor, metric: str = "", most: int = MOST) -> tuple[Shape, Tensor]:
    """The shape of embeddings x (N, D) of classes (N,), and the nearest other (N,) of each.

    metric: cosine, inner or euclidean; "": that of cosine and euclidean which finds more kin.
    most: of more items the first are looked at.
    """
    x, labels = x.detach().float()[:most], labels.detach()[:most].to(x.device)
    names = [metric] if metric else ["cosine", "euclidean"]
    found = [shape_in(unit(x) if m == "cosine" else x, labels, m) for m in names]
    return max(found, key=lambda each: each[0].recall)  # of equal ones the first


def shape_in(z: Tensor, labels: Tensor, metric: str) -> tuple[Shape, Tensor]:
    """The shape in a space where near is a small distance."""
    n, dim = z.shape
    same = labels[:, None] == labels
    kin = same & ~torch.eye(n, dtype=torch.bool, device=z.device)
    square = squared_distances(z)
    nearest = square.clone().fill_diagonal_(torch.inf).argmin(1)
    distance = square.sqrt()
    centred = z - z.mean(0)
    total, length = centred.square().sum(), z.square().sum()
    alive = bool(total > 0)
    values, axes = principal(centred)
    share = (values.cumsum(0) / values.sum().clamp_min(1e-45)).tolist()
    directions = 1 + sum(s < 0.95 for s in share) if alive else 0
    needed = 1 + sum(s < 0.99 for s in share) if alive else 0
    counts = kin.sum(1)
    asked = (counts > 0) & (counts < n - 1)  # of a single class everything is right
    chance = (counts[asked].float() / max(n - 1, 1)).mean().item()

    def lift_without(count: int) -> float:
        """Lift without the first directions; 0 where what they leave is rounding alone."""
        if not alive or 1 - share[count - 1] < ROUNDING:
            return 0.0
        rest = centred - centred @ axes[:, :count] @ axes[:, :count].T
        return lift(recall_of(squared_distances(rest), labels, asked), chance)

    def lift_within(count: int) -> float:
        """Lift in the first directions alone."""
        square = squared_distances(centred @ axes[:, : max(count, 1)])
        return lift(recall_of(square, labels, asked), chance)

    recall = right(nearest, labels, asked)
    shape = Shape(
        metric=metric,
        items=n,
        classes=len(labels.unique()),
        dim=dim,
        spread=(total / length).item() if length > 0 else 0.0,
        first=share[0] if alive else 1.0,
        rest=lift_without(1) if share[0] > 0.9 or not alive else math.nan,
        directions=min(directions, dim),
        needed=min(needed, dim),
        remainder=lift_without(directions) if directions <= 8 else math.nan,
        enough=lift_within(needed) if needed <= dim / 6 else math.nan,
        recall=recall,
        chance=chance,
        near=distance[kin].mean().item(),
        far=distance[~same].mean().item(),
    )
    return shape, nearest


def principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (R,), largest first, and the directions (D, R) that have them."""
    n, dim = centred.shape
    x = centred.double()
    if dim <= n:
        values, axes = torch.linalg.eigh(x.T @ x)
    else:
        values, sides = torch.linalg.eigh(x @ x.T)
        axes = x.T @ sides / values.clamp_min(values[-1].clamp_min(1e-300) * 1e-12).sqrt()
    return values.flip(0).clamp_min(0), axes.flip(1).to(centred.dtype)


def recall_of(square: Tensor, labels: Tensor, asked: Tensor) -> float:
    """R@1 of squared distances (N, N) among the items that are `asked`."""
    return right(square.fill_diagonal_(torch.inf).argmin(1), labels, asked)


def right(nearest: Tensor, labels: Tensor, asked: Tensor) -> float:
    """The share of the items `asked` (N,) whose nearest is of their class; NaN where none is."""
    return (labels[nearest] == labels)[asked].float().mean().item()
