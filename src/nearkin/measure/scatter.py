"""The shape of an embedding: how classes scatter, how far they stand apart, who is taken for whom.

Dimensions: N items, D embedding, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearkin.measure.inputs import as_given, check_embeddings, check_labels, matrix
from nearkin.measure.nearest.exact import Array
from nearkin.measure.nearest.search import neighbours


def scattering(embeddings: Array, labels: Array) -> dict[str, float]:
    """How the classes lie, from the within- and between-class covariances W and B.

        W = (1/N) sum_c sum_{i in c} (x_i - m_c)(x_i - m_c)^T
        B = (1/N) sum_c n_c (m_c - m)(m_c - m)^T
        spread      tr W, the mean squared distance of an item to its class mean
        separation  tr B / tr W
        anisotropy  mean over classes of 1 - (e^H - 1) / (r - 1), where H is the entropy of the
                    shares of the eigenvalues of the class's covariance and r = min(D, n_c - 1):
                    0 for a round cloud, 1 for a line

    Classes of fewer than three items have no anisotropy. A collapsed embedding has spread 0,
    separation 0 and anisotropy 1; where each class is at a point of its own there is no separation
    that a number could tell, and none is given.

    >>> x = torch.tensor([[0.0, 1], [0, -1], [1, 0], [-1, 0], [9, 1], [9, -1], [9, 0], [9, 0]])
    >>> found = scattering(x, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'spread': 0.75, 'separation': 27.0, 'anisotropy': 0.5}
    """
    check_embeddings(embeddings, zero=True)
    x = matrix(embeddings, "embeddings").double()
    labels = check_labels(x, labels, "embeddings'")
    kinds, position, count = labels.unique(return_inverse=True, return_counts=True)
    means = x.new_zeros(len(kinds), x.shape[1]).index_add_(0, position, x)
    means /= count[:, None]
    within = (x - means[position]).square().sum().item() / len(x)
    between = (count.double() / len(x) @ (means - x.mean(0)).square().sum(1)).item()
    lines = [line_likeness(x[position == c] - means[c]) for c in range(len(kinds)) if count[c] > 2]
    found = {
        "spread": within,
        "separation": between / within if within else 0.0,
        "anisotropy": sum(lines) / len(lines) if lines else 0.0,
    }
    if between and not within:
        del found["separation"]
    return found


def line_likeness(centred: Tensor) -> float:
    """1 - (e^H - 1) / (r - 1) of the eigenvalues of a cloud's covariance; 1 for a point."""
    rank = min(centred.shape[1], len(centred) - 1)
    values = torch.linalg.svdvals(centred).square()
    if rank < 2 or not values.sum() > 0:
        return 1.0
    entropy = torch.special.entr(values / values.sum()).sum()
    return 1 - (entropy.exp().item() - 1) / (rank - 1)


def confusion(embeddings: Array, labels: Array, *, metric: str = "cosine") -> Tensor:
    """(C, C) counts: of the items of class i, how many have a nearest other item of class j.

    >>> confusion(torch.tensor([[0.0], [1], [3], [7]]), torch.tensor([0, 0, 1, 1]),
    ...           metric="euclidean")
    tensor([[2, 0],
            [1, 1]])
    """
    x = matrix(embeddings, "embeddings")
    labels = check_labels(x, labels, "embeddings'")
    classes = int(labels.max()) + 1
    nearest = labels[neighbours(x, 1, metric=metric).indices[:, 0]]
    pairs = labels * classes + nearest
    return as_given(pairs.bincount(minlength=classes * classes).view(classes, classes), embeddings)


def overlap(counts: Tensor, group: list[int]) -> float:
    """Share of the items of these classes whose nearest other is of another class of the group.

    >>> overlap(torch.tensor([[8, 2, 0], [1, 9, 0], [5, 0, 5]]), [0, 1])
    0.15...
    """
    inner = counts[group][:, group]
    return ((inner.sum() - inner.diagonal().sum()) / counts[group].sum().clamp_min(1)).item()
