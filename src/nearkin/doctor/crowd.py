"""What a whole set of vectors tells of its items: copies, leaks, odd labels, scale.

Dimensions: N items, K neighbours of each, D embedding, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nearkin.doctor.shape import Shape, principal, shape_of
from nearkin.measure import neighbours
from nearkin.tensors import squared_distances, unit

K = 10
SAMPLE = 2000
"""Items of which shape and scale are found."""
NEAR = 0.1
"""A copy is nearer than this share of what lies beyond it, and of what is usual."""
RARE = 1e-4
"""Share of pairs that may be as near as copies by chance."""


@dataclass(frozen=True)
class Crowd:
    """What was found in a set.

    copies: items that are nearly another of their split, of each clump all but the first.
    leaks: training items that are nearly an item of the test set.
    wrong: items deep inside another class; decided: how many lie deep inside any.
    swallower: the class that is nearest to most items of others, `swallowed` that share.
    raw, whitened: R@1 as the vectors are, and once all directions, or all coordinates, have one
        variance; sure: how many standard errors lie between.
    broad: how many directions hold 90 % of the variance.
    """

    items: int
    tests: int
    shape: Shape
    copies: tuple[int, ...]
    leaks: tuple[int, ...]
    wrong: tuple[int, ...]
    decided: int
    swallower: int
    swallowed: float
    others: int
    raw: float
    whitened: float
    sure: float
    broad: int


@torch.no_grad()
def crowd_of(x: Tensor, labels: Tensor, test: Tensor | None = None, metric: str = "") -> Crowd:
    """What the vectors x (N, D) of classes (N,) tell.

    test: (N,) bool, which items are those of the test set; None: there are no splits.
    """
    x, labels = x.detach().float().cpu(), labels.cpu()
    some = sample(labels, SAMPLE)
    metric = metric or better_metric(x[some], labels[some])
    z = unit(x) if metric == "cosine" else x
    shape, _ = shape_of(x[some], labels[some], metric, most=SAMPLE)
    k = min(K, len(z) - 1)
    found = neighbours(z, k, metric="euclidean")
    near, far = found.indices, -found.similarities
    clumps = copies(near, far, labels)
    apart = torch.zeros(len(z), dtype=torch.bool) if test is None else test.cpu()
    pairs = clumps.nonzero()
    one, two = pairs[:, 0], near[clumps]
    across = apart[one] != apart[two]
    leaks = torch.where(apart[one], two, one)[across].unique()
    later = torch.maximum(one, two)[~across].unique()
    wrong, decided = odd_labels(near, labels)
    kinds, into, others = swallowing(labels, labels[near[:, 0]])
    share = into / others.clamp_min(1)
    most = int(share.argmax())
    raw, whitened, sure, broad = scale(x[some], z[some], labels[some])
    return Crowd(
        items=len(z),
        tests=int(apart.sum()),
        shape=shape,
        copies=tuple(later.tolist()),
        leaks=tuple(leaks.tolist()),
        wrong=tuple(wrong.tolist()),
        decided=decided,
        swallower=int(kinds[most]),
        swallowed=float(share[most]),
        others=int(others[most]),
        raw=raw,
        whitened=whitened,
        sure=sure,
        broad=broad,
    )


def sample(labels: Tensor, most: int) -> Tensor:
    """Items of whole classes, drawn in an order that is always the same; about `most`."""
    if len(labels) <= most:
        return torch.arange(len(labels))
    generator = torch.Generator().manual_seed(0)
    kinds, number, counts = labels.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(kinds), generator=generator)
    chosen = order[counts[order].cumsum(0) <= most]
    if len(chosen) < 10:  # few large classes: some of the items of all
        return torch.randperm(len(labels), generator=generator)[:most]
    return torch.isin(number, chosen).nonzero()[:, 0]


def better_metric(x: Tensor, labels: Tensor) -> str:
    """Cosine or euclidean, by which more kin is found."""
    both = {"cosine": unit(x), "euclidean": x}
    return max(both, key=lambda name: int(found_kin(both[name], labels).sum()))


def copies(near: Tensor, far: Tensor, labels: Tensor) -> Tensor:
    """(N, K) which neighbours are copies of an item, of distances `far`, nearest first.

    The nearest few are copies where a jump follows them, and they are far nearer than a nearest
    item is as a rule; how far, the dimension of the data says: with t the share of the usual
    distance, t^d of all pairs are as near by chance. A clump that is a whole class may be a tight
    class, and counts only where its items are equal.
    """
    k = far.shape[1]
    usual = far[:, 0].median().clamp_min(1e-30)
    equal = far <= 1e-6 * usual
    if k < 3:
        return equal
    limit = min(NEAR, RARE ** (1 / dimension(far)))
    jump = far[:, :-1] <= limit * far[:, 1:]
    jump[:, k // 2 :] = False
    inside = jump.flip(1).cummax(1).values.flip(1)  # at or before the last jump
    inside = torch.cat([inside, torch.zeros_like(inside[:, :1])], 1) & (far <= limit * usual)
    kin = labels[near] == labels[:, None]
    counts = labels.unique(return_inverse=True, return_counts=True)
    size = counts[2][counts[1]]
    tight = ((inside & kin).sum(1) >= size - 1) & (size > 1)
    return equal | (inside & ~tight[:, None])


def dimension(far: Tensor) -> float:
    """The dimension that the data fill: the median over items of Levina & Bickel's, NIPS 2004."""
    ratio = far[:, -1:] / far[:, :-1].clamp_min(1e-30)
    each = 1 / ratio.log().mean(1).clamp_min(1e-3)
    return max(each.median().item(), 0.5)


