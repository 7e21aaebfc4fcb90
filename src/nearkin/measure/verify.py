"""Verification: are two items of one class? Curves over pairs, and thresholds with a promise.

A pair is *kin* where both items are of one class, else of *others*. A threshold t accepts a pair
whose similarity is t or more.

    FAR(t) = accepted pairs of others / pairs of others     false accept rate (false match rate)
    TAR(t) = accepted kin pairs / kin pairs                 true accept rate;  FRR = 1 - TAR

Similarities are those of nearest/exact.py, to the bit; each unordered pair is counted once.
Nothing is interpolated: every rate is a count of pairs at a threshold that can be typed.

Dimensions: N items, C classes, T thresholds, K kept pairs, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, nan, sqrt

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nearkin.measure.inputs import matrix
from nearkin.measure.nearest.exact import Array, Points, points_of, similarities
from nearkin.measure.nearest.screen import plain_arithmetic
from nearkin.measure.open_set import OpenSet as OpenSet
from nearkin.measure.open_set import nearest_of_both
from nearkin.measure.open_set import open_set as open_set
from nearkin.measure.rates import ENOUGH, area, check_rate, upper_bounds

BINS = 2**16


@dataclass(frozen=True)
class Curve:
    """Counts of accepted pairs at T ascending thresholds, and the rates made of them.

    thresholds: (T,) float64, edges of equal bins; the first accepts every pair, the last none.
    kin, others: (T,) int64 accepted pairs.
    """

    thresholds: np.ndarray
    kin: np.ndarray
    others: np.ndarray

    @property
    def tar(self) -> np.ndarray:
        """True accept rate (T,)."""
        return self.kin / self.kin[0]

    @property
    def far(self) -> np.ndarray:
        """False accept rate (T,)."""
        return self.others / self.others[0]

    @property
    def auroc(self) -> float:
        """Probability that a kin pair is more similar than a pair of others.

        Pairs within one bin, at most 2^-15 apart for the cosine, count half.
        """
        return area(self.kin, self.others)

    def eer(self) -> tuple[float, float]:
        """Equal error rate and its threshold.

        The threshold is the lowest of those where |FAR - FRR| is smallest, the rate the mean of
        FAR and FRR there.
        """
        frr = 1 - self.tar
        at = int(np.abs(self.far - frr).argmin())
        return float((self.far[at] + frr[at]) / 2), float(self.thresholds[at])

    def tar_at(self, far: float) -> float | None:
        """Largest TAR whose FAR is at most this; None where the pairs of others are too few.

        Too few: less than three of them would be accepted at that rate.
        """
        check_rate("far", far)
        if far * self.others[0] < ENOUGH["pairs"]:
            return None
        return float(self.tar[np.argmax(self.far <= far)])


def curve(
    embeddings: Array, labels: ArrayLike, *, metric: str = "cosine", memory: float = 2.5e8
) -> Curve:
    """The curve of all pairs of these items, in bounded memory.

    Args:
        embeddings: (N, D) floats.
        labels: (N,) classes, as integers or names.
        metric: "cosine", "inner" or "euclidean"; similarities are higher for nearer items.
        memory: bytes that a block of pairs may take.

    Raises:
        ValueError: there is no kin pair, or no pair of others.

    >>> found = curve(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.1, 1.0]]), [0, 0, 1, 1])
    >>> found.auroc, found.eer()[0]
    (1.0, 0.0)
    """
    searched, kind = prepared(embeddings, labels, metric)
    low, high = bounds(searched)
    counts = np.zeros((2, BINS), dtype=np.int64)
    for _, _, similarity, kin in pairs(searched, kind, memory):
        place = ((similarity.double() - low) * (BINS / (high - low))).long().clamp_(0, BINS - 1)
        for row, which in enumerate((kin, ~kin)):
            counts[row] += torch.bincount(place[which], minlength=BINS).cpu().numpy()
    for count, what in zip(counts.sum(1), ("kin pair", "pair of others"), strict=True):
        if not count:
            raise ValueError(f"verification wanted at least one {what}, got none")
    edges = low + (high - low) * np.arange(BINS + 1) / BINS
    above = np.concatenate([counts[:, ::-1].cumsum(1)[:, ::-1], np.zeros((2, 1), int)], 1)
    return Curve(edges, above[0], above[1])


def prepared(embeddings: Array, labels: ArrayLike, metric: str) -> tuple[Points, Tensor]:
    """Items on the exact grid, and their classes as 0..C-1 on the same device."""
    x = matrix(embeddings, "embeddings")
    kind = np.unique(np.asarray(labels), return_inverse=True)[1]
    if kind.shape != (len(x),):
        raise ValueError(f"labels must be {len(x)}, one for each embedding, got {kind.shape}")
    return points_of(x, None, metric)[0], torch.from_numpy(kind).to(x.device)


def bounds(searched: Points) -> tuple[float, float]:
    """Two numbers between which every similarity of these items lies."""
    largest = float(searched.square.max().sqrt()) or 1.0
    match searched.metric:
        case "cosine":
            return -1.0, 1.0
        case "inner":
            return -(largest**2), largest**2
        case _:
            return -2 * largest, 0.0


def pairs(
    searched: Points, kind: Tensor, memory: float
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(i, j, similarity, whether kin) of every pair i < j, a block of rows at a time."""
    if not 0 < memory < inf:
        raise ValueError(f"memory must be a number of bytes above 0, got {memory}")
    count = len(kind)
    rows = max(1, int(memory / (48 * count)))
    with plain_arithmetic(kind.device):
        for start in range(0, count, rows):
            block = similarities(searched[start : start + rows], searched[start:])
            i, j = torch.ones_like(block, dtype=torch.bool).triu_(1).nonzero(as_tuple=True)
            yield i + start, j + start, block[i, j], kind[i + start] == kind[j + start]


