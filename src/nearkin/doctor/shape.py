"""The shape of a batch or a set of embeddings: how far spread, in how many directions, whose kin.

Dimensions: N items, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearkin.tensors import squared_distances, unit

MOST = 256  # items of a batch that are looked at: eigenvalues of more take long


@dataclass(frozen=True)
class Shape:
    """What embeddings look like; all of the space in which they are compared.

    spread: mean squared distance to their mean, as a share of their mean squared length.
    first: share of the variance in the first principal direction.
    rest: lift without that direction.
    directions, needed: how many principal directions hold 95 % and 99 % of the variance.
    remainder, enough: lift without the `directions`, and in the `needed` alone.
    recall, chance: share of the items with kin whose nearest other is kin, and that of chance;
        NaN where none has kin.
    near, far: mean distance to kin and to others.
    """

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
    spaces = {"cosine": [unit(x)], "inner": [x], "euclidean": [x], "": [unit(x), x]}[metric]
    found = [shape_in(z, labels) for z in spaces]
    return max(found, key=lambda each: each[0].recall)  # of equal ones the first


def shape_in(z: Tensor, labels: Tensor) -> tuple[Shape, Tensor]:
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

    def recall_without(axes: Tensor) -> float:
        return recall_of(squared_distances(centred - centred @ axes @ axes.T), labels, asked)

    recall = right(nearest, labels, asked)
    shape = Shape(
        items=n,
        classes=len(labels.unique()),
        dim=dim,
        spread=(total / length).item() if length > 0 else 0.0,
        first=share[0] if alive else 1.0,
        rest=lift(recall_without(axes[:, :1]), chance),
        directions=min(directions, dim),
        needed=min(needed, dim),
        remainder=lift(recall_without(axes[:, :directions]), chance),
        enough=lift(
            recall_of(squared_distances(centred @ axes[:, : max(needed, 1)]), labels, asked), chance
        ),
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
