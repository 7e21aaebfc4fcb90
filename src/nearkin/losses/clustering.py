"""The clustering loss: a batch's own classes must be its best clustering.

Dimensions: B batch, D embedding, C classes in the batch, J candidates, P occupied cells.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, Mined, at_least, checked_labels, refuse
from nearkin.names import look_up
from nearkin.tensors import distances, unit


class Clustering(nn.Module):
    """The clustering loss: facility location with a structured margin by mutual information.

        F(S)    = - sum over i of   min over j in S of d_ij          S: C medoids of the batch
        F~(y)   =   sum over classes k of   max over j in k of  - sum over i in k of d_ij
        loss    = [ max over S of ( F(S) + g (1 - NMI(g(S), y)) )  -  F~(y) ]+

    d is Euclidean, not squared, between unit embeddings; g(S) assigns each item to the nearest of
    S, and an item of S to itself. So any other clustering must cost at least g (1 - NMI) more than
    that by the true classes. The maximum is sought greedily, one medoid at a time, and then in five
    rounds that try to replace each medoid by another member of its cluster; S is a constant of the
    gradient. 0 exactly where a batch holds one class, or one image of each.

    Source: Song, Jegelka, Rathod & Murphy, Deep metric learning via facility location, CVPR 2017,
    eqs. 5-13, and TensorFlow's `cluster_loss` (contrib, metric_loss_ops.py), which has g = 1.
    Differs: scikit-learn's NMI, which that code calls, was geometric then and is arithmetic now;
    `nmi` names which. `mean` is ours: there the loss is a sum over the batch, and a margin of 1 is
    next to nothing beside an energy of about B.
    Batch: any with two classes or more and two images of one; the paper holds C / B at 1/4.
    Cost: 35 ms a step at B = 128, C = 32, D = 128 on one core, O(C B^2); O(B^2) memory.
    Published: R@1 48.2 on CUB, 58.1 on Cars196, 67.0 on SOP (BN-Inception, 64-D).

    Args:
        gamma: g, the weight of the margin; where `mean`, a share of B is meant by it.
        nmi: the mean of the two entropies in NMI, "geometric" or "arithmetic".
        rounds: of the refinement; 0: greedy alone.
        mean: divide the loss by B.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
    >>> Clustering()(x, torch.tensor([0, 1, 0, 1])), Clustering()(x, torch.tensor([0, 0, 1, 1]))
    (tensor(0.), tensor(3.4814))
    """

    metric = "cosine"

    def __init__(
        self, gamma: float = 1.0, nmi: str = "geometric", rounds: int = 5, mean: bool = False
    ):
        super().__init__()
        at_least(0, gamma=gamma, rounds=rounds)
        look_up(nmi, MEANS, "nmi")
        self.gamma, self.nmi, self.rounds, self.mean = gamma, nmi, rounds, mean

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        labels = checked_labels(labels, embeddings)
        scale = max(len(labels), 1) if self.mean else 1
        gamma = self.gamma * scale
        return excess(unit(embeddings), labels, gamma, self.nmi, self.rounds).clamp_min(0) / scale

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """1 where another clustering than that by classes is as good but for the margin, else 0."""
        labels = checked_labels(labels, embeddings)
        return (self(embeddings, labels) > 0).float()


def excess(x: Tensor, labels: Tensor, gamma: float, nmi: str, rounds: int) -> Tensor:
    """max over S of (F(S) + gamma (1 - NMI)) - F~ of embeddings x (B, D) as they are."""
    classes, y = np.unique(labels.cpu().numpy(), return_inverse=True)
    if not 1 < len(classes) < len(y):
        return x.sum() * 0
    d = distances(x.detach()).double().cpu().numpy()
    found = Medoids(d, y, gamma, nmi)
    found.add_greedily()
    found.refine(rounds)
    own = true_medoids(d, y)
    to = torch.from_numpy(np.stack([found.chosen[found.assignment()], own[y]])).to(x.device)
    energy, oracle = ((x - x[medoid]).norm(dim=1).sum() for medoid in to)
    (margin,) = found.margin(np.zeros((1, len(y)), dtype=bool), found.assignment())
    return float(margin) - energy + oracle


class Medoids:
    """C medoids of B items, chosen for the largest energy F and the smallest NMI with the classes.

    d (B, B) distances; y (B,) classes 0..C-1; chosen (n,) the medoids so far, in their order.
    """

    def __init__(self, d: np.ndarray, y: np.ndarray, gamma: float, nmi: str):
        self.d, self.y, self.gamma, self.mean = d, y, gamma, MEANS[nmi]
        self.count = int(y.max()) + 1
        counts = np.arange(len(y) + 1)
        self.table = counts * np.log(np.maximum(counts, 1))  # n log n
        self.of_classes = self.table[np.bincount(y)].sum()
        self.chosen = np.empty(0, dtype=np.int64)

    def add_greedily(self) -> None:
        """Add the item that raises F + gamma (1 - NMI) most, C times; the first of equals."""
        best = np.full(len(self.y), np.inf)  # distance to the nearest medoid
        cluster = np.zeros(len(self.y), dtype=np.int64)
        for step in range(self.count):
            nearer = self.d < best
            np.fill_diagonal(nearer, True)  # a medoid is its own, beside its double too
            value = -np.minimum(self.d, best).sum(1) + self.margin(nearer, cluster)
            value[self.chosen] = -np.inf
            new = int(value.argmax())
            best = np.where(nearer[new], self.d[new], best)
            cluster = np.where(nearer[new], step, cluster)
            self.chosen = np.append(self.chosen, new)

    def refine(self, rounds: int) -> None:
        """Replace medoids by members of their clusters, one after the other, round after round.

        A member is worth its energy within the cluster as the round found it, and the margin after
        all items have gone to the nearest medoid.
        """
        for _ in range(rounds):
            before, members = self.chosen.copy(), self.assignment()
            for r in range(self.count):
                inside = (members == r).nonzero()[0]
                if len(inside) < 2:
                    continue
                to = self.to_medoids()
                to[:, r] = np.inf
                cluster = to.argmin(1)
                nearer = self.d[inside] < to[np.arange(len(to)), cluster]
                nearer[np.arange(len(inside)), inside] = True
                value = -self.d[np.ix_(inside, inside)].sum(1) + self.margin(nearer, cluster)
                self.chosen[r] = inside[value.argmax()]
            if (self.chosen == before).all():  # so it would stay
                break

    def to_medoids(self) -> np.ndarray:
        """Distances (B, n) to the medoids; a medoid's own is less than any other."""
        to = self.d[:, self.chosen]
        to[self.chosen, np.arange(len(self.chosen))] = -1
        return to

    def assignment(self) -> np.ndarray:
        """The place (B,) in `chosen` of each item's medoid."""
        return self.to_medoids().argmin(1)

    def margin(self, moved: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        """gamma (1 - NMI) of J clusterings (J,): that in `cluster` (B,), but that the items `moved`
        (J, B) have left it for a new cluster.

        With n log n summed over cells, clusters and classes, S_gy, S_g and S_y, and n items:
            n MI = S_gy - S_g - S_y + n log n,    n H(g) = n log n - S_g,    H(y) alike
        """
        y, table = self.y, self.table
        _, cell = np.unique(cluster * self.count + y, return_inverse=True)  # (B,) in 0..P-1
        row, item = moved.nonzero()

        def counted(kind: np.ndarray) -> np.ndarray:
            """How many items of each kind a candidate takes away: (J, kinds)."""
            kinds = int(kind.max()) + 1
            found = np.bincount(row * kinds + kind[item], minlength=len(moved) * kinds)
            return found.reshape(-1, kinds)

        gained = counted(y)
        cells = table[np.bincount(cell) - counted(cell)].sum(1) + table[gained].sum(1)
        clusters = table[np.bincount(cluster) - counted(cluster)].sum(1) + table[gained.sum(1)]
        whole = table[len(y)]
        shared = np.maximum(cells - clusters - self.of_classes + whole, 0)
        h_clusters, h_classes = np.maximum(whole - clusters, 0), whole - self.of_classes
        some = h_clusters > 1e-9  # one cluster alone tells nothing of the classes
        shares = np.divide(
            shared, self.mean(h_clusters, h_classes), out=np.zeros_like(shared), where=some
        )
        return self.gamma * (1 - shares)


MEANS = {
    "geometric": lambda a, b: np.sqrt(a * b),
    "arithmetic": lambda a, b: (a + b) / 2,
}
"""The mean of two entropies by which mutual information is normalised."""


def true_medoids(d: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The best medoid (C,) of each class."""
    energy = np.where(y[:, None] == y, d, 0).sum(1)  # of each item, if it were the medoid
    order = np.lexsort((energy, y))
    return order[np.searchsorted(y[order], np.arange(int(y.max()) + 1))]