@dataclass(frozen=True)
class Threshold:
    """A threshold and what is promised of it.

    value: accept what is as similar as this or more; None where nothing can be promised.
    over: what is accepted or not: "pairs", or the "nearest" of a query.
    far, confidence: the promise: with this confidence, new classes have at most this FAR.
    measured: FAR on the calibration items at this threshold.
    tar: share of kin pairs, or of queries with kin whose nearest is kin, that it accepts there.
    classes, wanted: classes that were calibrated on, and how many the promise takes.
    auroc: how well the similarity tells kin from others at all.
    """

    value: float | None
    over: str
    far: float
    confidence: float
    measured: float
    tar: float
    classes: int
    wanted: int
    auroc: float

    def __str__(self) -> str:
        """The promise in a sentence."""
        promise = f"a false accept rate of at most {100 * self.far:g} %"
        if self.auroc < WEAK:
            return f"cannot tell kin from others here: AUROC {self.auroc:.2f}"
        if self.value is None:
            more = self.wanted - self.classes
            return f"{promise} takes about {more:,} more classes than these {self.classes:,}"
        return (
            f"threshold {self.value:.4f}: {promise} on new classes, with "
            f"{100 * self.confidence:g} % confidence; accepts {100 * self.tar:.1f} % of kin"
        )


WEAK = 0.7
"""Below this AUROC no threshold is worth its name."""


