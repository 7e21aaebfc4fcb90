"""Label propagation: how far do a few known classes reach along the k-NN graph?

Dimensions: N items, D embedding, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nearkin.measure.inputs import as_given, check_labels, class_numbers, matrix
from nearkin.measure.nearest.exact import Array
from nearkin.measure.nearest.search import neighbours
from nearkin.tensors import as_tensor, at_least_float32, place_in_class

CELLS = 2**25
"""Entries of F that are held at once: classes do not touch each other, so they go in blocks."""


def label_propagation(
    x: Array,
    labels: Array,
    known: Array,
    *,
    k: int = 10,
    alpha: float = 0.9,
    steps: int = 50,
    metric: str = "cosine",
) -> Tensor | np.ndarray:
    """The class (N,) of every item, from the classes of those that are known.

        W_ij = max(similarity, 0)  where j is among the k nearest of i, or i of j
        S = D^-1/2 W D^-1/2,       D the row sums of W
        F <- alpha S F + (1 - alpha) Y,        Y the onehots of the known items, from F = 0
        class of i = argmax over c of F_ic

    Source: Zhou et al., Learning with local and global consistency, NIPS 2003, section 2.
    Differs: cosines to the k nearest, not a Gaussian of all distances; `steps` steps, after which
    at most alpha^steps of any value is missing.

    Args:
        x: (N, D) floats.
        labels: (N,) integers or text; only those of known items are read.
        known: (N,) bool.
        k: neighbours of each item.
        alpha: the share of an item's class that comes from its neighbours, in [0, 1).
        steps: how often classes are handed on.
        metric: "cosine", or "inner" (product).

    Returns:
        (N,) labels, which known items may lose to their neighbours; -1, or "" where labels are
        text, where no known one reaches. An array where x or labels are no tensor.

    >>> x = torch.tensor([[1.0, 0.0], [0.9, 0.2], [0.0, 1.0], [0.2, 0.9]])
    >>> known = torch.tensor([True, False, True, False])
    >>> label_propagation(x, torch.tensor([7, 0, 9, 0]), known, k=1)
    tensor([7, 7, 9, 9])
    """
    given = x
    x = at_least_float32(matrix(x, "x"))
    (labels,), names = class_numbers([(labels, x, "x")])
    wanted = "known must be one bool an item, true for at least one"
    known = as_tensor(known, wanted, x.device)
    if metric not in ("cosine", "inner"):
        raise ValueError(f"metric must be cosine or inner, got {metric!r}")
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must be in [0, 1), got {alpha}")
    if known.shape != labels.shape or known.dtype != torch.bool or not known.any():
        raise ValueError(wanted)
    spread = alpha * normalised_graph(x, k, metric)
    (where,) = known.nonzero(as_tuple=True)
    classes, kind = labels[where].unique(return_inverse=True)
    best = x.new_zeros(len(x))
    found = torch.full_like(labels, -1)
    width = max(1, CELLS // len(x))
    for first in range(0, len(classes), width):
        here = (kind >= first) & (kind < first + width)
        source = x.new_zeros(len(x), min(width, len(classes) - first))  # (1 - alpha) Y
        source[where[here], kind[here] - first] = 1 - alpha
        belief = torch.zeros_like(source)  # F
        for _ in range(steps):
            belief = torch.sparse.mm(spread, belief) + source
        value, winner = belief.max(1)
        better = value > best
        found[better] = classes[first + winner[better]]
        best[better] = value[better]
    return np.array([*names, ""])[found.cpu().numpy()] if names else as_given(found, given)


def normalised_graph(x: Tensor, k: int, metric: str) -> Tensor:
    """S (N, N), sparse and symmetric, its rows scaled by the roots of both ends' degrees."""
    similarity, nearest = neighbours(x, k, metric=metric)  # (N, k)
    listener = torch.arange(len(x), device=x.device).repeat_interleave(k)
    speaker, weight = nearest.flatten(), similarity.flatten().clamp_min(0).to(x.dtype)
    both = torch.cat([listener * len(x) + speaker, speaker * len(x) + listener])
    edges, place = both.unique(return_inverse=True)
    weights = x.new_zeros(len(edges)).index_put_((place,), weight.repeat(2))  # equal both ways
    row, column = edges // len(x), edges % len(x)
    degree = x.new_zeros(len(x)).index_add_(0, row, weights)
    root = torch.where(degree > 0, degree, 1).rsqrt()
    weights = weights * root[row] * root[column]
    return torch.sparse_coo_tensor(
        torch.stack([row, column]),
        weights,
        (len(x), len(x)),
        check_invariants=True,
        is_coalesced=True,
    )


def propagation_accuracy(
    x: Array,
    labels: Array,
    per_class: int = 1,
    *,
    draws: int = 5,
    seed: int = 0,
    k: int = 10,
    alpha: float = 0.9,
) -> float:
    """Share of the other items that get their class when `per_class` of each class are known.

    Averaged over `draws` choices of the known ones. A class with no others does not count.

    >>> x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> propagation_accuracy(x, torch.tensor([0, 0, 1, 1]), k=1)
    1.0
    """
    x = matrix(x, "x")
    labels = check_labels(x, labels, "x")
    if draws < 1:
        raise ValueError(f"wanted 1 draw or more, got {draws}")
    generator = torch.Generator().manual_seed(seed)
    right = []
    for _ in range(draws):
        known = draw(labels, per_class, generator)
        if known.all():
            raise ValueError(f"per_class {per_class} leaves no item to classify")
        found = torch.as_tensor(label_propagation(x, labels, known, k=k, alpha=alpha))
        right.append((found == labels)[~known].double().mean())
    return float(torch.stack(right).mean())


def draw(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """(N,) bool: `per_class` random items of each class."""
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    first = place_in_class(labels[order]) < per_class
    return torch.empty_like(first).index_put_((order,), first)
