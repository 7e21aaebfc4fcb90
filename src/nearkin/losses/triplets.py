"""Triplet losses: an anchor should lie nearer to its own class than to any other.

Both take all triplets (a, p, n) of a batch, y_a = y_p != y_n, or those that a miner chose, and
neither ever holds a tensor of all triplets. The gradient of a sum over triplets with respect to the
distances is only (B, M), and that is all that is kept.
Dimensions: B batch, M references (the batch itself, where none are given), D embedding, T triplets.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nearkin.losses.inputs import (
    Labels,
    Mined,
    at_least,
    checked_choice,
    checked_labels,
    checked_references,
    pair_weights,
)
from nearkin.tensors import at_least_float32, distances, pair_masks

BLOCK = 2**21  # numbers in the largest temporary: 8 MB in float32, which stays in cache


class RatioTriplet(nn.Module):
    """The ratio triplet loss: an anchor's share of distance to its positive, squared.

        s = exp(d_ap) / (exp(d_ap) + exp(d_an)) = sigmoid(d_ap - d_an),    d Euclidean
        loss = mean of s^2 over the triplets,    in (0, 1)

    A collapsed network (all distances equal) scores 1/4.

    Source: Hoffer & Ailon, Deep metric learning using triplet network, 2014, arXiv:1412.6622,
    section 3 (eqs. 4-6 of the n-tuple report). As printed, |(s, (1 - s) - 1)|^2 = 2 s^2: the same
    but for the constant. Differs: all triplets of the batch count, not one drawn for each anchor.

    Args:
        form: "right" for the mean of s^2, "printed" for twice that.

    >>> x = torch.tensor([[0.0], [0.0], [1.0]])
    >>> RatioTriplet()(x, torch.tensor([7, 7, 9]))  # sigmoid(-1)^2
    tensor(0.0723)
    """

    metric = "euclidean"
    references = True

    def __init__(self, form: str = "right"):
        super().__init__()
        self.constant = 2.0 if is_printed(form) else 1.0

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
        distance = distances(embeddings, ref_emb)  # (B, M)
        if indices_tuple is not None and len(indices_tuple) == 3:
            return self.constant * ratio(*chosen(distance, indices_tuple))
        kin, others = pair_weights(labels, ref_labels, indices_tuple, distance.dtype)
        total = SumOfSquaredShares.apply(distance, kin, others)
        return self.constant * total / how_many(kin, others).clamp_min(1)

    def triples(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The same on explicit triplets of embeddings, each (T, D): three networks."""
        shapes = [tuple(x.shape) for x in (anchor, positive, negative)]
        if len(shapes[0]) != 2 or len(set(shapes)) > 1:
            raise ValueError(f"wanted anchors, positives and negatives (T, D) alike, got {shapes}")
        anchor, positive, negative = map(at_least_float32, (anchor, positive, negative))
        to_positive = (anchor - positive).norm(dim=1)
        return self.constant * ratio(to_positive, (anchor - negative).norm(dim=1))

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of the triplets in the wrong order, the negative as near as the positive or nearer.

        All triplets pull a little; these pull most.
        """
        return share_within(distances(embeddings), labels, margin=0.0, ties=True)


class Triplet(nn.Module):
    """The triplet loss, a hinge: every negative at least a margin farther than every positive.

        loss = mean over triplets of   [d_ap - d_an + m]+,    d Euclidean

    Where a triplet is active is a count, and given the counts the sum is linear in the distances:

        sum = sum_p c_p (d_ap + m) - sum_n k_n d_an,
        c_p = number of n with d_an < d_ap + m,    k_n = number of p with d_ap + m > d_an

    The counts come from sorting each row's positives and seeking each distance among them:
    O(B^2 log B) time and O(B^2) memory, where the triplets themselves are O(B^3).

    Source: Schroff, Kalenichenko & Philbin, FaceNet, CVPR 2015, section 3.1; the mean over
    the active ones from Hermans, Beyer & Leibe, In defense of the triplet loss, 2017,
    arXiv:1703.07737.
    Differs: distances not squared, embeddings not normalised; the sort and the counts are ours.

    Args:
        margin: m, 0 or more.
        mean: over the "active" triplets, or over "all".

    >>> x = torch.tensor([[0.0], [0.5], [1.0]])
    >>> Triplet(margin=0.7)(x, torch.tensor([7, 7, 9]))  # (0.2 + 0.7) / 2
    tensor(0.4500)
    """

    metric = "euclidean"
    references = True

    def __init__(self, margin: float = 0.2, mean: str = "active"):
        super().__init__()
        if mean not in ("active", "all"):
            raise ValueError(f"mean must be active or all, got {mean!r}")
        at_least(0, margin=margin)
        self.margin, self.mean = margin, mean

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
        distance = distances(embeddings, ref_emb)  # (B, M)
        if indices_tuple is not None and len(indices_tuple) == 3:
            to_positive, to_negative = chosen(distance, indices_tuple)
            hinge = (to_positive - to_negative + self.margin).clamp_min(0)
            count = (hinge > 0).sum() if self.mean == "active" else len(hinge)
            return hinge.sum() / max(int(count), 1)
        kin, others = pair_weights(labels, ref_labels, indices_tuple, distance.dtype)
        c, k = active_counts(distance.detach(), self.margin, kin, others)
        active = c.sum()
        count = active if self.mean == "active" else how_many(kin, others)
        total = (c.sub_(k) * distance).sum() + self.margin * active
        return total / count.clamp_min(1)

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of the triplets whose hinge is not 0."""
        return share_within(distances(embeddings), labels, self.margin)


