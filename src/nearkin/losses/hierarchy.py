"""A tree of classes: which merge at which distance, from the means of their unit embeddings.

Dimensions: N items, C classes, D embedding, L + 1 levels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nearkin.names import look_up
from nearkin.tensors import unit

ROUNDING = 1e-6  # by which a squared distance of unit rows may be off
BLOCK = 1024  # classes whose distances to all others are held at once


def class_means(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean (C, D) of the unit embeddings (N, D) of each class, and how many it has (C,).

    A class without items has the mean 0.
    """
    sizes = torch.bincount(labels, minlength=classes)
    sums = torch.zeros(classes, x.shape[1], dtype=unit(x[:0]).dtype, device=x.device)
    sums.index_add_(0, labels, unit(x))
    return sums / sizes.clamp_min(1)[:, None], sizes


def spreads(means: Tensor, sizes: Tensor) -> Tensor:
    """Mean squared distance s (C,) between two items of a class; NaN where it has but one.

    Of unit rows with mean mu:  s = 2 n (1 - |mu|^2) / (n - 1).
    """
    n = sizes.to(means.dtype)
    found = 2 * n * (1 - means.square().sum(1)).clamp_min(0) / (n - 1)
    return torch.where(sizes > 1, found, torch.nan)


def levels_of(
    means: Tensor, sizes: Tensor, levels: int, linkage: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The tree of the classes with items, as the component of each class at each level.

        d(p, q) = 2 - 2 mu_p.mu_q          mean squared distance between items of two classes
        d_0     = mean over classes of s,    d_l = d_0 + l (4 - d_0) / L
        at level l, nodes nearer than d_l are one, up to rounding; at level L all are

    Source: Ge et al., Deep metric learning with hierarchical triplet loss, ECCV 2018, section 3.1.

    Args:
        means, sizes: of `class_means`.
        levels: L.
        linkage: the distance of merged nodes: "single", "average" or "complete".

    Returns:
        node (L + 1, C) int64, thresholds d_l (L + 1,), and s (C,), d_0 where a class has one item.
    """
    within = spreads(means, sizes)
    first = within.nanmean().nan_to_num(0.0)
    thresholds = torch.linspace(0, 1, levels + 1, dtype=means.dtype, device=means.device)
    thresholds = first + thresholds * (4 - first)
    present = (sizes > 0).nonzero()[:, 0]
    heights = thresholds[:-1].cpu().numpy() + ROUNDING  # so that one point for all is one node
    known = look_up(linkage, LINKAGES, "linkage")(means[present].cpu().numpy(), heights)
    node = torch.arange(len(sizes)).repeat(levels + 1, 1) + len(sizes)  # alone, where unknown
    node[:-1, present.cpu()] = torch.from_numpy(known)
    node[-1] = 0
    return node.to(means.device), thresholds, within.nan_to_num(first.item())


def single(means: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Components (L, C) of classes that are joined by steps shorter than each height.

    In the order in which Prim's algorithm takes them into a minimum spanning tree, the classes of a
    component follow each other: it leaves by a longer step only when no shorter one is left.
    O(C^2 D) time, and no more memory than the means.
    """
    rest, points = np.arange(len(means)), means.copy()  # those not taken yet, in their first n rows
    near = np.full(len(means), np.inf, dtype=means.dtype)  # how near each is to the tree
    order, step = np.empty(len(means), dtype=np.int64), np.empty_like(near)
    for taken in range(len(means)):
        n = len(means) - taken
        i = int(near[:n].argmin())
        order[taken], step[taken] = rest[i], near[i]
        here = points[i].copy()
        for array in (rest, points, near):  # the last of them fills the gap
            array[i] = array[n - 1]
        np.minimum(near[: n - 1], 2 - 2 * (points[: n - 1] @ here), out=near[: n - 1])
    node = np.empty((len(heights), len(means)), dtype=np.int64)
    node[:, order] = (step >= heights[:, None]).cumsum(1)
    return node


def average(means: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Components (L, C) by the mean distance between classes, which is that of their mean means."""
    sums, sizes = means.astype(np.float64), np.ones(len(means))

    def row(a: int) -> np.ndarray:
        return 2 - 2 * (sums @ (sums[a] / sizes[a])) / sizes

    def merge(a: int, b: int) -> None:
        sums[a] += sums[b]
        sizes[a] += sizes[b]

    return components(len(means), row, merge, heights)


def complete(means: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Components (L, C) by the largest distance between classes."""
    owner = np.arange(len(means))

    def row(a: int) -> np.ndarray:
        least = np.full(len(means), np.inf)  # the smallest product with any class of a
        members = (owner == a).nonzero()[0]
        for i in range(0, len(members), BLOCK):
            products = means[members[i : i + BLOCK]] @ means.T
            np.minimum(least, products.min(0), out=least)
        nodes = np.full(len(means), np.inf)
        np.minimum.at(nodes, owner, least)
        return 2 - 2 * nodes

    def merge(a: int, b: int) -> None:
        owner[owner == b] = a

    return components(len(means), row, merge, heights)


LINKAGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "single": single,
    "average": average,
    "complete": complete,
}


def components(
    count: int,
    row: Callable[[int], np.ndarray],
    merge: Callable[[int, int], None],
    heights: np.ndarray,
) -> np.ndarray:
    """Components (L, C) below each height, by merging nodes that are each other's nearest.

    Source: Murtagh, A survey of recent advances in hierarchical clustering algorithms, 1983: the
    chain of nearest neighbours, which needs a row of distances at a time.

    Args:
        row: node -> its distances (C,) to all nodes, as they are merged by now.
        merge: (a, b): node b becomes part of node a.
    """
    gone, chain = np.zeros(count, dtype=bool), []
    merges: list[tuple[float, int, int]] = []
    while len(merges) < count - 1:
        if not chain:
            chain.append(int(gone.argmin()))
        a = chain[-1]
        distance = np.where(gone, np.inf, row(a))
        distance[a] = np.inf
        b = int(distance.argmin())
        if len(chain) > 1 and distance[chain[-2]] <= distance[b]:
            a, b = sorted(chain[-2:])
            merges.append((float(distance[chain[-2]]), a, b))
            merge(a, b)
            gone[b] = True
            del chain[-2:]
        else:
            chain.append(b)
    node, found, done = np.arange(count), [], 0
    merges.sort()
    for height in heights:
        while done < len(merges) and merges[done][0] < height:
            _, a, b = merges[done]
            node[node == node[b]] = node[a]
            done += 1
        found.append(node.copy())
    return np.stack(found)


def nearest_classes(means: Tensor, sizes: Tensor, k: int) -> Tensor:
    """The k classes (C, k) nearest to each, the nearest first; -1 where there are no more."""
    found = torch.full((len(means), k), -1, dtype=torch.int64)
    present = (sizes > 0).nonzero()[:, 0]
    k = min(k, len(present) - 1)
    if k < 1:
        return found
    points = means[present]
    for rows in torch.arange(len(present), device=means.device).split(BLOCK):
        product = points[rows] @ points.T
        product[torch.arange(len(rows)), rows] = -torch.inf
        found[present[rows].cpu(), :k] = present[product.topk(k, 1).indices].cpu()
    return found
