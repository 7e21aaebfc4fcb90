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

from nearkin.extras import optional
from nearkin.measure.inputs import matrix
from nearkin.measure.nearest.exact import Array, Points, points_of, similarities
from nearkin.measure.nearest.screen import plain_arithmetic

BINS = 2**16
ENOUGH = {"pairs": 3.0, "nearest": 5.0}
"""Expected events (accepted pairs of classes; classes with an accepted query) that a promise takes.

Three is the rule of three; nearest items of a query come in mutual pairs, and take more.
"""
RESAMPLES = 1000


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


def area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the curve of two descending cumulative counts over the same thresholds.

    >>> area(np.array([2, 2, 1, 0]), np.array([2, 1, 0, 0]))
    0.875
    """
    above = (positive[:-1] + positive[1:]) / 2  # those of a bin, counted half
    return float((above * -np.diff(negative)).sum() / (positive[0] * negative[0]))


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


@dataclass(frozen=True)
class OpenSet:
    """Nearest items of queries, of which some are of unknown classes.

    kin: (Q,) similarity of the nearest item of a known query's own class.
    rivals: (Q,) similarity of the nearest item of another class, for the same queries.
    others: (U,) similarity of the nearest item, for queries of unknown classes.
    """

    kin: np.ndarray
    rivals: np.ndarray
    others: np.ndarray

    @property
    def auroc(self) -> float:
        """Probability that a known query's nearest item is more similar than an unknown one's."""
        known = np.maximum(self.kin, self.rivals)
        edges = np.unique(np.concatenate([known, self.others, [np.inf]]))
        known, unknown = np.sort(known), np.sort(self.others)
        counts = [len(x) - np.searchsorted(x, edges, side="left") for x in (known, unknown)]
        return area(*counts)

    def tar(self, value: float) -> float:
        """Share of the known queries whose nearest item is kin, and accepted (DIR)."""
        return float(((self.kin > self.rivals) & (self.kin >= value)).mean())

    def dir_at(self, far: float) -> float | None:
        """Detection and identification rate at this FAR of unknown queries; None for too few."""
        check_rate("far", far)
        if far * len(self.others) < ENOUGH["pairs"]:
            return None
        unknown = np.sort(self.others)[::-1]
        return self.tar(float(np.nextafter(unknown[int(far * len(unknown))], np.float32(inf))))


def open_set(
    query: Array,
    query_labels: ArrayLike,
    gallery: Array,
    gallery_labels: ArrayLike,
    *,
    metric: str = "cosine",
    memory: float = 2.5e8,
) -> OpenSet:
    """Queries searched in a gallery that lacks the classes of some: are those told as unknown?

    Raises:
        ValueError: no query, or every query, is of a class that the gallery has.
    """
    kinds = np.unique(
        np.concatenate([np.asarray(query_labels), np.asarray(gallery_labels)]), return_inverse=True
    )[1]
    asked, searched = points_of(matrix(query, "query"), matrix(gallery, "gallery"), metric)
    labels, held = (torch.from_numpy(k) for k in np.split(kinds, [len(asked)]))
    known = torch.isin(labels, held).numpy()
    if known.all() or not known.any():
        which = "all" if known.all() else "none"
        raise ValueError(f"open set wanted known and unknown queries, got {which} known")
    kin, others, _ = nearest_sides(asked, labels, searched, held, memory)
    return OpenSet(kin[known], others[known], others[~known])


def nearest_of_both(searched: Points, kind: Tensor, memory: float) -> tuple[OpenSet, np.ndarray]:
    """Every item once as known, among all others, and once as unknown, without its class.

    Also the class (N,) of each item's nearest item of another class.
    """
    kin, others, rival = nearest_sides(searched, kind, searched, kind, memory, itself=True)
    alone = np.isneginf(kin)
    if alone.all() or np.isneginf(others).any():
        raise ValueError("verification wanted two classes and two items of one, got fewer")
    return OpenSet(kin[~alone], others[~alone], others), rival


def nearest_sides(
    asked: Points, labels: Tensor, searched: Points, held: Tensor, memory: float, itself=False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B,) similarity of the nearest kin, of the nearest other, and that other's class.

    A similarity is -inf where there is none.
    """
    found, rival = torch.full((2, len(labels)), -inf), torch.empty_like(labels)
    rows = max(1, int(memory / (32 * len(held))))
    with plain_arithmetic(held.device):
        for start in range(0, len(labels), rows):
            here = slice(start, min(start + rows, len(labels)))
            block = similarities(asked[here], searched)
            kin = labels[here, None] == held
            nearest = block.masked_fill(kin, -inf).max(1)
            found[1, here], rival[here] = nearest.values.cpu(), held[nearest.indices]
            if itself:
                kin[torch.arange(len(block)), torch.arange(here.start, here.stop)] = False
            found[0, here] = block.masked_fill(~kin, -inf).amax(1).cpu()
    return found[0].numpy(), found[1].numpy(), rival.cpu().numpy()


