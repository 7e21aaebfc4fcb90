"""Lifted structure: every pair of kin against all others of either of the two.

Dimensions: B batch, D embedding.
"""

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, Mined, at_least, checked_labels, refuse
from nearkin.tensors import distances, pair_masks, unit

NONE = -1e4
"""The exponent of a pair that is no term of a sum; finite, so that an empty sum has gradient 0."""


class LiftedStructure(nn.Module):
    """The lifted structure loss: kin closer than the nearest others of both, softly.

        J_ij = log( sum over n of exp(m - d_in)  +  sum over n of exp(m - d_jn) ) + d_ij
        loss = 1/2 mean over pairs of kin (i, j) of  [J_ij]+^2,

    n all that are not kin of i, or of j; d Euclidean between unit embeddings. The inner sums are
    one number r_i a row, and log(exp r_i + exp r_j) is all that is needed: O(B^2) time and memory.

    Source: Song, Xiang, Jegelka & Savarese, Deep metric learning via lifted structured feature
    embedding, CVPR 2016, eq. 4. Differs: embeddings are normalised, as in
    pytorch-metric-learning's LiftedStructureLoss, to which it is equal in value. That one holds
    all pairs of kin beside all pairs of others, O(B^3) numbers for a few images a class.

    Args:
        margin: m, 0 or more.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    >>> LiftedStructure(margin=2.0)(x, torch.tensor([7, 7, 9]))  # (log(2 e^(2 - 2)) + 0)^2 / 2
    tensor(0.2402)
    """

    metric = "cosine"

    def __init__(self, margin: float = 1.0):
        super().__init__()
        at_least(0, margin=margin)
        self.margin = margin

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        lifted, kin = self.pairs(embeddings, checked_labels(labels, embeddings))
        return (lifted.clamp_min(0) ** 2 * kin).sum() / 2 / kin.sum().clamp_min(1)

    def pairs(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """J (B, B), and which pairs are kin."""
        distance = distances(unit(embeddings))
        kin, others = pair_masks(labels)
        repulsion = torch.where(others, self.margin - distance, NONE).logsumexp(1)  # r (B,)
        return torch.logaddexp(repulsion[:, None], repulsion[None, :]) + distance, kin

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of the pairs of kin that still attract: J_ij > 0."""
        lifted, kin = self.pairs(embeddings, checked_labels(labels, embeddings))
        return (kin & (lifted > 0)).sum() / kin.sum().clamp_min(1)
