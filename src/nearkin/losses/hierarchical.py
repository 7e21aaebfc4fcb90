"""The hierarchical triplet loss: a margin for each two classes, from a tree of all of them.

Dimensions: B batch, M references, D embedding, C classes, L + 1 levels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearkin.losses.hierarchy import class_means, levels_of, nearest_classes
from nearkin.losses.inputs import (
    Labels,
    Mined,
    above,
    at_least,
    checked_choice,
    checked_labels,
    checked_references,
    pair_weights,
    peer_names,
)
from nearkin.losses.triplets import active_counts, how_many
from nearkin.names import look_up
from nearkin.tensors import SquaredDistances, distances, pair_masks, squared_distances, unit

BLOCK = 2**17  # comparisons of classes that are held at once


@peer_names
class HierarchicalTriplet(nn.Module):
    """The hierarchical triplet loss: others of a far branch of the tree must be farther away.

        loss    = 1/2 mean over triplets of   [ |x_a - x_p|^2 - |x_a - x_n|^2 + m(a, n) ]+
        m(a, n) = beta + d_H(y_a, y_n) - s(y_a)

    x are unit rows; d_H is the height at which two classes are one in the tree, s the mean squared
    distance within a class (hierarchy.py). So the margin grows with the distance of the classes,
    and is smaller for a class that is wide. Before there is a tree it is `margin` for all.

    The tree is made anew when an epoch begins (`survey`): of the means of the embeddings that the
    loss has seen in the epoch before (tree="running", which costs nothing), or of a survey of all
    training images (tree="epoch"). It is kept as the component of each class at each level, L x C
    numbers, and never as a matrix of classes. In a loop of one's own, call loss.survey() at the
    start of each epoch, or loss.survey(embeddings, labels).

    Source: Ge, Huang, Dong & Scott, Deep metric learning with hierarchical triplet loss, ECCV 2018,
    sections 3.1-3.3, as two notes that agree have it (0809zheng.github.io, code456.com); there is
    no code. Differs: one note prints plain distances, which end at 2 where margins reach 4, so
    that `squared` is the default; "merged below d_l" is read as single linkage; L = 16 and the
    first margin of 0.2 are from memory; the running tree is ours.
    Batch: the sampler `neighbours` draws classes with those nearest to them, as the paper does.
    Cost: within 2 x Triplet; the tree at C = 11,318, D = 128: 2 s, 0.6 GB; O(B^2) memory.
    Published: R@1 57.1 on CUB, 81.4 on Cars196, 74.8 on SOP (BN-Inception, 512-D).

    Args:
        classes: C.
        dim: D.
        tree: "running" or "epoch".
        levels: L.
        beta: the margin between two classes that merge at their own width.
        linkage: "single", "average" or "complete".
        squared: whether distances are squared.
        margin: of all triplets before the first tree.

    >>> x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-0.6, 0.8]])
    >>> y = torch.tensor([0, 0, 1, 1])
    >>> loss = HierarchicalTriplet(classes=2, dim=2, tree="epoch", levels=4)
    >>> loss(x, y)  # margins of 0.2
    tensor(0.0500)
    >>> loss.survey(x, y)
    >>> loss.margins(y[:1], y[2:])  # 0.1 + 2.3 - 0.8
    tensor([[1.6000, 1.6000]])
    """

    metric = "cosine"
    references = True
    means: Tensor
    sizes: Tensor
    sums: Tensor
    counts: Tensor
    node: Tensor
    thresholds: Tensor
    within: Tensor

    def __init__(
        self,
        classes: int,
        dim: int,
        tree: str = "running",
        levels: int = 16,
        beta: float = 0.1,
        linkage: str = "single",
        squared: bool = True,
        margin: float = 0.2,
    ):
        super().__init__()
        at_least(1, classes=classes, dim=dim, levels=levels)
        at_least(0, beta=beta)
        above(0, margin=margin)
        surveyed = look_up(tree, {"running": False, "epoch": True}, "tree")
        look_up(linkage, dict.fromkeys(("single", "average", "complete")), "linkage")
        self.wants = ("survey",) if surveyed else ()
        self.levels, self.beta, self.linkage = levels, beta, linkage
        self.squared, self.margin = squared, margin
        start = {
            "means": torch.zeros(classes, dim),
            "sizes": torch.zeros(classes, dtype=torch.int64),  # all 0: there is no tree
            "sums": torch.zeros(classes, dim),
            "counts": torch.zeros(classes, dtype=torch.int64),
            "node": torch.zeros(levels + 1, classes, dtype=torch.int64),
            "thresholds": torch.zeros(levels + 1),
            "within": torch.zeros(classes),
        }
        for name, value in start.items():
            self.register_buffer(name, value)

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        references, others = checked_references(ref_emb, ref_labels, embeddings, labels)
        labels = checked_labels(labels, embeddings, len(self.sizes))
        x = unit(embeddings)
        if self.training and not self.wants:
            self.remember(x.detach(), labels)
        y = None if references is None else unit(references)
        return self.of_pairs(x, labels, indices_tuple, y, others)

    def of_pairs(
        self, x: Tensor, labels: Tensor, mined: Mined, y: Tensor | None, ref_labels: Tensor | None
    ) -> Tensor:
        """The loss of unit rows."""
        distance = SquaredDistances.apply(x, y) if self.squared else distances(x, y)
        margins = self.margins(labels, labels if ref_labels is None else ref_labels)
        if mined is not None and len(mined) == 3:
            a, p, n = checked_choice(mined, len(distance), distance.shape[1])
            hinge = (distance[a, p] - distance[a, n] + margins[a, n]).clamp_min(0)
            return hinge.sum() / (2 * max(len(hinge), 1))
        kin, others = pair_weights(labels, ref_labels, mined, distance.dtype)
        near = torch.where(others > 0, distance.detach() - margins, distance.detach())
        c, k = active_counts(near, 0.0, kin, others)
        total = (k * margins).sum() + (c.sub_(k) * distance).sum()
        return total / (2 * how_many(kin, others)).clamp_min(1)

    @torch.no_grad()
    def margins(self, labels: Tensor, ref_labels: Tensor) -> Tensor:
        """m (B, M) between anchors and references; within a class beta + d_0 - s, unused."""
        if not self.sizes.any():
            return self.within.new_full((len(labels), len(ref_labels)), self.margin)
        if labels is ref_labels:
            classes, anchors = labels.unique(return_inverse=True)
            others = anchors
        else:
            classes, place = torch.cat([labels, ref_labels]).unique(return_inverse=True)
            anchors, others = place[: len(labels)], place[len(labels) :]
        parts = self.node[:, classes].split(max(1, BLOCK // len(classes) ** 2))
        # nested components: two classes differ at each level below the one that joins them
        level = torch.stack([(n[:, :, None] != n[:, None, :]).sum(0) for n in parts]).sum(0)
        between = (self.beta + self.thresholds)[level] - self.within[classes][:, None]
        return between.index_select(0, anchors).index_select(1, others)

    @torch.no_grad()
    def remember(self, x: Tensor, labels: Tensor) -> None:
        """Add the unit rows of a batch to the sums of their classes."""
        self.sums.index_add_(0, labels, x.to(self.sums.dtype))
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    @torch.no_grad()
    def survey(self, embeddings: Tensor | None = None, labels: Labels | None = None) -> None:
        """Make the tree anew: of all training images where given, else of those seen since.

        A class that was not seen keeps the mean that it had.
        """
        if embeddings is not None and labels is not None:
            labels = checked_labels(labels, embeddings, len(self.sizes))
            means, sizes = class_means(embeddings.to(self.means.device), labels, len(self.sizes))
        else:
            means, sizes = self.sums / self.counts.clamp_min(1)[:, None], self.counts.clone()
        seen = sizes > 0
        if not seen.any():
            return
        self.means[seen], self.sizes[seen] = means[seen].to(self.means.dtype), sizes[seen]
        self.sums.zero_()
        self.counts.zero_()
        found = levels_of(self.means, self.sizes, self.levels, self.linkage)
        for buffer, value in zip((self.node, self.thresholds, self.within), found, strict=True):
            buffer.copy_(value)

    def near(self, k: int) -> Tensor | None:
        """The k classes (C, k) nearest to each, for the sampler `neighbours`; None: no tree yet."""
        return nearest_classes(self.means, self.sizes, k) if self.sizes.any() else None

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of the triplets whose hinge is not 0."""
        labels = checked_labels(labels, embeddings, len(self.sizes))
        x = unit(embeddings)
        distance = squared_distances(x) if self.squared else distances(x)
        kin, others = pair_masks(labels)
        near = torch.where(others, distance - self.margins(labels, labels), distance)
        c, _ = active_counts(near, 0.0, kin, others)
        return c.sum() / how_many(kin, others).clamp_min(1)