def upper_bounds(
    counts: np.ndarray,
    ends: Sequence[np.ndarray],
    sizes: np.ndarray,
    over: str,
    confidence: float,
    seed: int,
) -> np.ndarray:
    """(T,) upper bounds of FAR where the n = counts[t] first events are accepted.

    ends: the two classes (K,) of each event, of a pair or of a query and its nearest item;
    sizes: (C,) items of each class.
    """
    with optional():
        from scipy import stats

    classes = len(sizes)
    quantile = stats.t.ppf(confidence, classes - 1)
    span = np.searchsorted(counts, np.arange(len(ends[0])), side="right")  # first count to hold it
    total = possible(sizes, over)
    root = np.sqrt((counts + 1) / total)
    deviation = np.sqrt(drawn_rates(counts, span, ends, sizes, over, seed)).std(0, ddof=1)
    if over == "nearest":
        return (root + 2 * quantile * sqrt(classes / (classes - 1)) * deviation) ** 2
    by_bootstrap = (root + quantile * sqrt(classes / (classes - 1)) * deviation) ** 2

    involved = np.zeros((classes, len(counts) + 1))
    for end in ends:
        np.add.at(involved, (end, span), 1)
    rest = counts - involved[:, :-1].cumsum(1)  # (C, T) events without a class
    left = total - sizes * (sizes.sum() - sizes)  # pairs without a class
    log = np.log((rest + 1) / left[:, None])
    spread = np.sqrt((classes - 1) * log.var(0))
    by_jackknife = (counts + 1) / total * np.exp(quantile * spread)
    return np.maximum(by_bootstrap, by_jackknife)


def possible(sizes: np.ndarray, over: str) -> float:
    """How many events there could be: pairs of items of different classes, or queries.

    >>> possible(np.array([2, 3, 1]), "pairs")
    11.0
    """
    items = sizes.astype(float)
    count = float(items.sum())
    return (count**2 - float((items**2).sum())) / 2 if over == "pairs" else count


def drawn_rates(
    counts: np.ndarray,
    span: np.ndarray,
    ends: Sequence[np.ndarray],
    sizes: np.ndarray,
    over: str,
    seed: int,
) -> np.ndarray:
    """(R, T) FAR at these counts in draws of as many classes with replacement.

    A class that is drawn w times counts w-fold; pairs of a class with itself stay kin.
    """
    random, classes = np.random.default_rng(seed), len(sizes)
    rates = np.empty((RESAMPLES, len(counts)))
    for row in range(RESAMPLES):
        weight = random.multinomial(classes, np.full(classes, 1 / classes)).astype(float)
        events = weight[ends[0]] * (weight[ends[1]] if over == "pairs" else 1)
        drawn = np.bincount(span, events, len(counts) + 1)[:-1].cumsum()
        rates[row] = drawn / max(possible(weight * sizes, over), 1)
    return rates


def check_rate(name: str, rate: float) -> None:
    """A rate that can be promised lies between 0 and 1."""
    if not 0 < rate < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {rate}")
