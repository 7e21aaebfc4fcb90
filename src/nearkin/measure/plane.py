"""A map of embeddings in the plane, and how true it is at each point.

Dimensions: N items, K neighbours of each, D embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

STEPS = 200
NEGATIVES, LARGE = 10, 20_000
"""Items drawn against each neighbour; half as many for sets that are large."""
SPREAD = 0.5  # standard deviation of the start along its longer axis
SCALE = 0.02  # Z at the end: the smaller, the more weight has what is near
LONGEST = 4.0  # of a step, in units of the map
RATE = 1.5
ABOUT = 3
"""A neighbour is near on the map where it is among three times as many as were looked for."""


def principal(x: Tensor) -> Tensor:
    """Places in the plane (N, 2): the two principal components of embeddings (N, D); zeros where
    there are fewer."""
    centred = x.double() - x.double().mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    flat = centred @ vectors[:, -2:].flip(1)
    return torch.nn.functional.pad(flat, (0, 2 - flat.shape[1])).float()


def layout(
    indices: Tensor,
    start: Tensor,
    *,
    steps: int = STEPS,
    negatives: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Places in the plane (N, 2), where neighbours lie near one another and others apart.

        L = - Σ_ij log p(d_ij) - Σ_in log(1 - p(d_in)),   p(d) = 1 / (1 + Z (1 + d²))

    over the neighbours j of each item i, and items n that are drawn for each of these; by gradient
    descent, each item's gradient divided by the number of its neighbours on either side. The rate
    falls to 0, and Z from 1 to 0.02: first the large shape, then what is near.

    Args:
        indices: (N, K) neighbours of each item among the embeddings.
        start: (N, 2) places at the start, as of `principal`, so that the large shape is theirs.
        negatives: items drawn for each neighbour, by default 10, and 5 beyond 20,000 items.
        seed: of these draws.

    Source: Damrich, Böhm, Hamprecht & Kobak, From t-SNE to UMAP with contrastive learning, ICLR
    2023. Differs: a step takes all edges at once; all edges count the same; Z falls.
    """
    n, k = indices.shape
    if n < 3:
        return start.clone().float()
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.arange(n).repeat_interleave(k), indices.reshape(-1)
    degree = (k + torch.bincount(other, minlength=n)).clamp_min(1)[:, None]
    y = start.clone().float()
    y += 1e-3 * y.std(0).max().clamp_min(1e-6) * torch.randn(y.shape, generator=generator)
    y *= SPREAD / y.std(0).max().clamp_min(1e-12)
    for step in range(steps):
        z = SCALE ** min(1.0, step / (0.6 * steps))
        apart = y[one] - y[other]
        pull = apart * (-2 * z / (1 + z * (1 + apart.square().sum(1, keepdim=True))))
        move = torch.zeros_like(y).index_add_(0, one, pull).index_add_(0, other, -pull)
        for _ in range(negatives or (NEGATIVES if n <= LARGE else NEGATIVES // 2)):
            drawn = torch.randint(n, (n * k,), generator=generator)
            apart = y[one] - y[drawn]
            square = 1 + apart.square().sum(1, keepdim=True)
            move.index_add_(0, one, apart * (2 / (square * (1 + z * square))))
        move *= RATE / z * (1 - step / steps) / degree
        y += move * (LONGEST / move.norm(dim=1, keepdim=True).clamp_min(LONGEST))
    return y


def truth(indices: Tensor, places: Tensor) -> Tensor:
    """How true a map is at each point (N,), in 0..1: the share of an item's K neighbours (N, K)
    that are among its 3 K nearest on the map (N, 2)."""
    from scipy.spatial import KDTree

    n, k = indices.shape
    seen = min(n, ABOUT * k + 1)
    points = places.double().numpy()
    _, near = KDTree(points).query(points, seen)
    near = near.reshape(n, seen)
    near = np.where(near == np.arange(n)[:, None], -1, near)  # an item is not its own neighbour
    found = torch.zeros(n)
    for column in indices.T.numpy():  # (N, 3 K) at a time
        found += torch.from_numpy((near == column[:, None]).any(1))
    return found / k
