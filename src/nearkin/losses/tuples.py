"""Losses on n-tuples: one pair (y_i, y_i+) of each of N classes, the y_j+ of others as negatives.

Any labelled batch is read as tuples: the images of each class are taken two by two in the order of
the batch, the first of two as y and the second, its kin, as y+; one left over is not used. A batch
of N classes x 2 images is thus the papers' tuple, of N (N - 1) triplets; with more images of a
class, the others of a pair are the second images of all pairs of other classes.
Dimensions: B batch, N pairs, D embedding. a_ij stands between y_i and y_j+, rows are anchors.
"""

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, Mined, at_least, checked_labels, refuse
from nearkin.losses.triplets import SumOfSquaredShares, is_printed
from nearkin.tensors import at_least_float32, distances, inner, place_in_class


class NPair(nn.Module):
    """The N-pair loss: cross-entropy of finding y_i+, the partner of y_i, among all partners.

        right:    mean over i of   log(1 + sum_j exp(y_i.y_j+ - y_i.y_i+)),      j of another class
        printed:  (1/N) log sum_i exp( sum_j (y_i.y_j+ - y_i.y_i+) )
        both:     + l2 / (2N) sum_i (|y_i|^2 + |y_i+|^2)

    "printed" is eq. 7 of the n-tuple report, misprint included; unlike "right" it has no lower
    bound. For the right form zero is a saddle at l2 < 1 and a minimum at l2 > 1 (y = y+, centred).

    Source: Sohn, Improved deep metric learning with multi-class N-pair loss objective, NIPS 2016,
    eq. 7 (N-pair-mc); its L2 term is that of section 3.2.2 and of the n-tuple report.

    Args:
        form: "right" or "printed".
        l2: weight of the squared norms, lambda.

    >>> x = torch.eye(2)[[0, 0, 1, 1]]
    >>> NPair()(x, torch.tensor([0, 0, 1, 1]))  # log(1 + exp(-1))
    tensor(0.3133)
    """

    metric = "cosine"

    def __init__(self, form: str = "right", l2: float = 0.0):
        super().__init__()
        at_least(0, l2=l2)
        self.printed, self.l2 = is_printed(form), l2

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        anchor, partner, others = tuples(embeddings, labels)
        n = max(len(anchor), 1)
        score = inner(anchor, partner)  # (N, N)
        excess = score - score.diagonal()[:, None]
        if self.printed:
            loss = log_sum_exp((excess * others).sum(1)) / n
        else:
            loss = log_one_plus(excess, others).sum() / n
        squares = at_least_float32(anchor).square().sum() + at_least_float32(partner).square().sum()
        return loss + self.l2 / (2 * n) * squares

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of (i, j), j of another class, with y_i.y_j+ no less than y_i.y_i+."""
        anchor, partner, others = tuples(embeddings, labels)
        partner = at_least_float32(partner)
        partner = partner - partner[:1]  # changes no order; at collapse all are exactly 0
        return share_as_near(inner(anchor, partner), others)


class TupleTriplet(nn.Module):
    """The ratio triplet loss on a tuple, the n-tuple report's "network with triplet loss".

        loss = mean over i and j of   sigmoid(d_ii - d_ij)^2,    j of another class, d Euclidean

    10 classes of 2 images are 10 x 9 = 90 triplets.

    Source: the n-tuple report, Results; the triplet's own is losses/triplets.py, RatioTriplet.

    >>> x = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    >>> TupleTriplet()(x, torch.tensor([0, 0, 1, 1]))  # sigmoid(-1)^2
    tensor(0.0723)
    """

    metric = "euclidean"

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        anchor, partner, others = tuples(embeddings, labels)
        distance = distances(anchor, partner)  # (N, N)
        own = torch.eye(len(anchor), dtype=distance.dtype, device=distance.device)
        return SumOfSquaredShares.apply(distance, own, others) / others.sum().clamp_min(1)

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of (i, j), j of another class, with y_j+ as near to y_i as y_i+ is, or nearer."""
        anchor, partner, others = tuples(embeddings, labels)
        return share_as_near(-distances(anchor, partner), others)


