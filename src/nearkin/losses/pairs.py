"""Siamese losses, over pairs: kin close together, all others at least a margin apart.

Dimensions: B batch, M references (the batch itself, where none are given), D embedding.
"""

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import (
    Labels,
    Mined,
    above,
    checked_labels,
    checked_references,
    pair_weights,
)
from nearkin.tensors import at_least_float32, distances, pair_masks, pulled, squared_distances

BLOCK = 2**18  # pairs at a time: 1 MB in float32, which stays in cache


class Contrastive(nn.Module):
    """The contrastive loss: kin attract as springs do, others repel until they are a margin away.

        loss = mean over pairs of   d^2 / 2            for kin
                                    [m - d]+^2 / 2     for others,     d Euclidean

    Source: Hadsell, Chopra & LeCun, Dimensionality reduction by learning an invariant mapping,
    CVPR 2006, eqs. 2-4. There Y = 1, and in eqs. 1-3 of the n-tuple report S = 1, means *not* kin.
    Differs: all pairs of the batch count, not a list of drawn ones.

    Args:
        margin: m, the distance beyond which others do not matter; above 0.

    >>> x = torch.tensor([[0.0], [0.5], [1.0]])
    >>> Contrastive(margin=1.0)(x, torch.tensor([7, 7, 9]))  # (1/8 + 0 + 1/8) / 3
    tensor(0.0833)
    """

    metric = "euclidean"
    references = True

    def __init__(self, margin: float = 1.0):
        super().__init__()
        above(0, margin=margin)
        self.margin = margin

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        ref_emb, ref_labels = checked_references(ref_emb, ref_labels, embeddings, labels)
        labels = checked_labels(labels, embeddings)
        x = at_least_float32(embeddings)
        y = x if ref_emb is None else ref_emb
        kin, others = pair_weights(labels, ref_labels, indices_tuple, x.dtype)
        total = Springs.apply(x, y, kin, others, self.margin)
        return total / (kin.sum() + others.sum()).clamp_min(1)

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of the pairs of others that are nearer than the margin, and so still repel."""
        _, others = pair_masks(checked_labels(labels, embeddings))
        near = others & (distances(embeddings) < self.margin)
        return near.sum() / others.sum().clamp_min(1)


class Springs(torch.autograd.Function):
    """The energy of all springs, and the forces, some rows of pairs at a time.

        energy = 1/2 sum over pairs of  w_ij l_ij^2,    l = d for kin, [m - d]+ for others
        d energy / d x_i = sum_j s_ij (x_i - y_j),      s = w for kin, -w l / d for others

    x (B, D), y (M, D); kin and others (B, M), weights or masks.
    """

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, kin: Tensor, others: Tensor, margin: float):
        energy, forces = x.new_zeros(()), (torch.zeros_like(x), torch.zeros_like(y))
        for rows in torch.arange(len(x), device=x.device).split(max(BLOCK // max(len(y), 1), 1)):
            here = x[rows]
            square = squared_distances(here, y)
            distance = square.sqrt()
            short = (margin - distance).clamp_min_(0)
            energy += (kin[rows] * square).sum() / 2 + (others[rows] * short**2).sum() / 2
            push = (others[rows] * short).div_(distance).masked_fill_(distance == 0, 0)
            slope = kin[rows].to(push.dtype) - push
            forces[0][rows] = pulled(slope, here, y)
            forces[1].add_(pulled(slope.T, y, here))
        ctx.save_for_backward(*forces)
        return energy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *outer: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, y = ctx.saved_tensors
        return outer[0] * x, outer[0] * y, None, None, None
