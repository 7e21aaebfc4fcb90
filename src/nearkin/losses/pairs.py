"""Siamese losses: kin close together, all others at least a margin apart.

Dimensions: B batch, M references (the batch itself, where none are given), D embedding.
"""

import torch
from torch import Tensor, nn

from nearkin.losses.mined import Mined, check_references, pair_weights
from nearkin.tensors import distances


class Contrastive(nn.Module):
    """Springs: kin attract, others repel until they are a margin away.

        loss = mean over pairs of   d^2 / 2            for kin
                                    [m - d]+^2 / 2     for others,     d Euclidean

    Source: Hadsell, Chopra & LeCun, Dimensionality reduction by learning an invariant mapping,
    CVPR 2006, eqs. 2-4 (where Y = 1, and in seed 2's eqs. 1-3 S = 1, means *not* kin).
    Differs: all pairs of the batch, not a list of drawn ones.

    Args:
        margin: m, the distance beyond which others do not matter.

    >>> x = torch.tensor([[0.0], [0.5], [1.0]])
    >>> Contrastive(margin=1.0)(x, torch.tensor([7, 7, 9]))  # (1/8 + 0 + 1/8) / 3
    tensor(0.0833)
    """

    metric = "euclidean"  # what it makes near, and is evaluated by

    def __init__(self, margin: float = 1.0):
        super().__init__()
        if margin <= 0:
            raise ValueError(f"margin must be above 0, got {margin}")
        self.margin = margin

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        check_references(ref_emb, ref_labels)
        distance = distances(embeddings, ref_emb)  # (B, M)
        positive, negative = pair_weights(labels, ref_labels, indices_tuple, distance.dtype)
        pull = (positive * distance**2).sum() / 2
        push = (negative * (self.margin - distance).clamp_min(0) ** 2).sum() / 2
        return (pull + push) / (positive.sum() + negative.sum()).clamp_min(1)

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Share of the pairs of others that are nearer than the margin, and so still repel."""
        distance = distances(embeddings)
        _, negative = pair_weights(labels, None, None, distance.dtype)
        return (negative * (distance < self.margin)).sum() / negative.sum().clamp_min(1)