def threshold(
    embeddings: Array,
    labels: ArrayLike,
    *,
    over: str = "pairs",
    far: float = 1e-3,
    confidence: float = 0.95,
    metric: str = "cosine",
    seed: int = 0,
    memory: float = 2.5e8,
) -> Threshold:
    """The lowest threshold whose FAR on *new classes* is at most `far`, with this confidence.

    Pairs that share an image or a class are alike, so that an interval over pairs promises too
    much. Uncertainty here is that of drawing the classes. The upper bound of FAR where n of P
    accepted pairs are of others is the larger of

        (√((n + 1) / P) + q s)²    s: deviation of √FAR over a bootstrap of classes, × √(C/(C-1))
        (n + 1) / P · exp(q s')    s': jackknife deviation of log FAR, one class left out

    with q the quantile of Student's t with C - 1 degrees. Each of the two alone breaks its promise
    in simulated worlds whose classes differ much; the larger one kept it in 97 % of draws or more
    (benchmarks/verification.py). Before that the rule of three is asked for: 3 / far pairs of
    classes, which are C >= 1/2 + √(1/4 + 6 / far) classes: 25 for 1e-2, 78 for 1e-3.

    Args:
        embeddings, labels: (N, D) and (N,) of classes that the model was not trained on.
        over: "pairs", or "nearest": FAR is then the share of photographs of unknown classes whose
            nearest item is similar enough. Each item is searched among those of other classes,
            and the promise takes 3 / far classes.
        far: the rate that is promised.
        confidence: of the promise, over draws of calibration classes.

    Source: Davison & Hinkley 1997, sections 2.7 and 3.8 (jackknife, resampling of clusters);
    Hanley & Lippman-Hand 1983 (the rule of three). That both bounds must hold is ours.
    """
    check_rate("far", far)
    check_rate("confidence", confidence)
    if over not in ENOUGH:
        raise ValueError(f"over must be {' or '.join(ENOUGH)}, got {over!r}")
    searched, kind = prepared(embeddings, labels, metric)
    classes = int(kind.max()) + 1
    if over == "pairs":
        found = curve(embeddings, labels, metric=metric, memory=memory)
        total, auroc = int(found.others[0]), found.auroc
        wanted = ceil(0.5 + sqrt(0.25 + 2 * ENOUGH[over] / far))
    else:
        near, rival = nearest_of_both(searched, kind, memory)
        total, auroc = len(kind), near.auroc
        wanted = ceil(ENOUGH[over] / far)
    promise = Threshold(None, over, far, confidence, nan, nan, classes, wanted, auroc)
    if classes < wanted or auroc < WEAK:
        return promise
    count = min(total, ceil(far * total) + 1)
    if over == "pairs":
        score, *ends = most_similar_others(searched, kind, count, memory)
    else:
        order = np.argsort(-near.others, kind="stable")[:count]
        score, ends = near.others[order], [kind.cpu().numpy()[order], rival[order]]
    sizes = np.bincount(kind.cpu().numpy())
    accepted = most_accepted(score, ends, sizes, over, far, confidence, seed)
    value = float(np.nextafter(score[accepted], np.float32(inf)))
    if over == "pairs":
        tar = kin_accepted(searched, kind, value, memory) / int(found.kin[0])
    else:
        tar = near.tar(value)
    return replace(promise, value=value, measured=accepted / total, tar=tar)


def most_accepted(
    score: np.ndarray,
    ends: Sequence[np.ndarray],
    sizes: np.ndarray,
    over: str,
    far: float,
    confidence: float,
    seed: int,
) -> int:
    """How many of these events (descending scores) may be accepted so that the promise holds.

    Looked for at up to 512 counts; equal scores are accepted together or not at all. None at all
    is within the promise by the rule of three alone.
    """
    counts = np.unique(np.geomspace(1, len(score) - 1, 512).round().astype(int))
    bound = upper_bounds(counts, ends, sizes, over, confidence, seed)
    kept = counts[bound <= far]
    accepted = int(kept[-1]) if len(kept) else 0
    while accepted and score[accepted - 1] == score[accepted]:
        accepted -= 1
    return accepted


def most_similar_others(
    searched: Points, kind: Tensor, count: int, memory: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The K = `count` most similar pairs of others, descending: similarity and both classes."""
    best = torch.empty(0, device=kind.device)
    ends = torch.empty(2, 0, dtype=torch.long, device=kind.device)
    for i, j, similarity, kin in pairs(searched, kind, memory):
        best = torch.cat([best, similarity[~kin]])
        ends = torch.cat([ends, torch.stack([kind[i[~kin]], kind[j[~kin]]])], 1)
        best, place = best.topk(min(count, len(best)))
        ends = ends[:, place]
    first, second = ends.cpu().numpy()
    return best.cpu().numpy(), first, second


def kin_accepted(searched: Points, kind: Tensor, value: float, memory: float) -> int:
    """How many kin pairs a threshold accepts."""
    found = (similarity[kin] >= value for _, _, similarity, kin in pairs(searched, kind, memory))
    return sum(int(accepted.sum()) for accepted in found)