class TupleRatio(nn.Module):
    """The tuple ratio loss: the ratio triplet with all classes in one expression.

        right:    mean over i of   -log( exp(-d_ii) / (exp(-d_ii) + sum_j exp(-d_ij)) )
        printed:  mean over i of         exp( d_ii) / (exp( d_ii) + sum_j exp( d_ij)),
                                         j of another class, d Euclidean

    Printed, the farthest negative has the largest weight and takes nearly all of the gradient;
    right, the nearest one has it. A collapsed network scores log N and 1/N.

    Source: the n-tuple report, eq. 8; the right form is neighbourhood component analysis on a
    tuple, Goldberger et al., NIPS 2004, with distances not squared.

    Args:
        form: "right" or "printed".

    >>> x = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    >>> TupleRatio()(x, torch.tensor([0, 0, 1, 1]))  # log(1 + exp(-1))
    tensor(0.3133)
    >>> TupleRatio(form="printed")(x, torch.tensor([0, 0, 1, 1]))  # 1 / (1 + e)
    tensor(0.2689)
    """

    metric = "euclidean"

    def __init__(self, form: str = "right"):
        super().__init__()
        self.printed = is_printed(form)

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        anchor, partner, others = tuples(embeddings, labels)
        distance = distances(anchor, partner)  # (N, N)
        excess = distance - distance.diagonal()[:, None]
        if self.printed:
            each = torch.exp(-log_one_plus(excess, others))
        else:
            each = log_one_plus(-excess, others)
        return each.sum() / max(len(anchor), 1)

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of (i, j), j of another class, with y_j+ as near to y_i as y_i+ is, or nearer."""
        anchor, partner, others = tuples(embeddings, labels)
        return share_as_near(-distances(anchor, partner), others)


def tuples(embeddings: Tensor, labels: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """Read a batch as tuples.

    Returns:
        y (N, D), y+ (N, D), and others (N, N): 1 where y_i and y_j+ differ in class, else 0.
        N is 0 unless two classes have two images each.
    """
    first, second, others = places_of_tuples(checked_labels(labels, embeddings))
    anchor, partner = embeddings[first], embeddings[second]
    return anchor, partner, others.to(at_least_float32(anchor).dtype)


def places_of_tuples(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where in a batch (B,) y (N,) and y+ (N,) stand, and which y_i and y_j+ are others (N, N)."""
    order = labels.argsort(stable=True)  # class by class, in the order of the batch within each
    kind, even = labels[order], place_in_class(labels)[order] % 2 == 0
    first = (even[:-1] & (kind[:-1] == kind[1:])).nonzero().squeeze(1)
    kind = kind[first]
    others = kind[:, None] != kind[None, :]
    if not others.any():
        first, others = first[:0], others[:0, :0]
    return order[first], order[first + 1], others


def share_as_near(nearness: Tensor, others: Tensor) -> Tensor:
    """Share of the pairs `others` (N, N) whose j is as near to i as its own partner, or nearer."""
    near = nearness >= nearness.diagonal()[:, None]
    return (near * others).sum() / others.sum().clamp_min(1)


def log_one_plus(excess: Tensor, others: Tensor) -> Tensor:
    """log(1 + sum over j of other_ij exp(excess_ij)): (N, N) -> (N,), without overflow."""
    kept = excess.masked_fill(others == 0, -torch.inf)
    return torch.cat([torch.zeros_like(kept[:, :1]), kept], dim=1).logsumexp(1)


def log_sum_exp(values: Tensor) -> Tensor:
    """log of the sum of exp of (N,); 0 where there are none."""
    return values.logsumexp(0) if len(values) else values.sum()
