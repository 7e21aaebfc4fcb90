"""Neighbourhood components in units of the within-class spread: Nearkin's own loss.

Dimensions: B batch, D embedding.
"""

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, Mined, above, at_least, checked_labels, refuse
from nearkin.losses.triplets import share_within
from nearkin.tensors import (
    at_least_float32,
    distances,
    inner,
    masked_mean,
    pair_masks,
    squared_distances,
)

LARGE = 40
"""Numbers up to 2^40 are taken as they are."""


class FisherNCA(nn.Module):
    """Fisher NCA: kin nearest, others far in units of the within-class spread, classes round.

        v       =  mean over kin pairs of  d_ij^2                           (within-class spread)
        b       =  mean over pairs of two classes of  d_ij^2
        near    =  mean over kin pairs of  log(1 + sum_n exp(t (d_ij^2 - d_in^2) / v)),
                                                                            n of another class
        uneven  =  mean over items of  log R - H,    H = -log sum_k p_k^2   (Rényi entropy)
        loss    =  near + w uneven + c m log(v / b),    m = mean over items of log R

    p_k are the shares of the eigenvalues of the covariance, within the batch, of the item's class,
    and R = min(D, size of the class - 1) is how many there can be: `uneven` is 0 for a round cloud
    and log R for a line. No eigenvalue is needed: with r_i = x_i less its class's mean,
    sum_k p_k^2 = sum_ij (r_i.r_j)^2 / (sum_i |r_i|^2)^2.

    As in Fisher's discriminant only ratios count: the loss is the same for a x, whatever a, so that
    neither collapse nor growth can lower it. `near` separates: t says how far apart, others want to
    be log(number of others) / t spreads away, squared. `uneven` scatters. The last term, left out
    by default, is Fisher's ratio itself: it goes on drawing classes together where `near` has
    enough, and has no lower bound. m is as much as `uneven` can come to, so that the balance of
    the two is the same in 2 dimensions as in 64.

    Source: Nearkin's own. From Goldberger et al., Neighbourhood components analysis, NIPS 2004,
    whose softmax it takes for each kin pair, and Fisher, 1936, whose unit it takes.

    Args:
        sharpness: t.
        roundness: w.
        compactness: c. Without effect where no class can spread in two directions (m = 0): in one
            dimension, and with two images of a class.

    >>> x = torch.tensor([[0.0, 0], [1, 0], [0, 2], [1, 2]])
    >>> FisherNCA(1.0, 0.0)(x, torch.tensor([0, 0, 1, 1]))  # log(1 + exp(1 - 4) + exp(1 - 5))
    tensor(0.0659)
    """

    metric = "euclidean"

    def __init__(self, sharpness: float = 0.5, roundness: float = 0.1, compactness: float = 0.0):
        super().__init__()
        above(0, sharpness=sharpness)
        at_least(0, roundness=roundness, compactness=compactness)
        self.sharpness, self.roundness, self.compactness = sharpness, roundness, compactness

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
        embeddings = in_range(at_least_float32(embeddings))
        kin, others = pair_masks(labels)
        square = squared_distances(embeddings)  # (B, B)
        limits = torch.finfo(square.dtype)
        within, between = (
            masked_mean(square, pairs).clamp_min(limits.tiny**0.5) for pairs in (kin, others)
        )
        score = -self.sharpness * square / within
        rivals = score.masked_fill(~others, limits.min / 4).logsumexp(1, keepdim=True)
        near = masked_mean(torch.logaddexp(score, rivals) - score, kin)
        most = ranks(labels, embeddings).log().sum() / max(len(labels), 1)
        compact = torch.where(kin.any() & others.any(), most * (within.log() - between.log()), 0)
        return near + self.roundness * unevenness(embeddings, labels) + self.compactness * compact

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of the triplets in the wrong order, the other as near as the kin or nearer."""
        return share_within(distances(embeddings), labels, margin=0.0, ties=True)


def in_range(x: Tensor) -> Tensor:
    """x, divided by a power of two where its squares could leave the range of float32; only ratios
    count here, and a power of two changes no digit of them."""
    if not x.numel():
        return x
    exponent = torch.frexp(x.detach().abs().amax()).exponent  # the largest is below 2^exponent
    return torch.ldexp(x, -(exponent - LARGE).clamp(0, 100))


def ranks(labels: Tensor, embeddings: Tensor) -> Tensor:
    """R (B,): in how many directions the class of each item can spread in this batch, 1 or more."""
    size = (labels[:, None] == labels).sum(1)
    return (size - 1).clamp(1, embeddings.shape[1]).to(embeddings.dtype)


def unevenness(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean over items of log R - H of their class; a class of one, or at one point, counts as 0."""
    same = (labels[:, None] == labels).to(embeddings.dtype)  # (B, B)
    size = same.sum(1)
    residual = embeddings - inner(same, embeddings.T) / size[:, None]
    squares = inner(same, residual.square().sum(1)[None])[:, 0]  # (B,), of the item's class
    spread = squares > torch.finfo(squares.dtype).tiny ** 0.5
    shape = residual / torch.where(spread, squares, 1).sqrt()[:, None]  # whatever the class's size
    concentration = inner(same, (same * inner(shape, shape).square()).sum(1)[None])[:, 0]
    concentration = torch.where(spread, concentration, 1)
    each = torch.where(spread, ranks(labels, embeddings).log() + concentration.log(), 0)
    return each.sum() / max(len(each), 1)