def is_printed(form: str) -> bool:
    """Whether the form is "printed" (as the paper has it), not "right"."""
    if form not in ("right", "printed"):
        raise ValueError(f"form must be right or printed, got {form!r}")
    return form == "printed"


def ratio(to_positive: Tensor, to_negative: Tensor) -> Tensor:
    """Mean of sigmoid(d_ap - d_an)^2 over explicit triplets (T,); 0 where there are none."""
    share = torch.sigmoid(to_positive - to_negative)
    return (share**2).sum() / max(len(share), 1)


def chosen(distance: Tensor, triplets: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Distances (T,) to the positive and to the negative of mined triplets (a, p, n)."""
    anchor, positive, negative = checked_choice(triplets, len(distance), distance.shape[1])
    return distance[anchor, positive], distance[anchor, negative]


class SumOfSquaredShares(torch.autograd.Function):
    """Sum over triplets of  w_ap w_an sigmoid(d_ap - d_an)^2,  and its gradient, in blocks.

    One row for each pair of kin (a, p), with all references as n, a few rows at a time. The
    gradient with respect to the distances (B, M) is summed on the way: nothing is computed twice.
    """

    @staticmethod
    def forward(ctx, distance: Tensor, kin: Tensor, others: Tensor) -> Tensor:
        total, gradient = distance.new_zeros(()), torch.zeros_like(distance)
        for anchor, partner in blocks_of_pairs(kin):
            share = torch.sigmoid(distance[anchor, partner, None] - distance[anchor])  # (rows, n)
            weighted = kin[anchor, partner, None] * others[anchor] * share**2
            total += weighted.sum()
            slope = 2 * weighted * (1 - share)  # d s^2 / d(d_ap - d_an) = 2 s^2 (1 - s)
            gradient.index_add_(0, anchor, -slope)
            gradient[anchor, partner] += slope.sum(1)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *outer: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None


def blocks_of_pairs(kin: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The pairs of kin (anchor, partner) of a (B, M) mask, or of weights, some at a time."""
    rows = max(BLOCK // max(kin.shape[1], 1), 1)
    return zip(*(index.split(rows) for index in kin.nonzero(as_tuple=True)), strict=True)


def active_counts(
    distance: Tensor, margin: float, kin: Tensor, others: Tensor, ties: bool = False
) -> tuple[Tensor, Tensor]:
    """Of all triplets with d_an < d_ap + margin (with ties: <=), how many each pair is part of.

    Args:
        distance: (B, M).
        margin: m.
        kin, others: (B, M) weights of the pairs, or masks.
        ties: count equality too.

    Returns:
        c and k, both (B, M): triplets of each pair of kin, triplets of each pair of others.
    """
    c, k = torch.zeros_like(distance), torch.zeros_like(distance)
    if not distance.numel():
        return c, k
    most = max(int((kin > 0).sum(1).max()), 1)  # P
    rows = max(BLOCK // distance.shape[1], 1)
    for i in range(0, len(distance), rows):
        block = slice(i, i + rows)
        near, far = kin[block].to(c.dtype), others[block].to(c.dtype)
        own = (distance[block] + margin).masked_fill_(near == 0, torch.inf)
        nearest, order = own.topk(most, largest=False)  # (rows, P), in rising order
        weight = near.gather(1, order)
        # how many of the P do not reach each reference, and from that who reaches what
        short = torch.searchsorted(nearest, distance[block], right=not ties)  # (rows, M)
        reached = torch.zeros(len(own), most + 1, dtype=c.dtype, device=c.device)
        reached = reached.scatter_add_(1, short, far).cumsum(1)[:, :most]
        c[block] = c[block].scatter_(1, order, weight * reached)
        passed = nn.functional.pad(weight.cumsum(1), (1, 0))  # (rows, P + 1)
        k[block] = far * (passed[:, -1:] - passed.gather(1, short))
    return c, k


def share_within(distance: Tensor, labels: Labels, margin: float, ties: bool = False) -> Tensor:
    """Share of all triplets of a batch with d_an < d_ap + margin (with ties: <=)."""
    kin, others = pair_masks(checked_labels(labels, distance))
    c, _ = active_counts(distance, margin, kin, others, ties)
    return c.sum() / how_many(kin, others).clamp_min(1)


def how_many(kin: Tensor, others: Tensor) -> Tensor:
    """The number of triplets that these pairs make: (B, M) masks, or weights."""
    return (kin.sum(1) * others.sum(1)).sum()
