"""HDC: slices of one embedding, each trained by fewer and harder pairs than the slice before.

Dimensions: B batch, D embedding, K stages, D_k numbers of slice k, n pairs.
"""

from __future__ import annotations

from math import floor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.losses.inputs import Labels, Mined, above, checked_labels, refuse
from nearkin.names import look_up
from nearkin.tensors import at_least_float32, largest, pair_masks, slice_sizes, unit


class HDC(nn.Module):
    """Hard-aware deeply cascaded embedding: each slice learns from its hardest share of all pairs.

        l_ij = d_ij^2  for kin,    w [m - d_ij^2]+  for others,    d between unit slices k
        L_k  = sum of l over P_k / number of l > 0 in P_k
        loss = sum over k of L_k

    P_k are the h_k n hardest pairs (rounded down), kin and others ranked apart: all of them for
    the first slice, a half for the second, a fifth for the third. With `cascade` slice k takes of
    the pairs that slice k - 1 had those that slice k - 1 finds hardest.

    Source: Yuan, Yang & Zhang, Hard-aware deeply cascaded embedding, ICCV 2017, arXiv:1611.05720;
    h, m and w are those of the released code (PkuRainBow/HDC.caffe), in which each slice ranks all
    pairs by itself, "a simple approximation". `form="released"` is the arithmetic of that code's
    layer: others are listed twice in value and count, kin at distance 0 not at all, and the
    gradient is half of the true one for kin and a quarter for others.
    Differs: each pair counts once, with its true gradient. Slices are cut from the embedding that
    the loss is given; the paper's come from three depths of the network, as do those of a backbone
    with stages=3, whose head leaves unit slices to be searched. Without such a head the cosine
    weighs a slice by its length.
    Batch: several images of each class; the paper has 10 classes of 10.
    Cost: within 3 x Contrastive; O(K B^2) time, O(K B^2) memory.
    Published: R@1 53.6 on CUB, 73.7 on Cars196, 69.5 on SOP (GoogLeNet, 384-D = 3 x 128).

    Args:
        ratios: h_1, ..., h_K, separated by commas, each in (0, 1].
        margin: m, of the squared distance.
        factor: w.
        cascade: whether slice k - 1 chooses the pairs of slice k.
        form: "right", or "released", which never cascades.

    >>> x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    >>> HDC(ratios="1", factor=1.0)(x, torch.tensor([7, 7, 9]))  # (0.8 + 0.6 + 0.92) / 3
    tensor(0.7733)
    """

    metric = "cosine"

    def __init__(
        self,
        ratios: str = "1,0.5,0.2",
        margin: float = 1.0,
        factor: float = 10.0,
        cascade: bool = False,
        form: str = "right",
    ):
        super().__init__()
        above(0, margin=margin, factor=factor)
        self.ratios = shares(ratios)
        self.margin, self.factor, self.cascade = margin, factor, cascade
        self.released = look_up(form, {"right": False, "released": True}, "form")
        self.copies = 2 if self.released else 1  # how often others are listed
        if cascade and self.released:
            raise ValueError("form=released never cascades: wanted one of the two")

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
        return self.stages(embeddings, labels).sum()

    @torch.no_grad()
    def active(self, embeddings: Tensor, labels: Labels) -> Tensor:
        """Share of the pairs of others that are nearer than the margin; the mean over slices."""
        _, others = pair_masks(checked_labels(labels, embeddings))
        near = others & (squares(unit_slices(embeddings, len(self.ratios))) < self.margin)
        return near.sum() / (len(self.ratios) * others.sum()).clamp_min(1)

    def stages(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """L_k (K,) of each slice."""
        x = unit_slices(embeddings, len(self.ratios))  # (K, B, largest D_k)
        square = squares(x.detach())  # (K, B, B)
        kin, others = (pairs.triu() for pairs in pair_masks(labels))
        if self.cascade:
            found = self.cascaded(square, kin.nonzero(), others.nonzero())
        else:
            kin, count = kin.nonzero(), int(others.sum())
            stages = zip(square, self.ratios, strict=True)
            found = [
                self.alone(s, kin, others, share(h, self.copies * count), h) for s, h in stages
            ]
        values, slopes = (torch.stack(parts) for parts in zip(*found, strict=True))
        return Pulls.apply(x, values, slopes)

    def cascaded(self, square: Tensor, kin: Tensor, others: Tensor) -> list[tuple[Tensor, Tensor]]:
        """`mean` of slices whose pairs (n, 2) are chosen by the slice before, of those it had."""
        near, far, losses = kin, others, []
        for k, ratio in enumerate(self.ratios):
            judge = square[max(k - 1, 0)]
            near = hardest(at(judge, near), near, share(ratio, len(kin)))
            far = hardest(-at(judge, far), far, share(ratio, len(others)))
            losses.append(self.mean(square[k], near, far))
        return losses

    def alone(
        self, square: Tensor, kin: Tensor, others: Tensor, places: int, ratio: float
    ) -> tuple[Tensor, Tensor]:
        """`mean` of a slice that chooses its pairs itself; only others with a loss are sorted.

        The released layer lists others twice and kin at distance 0 not at all: where it keeps an
        odd number of others, the last pair counts once.

        Args:
            kin: (n, 2), pairs.
            others: (B, B), a mask.
            places: how many others are kept in the list.
            ratio: the share of kin that is kept.
        """
        if self.released:
            kin = kin[at(square, kin) > 0]
        kin = hardest(at(square, kin), kin, share(ratio, len(kin)))
        pairs, limit = (others & (square < self.margin)).nonzero(), -(-places // self.copies)
        pairs = hardest(-at(square, pairs), pairs, limit)
        cut = self.copies * limit - places if len(pairs) == limit else 0
        return self.mean(square, kin, pairs, cut)

    def mean(
        self, square: Tensor, kin: Tensor, others: Tensor, cut: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Mean of l over the pairs (n, 2) that have any, and its slopes (B, B) by their d^2; of the
        easiest of others, `cut` less."""
        l_kin, short = at(square, kin), (self.margin - at(square, others)).clamp_min(0)
        times = torch.full_like(short, self.copies)
        if cut:
            times[short.argmin()] -= cut
        count = ((l_kin > 0).sum() + (times * (short > 0)).sum()).clamp_min(1)
        value = (l_kin.sum() + self.factor * (times * short).sum()) / count
        each = 1 / (2 * count if self.released else count)
        slopes = torch.zeros_like(square)
        slopes[kin[:, 0], kin[:, 1]] = each
        slopes[others[:, 0], others[:, 1]] = -self.factor * each * (short > 0)
        return value, slopes


class Pulls(torch.autograd.Function):
    """Values of K slices that are linear in their squared distances, and their gradients.

        d value / d x_i = 2 sum_j (s_ij + s_ji) (x_i - x_j),    s_ij = d value / d d_ij^2

    x (K, B, D); values (K,); slopes s (K, B, B), each pair once.
    """

    @staticmethod
    def forward(ctx, x: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
        weights, x = 2 * (slopes + slopes.mT), x - x.mean(1, keepdim=True)
        with torch.autocast(x.device.type, enabled=False):
            ctx.save_for_backward(weights.sum(2, keepdim=True) * x - weights @ x)
        return values.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *outer: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return outer[0][:, None, None] * gradient, None, None


def unit_slices(x: Tensor, count: int) -> Tensor:
    """The slices of embeddings (B, D) as unit rows (K, B, D_K); shorter ones end in zeros."""
    parts = at_least_float32(x).split(slice_sizes(x.shape[1], count), 1)
    longest = parts[-1].shape[1]
    return unit(torch.stack([F.pad(part, (0, longest - part.shape[1])) for part in parts]))


def squares(x: Tensor) -> Tensor:
    """Squared distances (K, B, B) within each of K sets (K, B, D); between equal rows exactly 0."""
    with torch.autocast(x.device.type, enabled=False):
        products = x @ x.mT
    lengths = products.diagonal(dim1=1, dim2=2)
    return (lengths[:, :, None] + lengths[:, None, :]).sub_(products, alpha=2).clamp_min_(0)


def at(square: Tensor, pairs: Tensor) -> Tensor:
    """The entries (n,) of a table (B, B) at these pairs (n, 2)."""
    return square[pairs[:, 0], pairs[:, 1]]


def hardest(hardness: Tensor, pairs: Tensor, count: int) -> Tensor:
    """The `count` pairs of largest hardness (n,), in no order; all where there are no more."""
    if count >= len(pairs):
        return pairs
    return pairs[largest(hardness[None], count)[0]] if count else pairs[:0]


def share(ratio: float, count: int) -> int:
    """This share of a count, rounded down: a fifth of 15 is 3, whatever floats make of it."""
    return floor(round(ratio * count, 9))


def shares(ratios: str) -> list[float]:
    """Shares separated by commas.

    >>> shares("1,0.5")
    [1.0, 0.5]
    """
    try:
        found = [float(ratio) for ratio in ratios.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < ratio <= 1 for ratio in found):
        raise ValueError(f"ratios must be numbers in (0, 1] such as 1,0.5,0.2, got {ratios!r}")
    return found
