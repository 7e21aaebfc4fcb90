"""Miners of ours: which pairs of a batch a loss looks at.

Dimensions: B batch, E edges, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, checked_labels
from nearkin.names import look_up
from nearkin.tensors import distances, pair_masks, unit


class SpanningTree(nn.Module):
    """Positives along a shortest spanning tree of each class; all others as negatives.

        T_c = argmin over spanning trees of class c of   sum over edges (i, j) of |x_i - x_j|

    Two images of a class are drawn together by a path of near images, where all pairs would draw
    them together directly; pairs of kin that are no edges are ignored. Of n images n - 1 pairs
    are left, among them each image's nearest kin; with two images of a class, all. Trees are those
    of the embeddings as they are now, without gradient; which they are depends on the order of
    distances alone.

    Source: after Xu et al., Deep asymmetric metric learning via rich relationship mining (DAMLRRM),
    CVPR 2019, whose abstract has the trees. Its loss, margins and batches are not known to us, and
    it has no code: this is a part of it, under any loss over pairs.
    Cost: 1 ms at B = 128; O(B^2) memory.
    Published, loss unknown: R@1 55.1 on CUB, 73.5 on Cars196, 69.7 on SOP (GoogLeNet, 512-D).

    Args:
        metric: "euclidean", or "cosine" for the distance of unit embeddings.

    >>> x, y = torch.tensor([[0.0], [1.0], [3.0], [9.0]]), torch.tensor([7, 7, 7, 5])
    >>> [index.tolist() for index in SpanningTree()(x, y)[:2]]
    [[0, 1, 1, 2], [1, 2, 0, 1]]
    """

    def __init__(self, metric: str = "euclidean"):
        super().__init__()
        forms = {"euclidean": lambda x: x, "inner": lambda x: x, "cosine": unit}
        self.form = look_up(metric, forms, "metric")

    @torch.no_grad()
    def forward(self, embeddings: Tensor, labels: Labels) -> tuple[Tensor, ...]:
        """(a1, p, a2, n): the edges in both directions, and all pairs of two classes."""
        labels = checked_labels(labels, embeddings)
        edges = spanning_edges(distances(self.form(embeddings)), labels)
        return both_ways(edges, labels)


class AllPairs(nn.Module):
    """All pairs of a batch, those of one class as positives and those of two as negatives.

    What a loss takes without a miner; with this one it takes them too where the sampler has drawn
    pairs or triplets of its own, which shows what those are worth.

    >>> x, y = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([7, 7, 5])
    >>> [index.tolist() for index in AllPairs()(x, y)]
    [[0, 1], [1, 0], [0, 1, 2, 2], [2, 2, 0, 1]]
    """

    @torch.no_grad()
    def forward(self, embeddings: Tensor, labels: Labels) -> tuple[Tensor, ...]:
        """(a1, p, a2, n)."""
        kin, others = pair_masks(checked_labels(labels, embeddings))
        return *kin.nonzero(as_tuple=True), *others.nonzero(as_tuple=True)


def both_ways(edges: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """(a1, p, a2, n) of edges (E, 2): these in both directions, and all pairs of two classes."""
    one, two = edges.T
    _, others = pair_masks(labels)
    return torch.cat([one, two]), torch.cat([two, one]), *others.nonzero(as_tuple=True)


def spanning_edges(distance: Tensor, labels: Tensor) -> Tensor:
    """The edges (E, 2) of a shortest spanning tree of each class, by Prim's algorithm for all.

    Args:
        distance: (B, B).
        labels: (B,).
    """
    count, device = len(labels), labels.device
    if count < 2:
        return torch.empty(0, 2, dtype=torch.int64, device=device)
    item = torch.arange(count, device=device)
    _, kind, sizes = labels.unique(return_inverse=True, return_counts=True)
    first = torch.full_like(sizes, count).scatter_reduce_(0, kind, item, "amin")
    inside = torch.zeros(count, dtype=torch.bool, device=device)
    newest, near, partner, edges = first, torch.full_like(distance[0], torch.inf), item, []
    for _ in range(int(sizes.max()) - 1):
        inside[newest[newest < count]] = True
        here = newest[kind].clamp_max(count - 1)  # (B,): the newest of each item's class
        step = torch.where(newest[kind] < count, distance[here, item], torch.inf)
        partner, near = torch.where(step < near, here, partner), torch.minimum(step, near)
        open_ = near.masked_fill(inside, torch.inf)
        least = torch.full_like(near[: len(sizes)], torch.inf).scatter_reduce_(
            0, kind, open_, "amin"
        )
        found = torch.where((open_ == least[kind]) & ~inside, item, count)
        newest = torch.full_like(sizes, count).scatter_reduce_(0, kind, found, "amin")
        taken = newest[newest < count]
        edges.append(torch.stack([partner[taken], taken], 1))
    return torch.cat(edges) if edges else torch.empty(0, 2, dtype=torch.int64, device=device)


def class_trees(x: Tensor, labels: Tensor) -> Tensor:
    """The edges (E, 2) of a shortest spanning tree of each class of a whole set, class by class."""
    found = [torch.empty(0, 2, dtype=torch.int64)]
    for kind in labels.unique():
        members = (labels == kind).nonzero()[:, 0]
        edges = spanning_edges(distances(x[members]), torch.zeros_like(members))
        found.append(members[edges].cpu())
    return torch.cat(found)