def odd_labels(near: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Items deep inside another class, and how many lie deep inside any.

    Deep inside: of the K nearest four fifths are of that class, more than its size explains, and
    most of their neighbours are so too; of an item's own class there is one at most, though its
    other items are told apart.
    """
    _, number, counts = labels.unique(return_inverse=True, return_counts=True)
    size = counts[number]
    k = int(min(near.shape[1], size.median().item() - 1))
    if k < 4:
        return torch.empty(0, dtype=torch.int64), 0
    near = near[:, :k]
    votes = labels[near]  # (N, K)
    own = votes == labels[:, None]
    pure = own.float().mean(1)  # (N,)
    same = (votes[:, :, None] == votes[:, None, :]) & ~own[:, :, None]
    most, place = same.sum(2).max(1)
    voters = same[torch.arange(len(near)), place]  # (N, K)
    trusted = (pure[near] * voters).sum(1) / voters.sum(1).clamp_min(1)
    share = size[near].float().gather(1, place[:, None])[:, 0] / len(near)  # of the other class
    odd = tail(k, most, share)
    wrong = (most >= 0.8 * k) & (own.sum(1) <= 0.1 * k) & (trusted >= 0.55) & (size > k)
    wrong &= (odd < 0.002) & (middle(pure, number)[number] >= 0.4)
    right = pure >= 0.8
    return wrong.nonzero()[:, 0], int((wrong | right).sum())


def tail(k: int, least: Tensor, share: Tensor) -> Tensor:
    """The probability (N,) that of k drawn items at least so many are of a class of this share."""
    p = share.double()
    terms = [math.comb(k, i) * p**i * (1 - p) ** (k - i) * (least <= i) for i in range(k + 1)]
    return torch.stack(terms).sum(0)


def middle(values: Tensor, number: Tensor) -> Tensor:
    """(C,) the median over the items of each class."""
    return torch.stack([values[number == c].median() for c in range(int(number.max()) + 1)])


def swallowing(labels: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Classes (C,), how many items of others each is nearest to, and of how many that have kin.

    labels, nearest: (N,) classes of the items, and of the nearest other of each.
    """
    kinds, number, counts = labels.unique(return_inverse=True, return_counts=True)
    asked = counts[number] > 1  # an item without kin must be nearest to another class
    found = torch.searchsorted(kinds, nearest)
    into = torch.bincount(found[(found != number) & asked], minlength=len(kinds))
    own = torch.bincount(number[asked], minlength=len(kinds))
    return kinds, into, own.sum() - own


def scale(x: Tensor, z: Tensor, labels: Tensor) -> tuple[float, float, float, int]:
    """R@1 of vectors as they are compared, z; the best R@1 of x once all its directions or all its
    coordinates have one variance; how many standard errors lie between; and how many directions
    hold 90 % of the variance of x."""
    centred = x - x.mean(0)
    values, axes = principal(centred)
    share = values.cumsum(0) / values.sum().clamp_min(1e-45)
    broad = min(1 + int((share < 0.9).sum()), x.shape[1])
    deviation = centred.std(0)
    forms = [centred / (deviation + 1e-3 * deviation.median() + 1e-30)]
    if len(x) > 2 * x.shape[1]:  # of fewer items whitening makes all distances one
        root = (values + 1e-4 * values.median() + 1e-30).sqrt()
        forms.append((centred @ axes) / root.to(x.dtype))
    raw = found_kin(z, labels)
    better = [found_kin(each, labels) for form in forms for each in (form, unit(form))]
    best = max(better, key=lambda each: int(each.sum()))
    won, lost = int((best & ~raw).sum()), int((raw & ~best).sum())
    sure = (won - lost) / max(won + lost, 1) ** 0.5  # McNemar's
    return raw.float().mean().item(), best.float().mean().item(), sure, broad


def found_kin(z: Tensor, labels: Tensor) -> Tensor:
    """(N,) whether the nearest other of each item is of its class."""
    square = squared_distances(z).fill_diagonal_(torch.inf)
    return labels[square.argmin(1)] == labels
