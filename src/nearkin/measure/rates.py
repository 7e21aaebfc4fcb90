"""Rates of acceptance: the area between two, and upper bounds of false ones over draws of classes.

Dimensions: C classes, T counts, K events, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from nearkin.extras import optional

ENOUGH = {"pairs": 3.0, "nearest": 5.0}
"""Expected events (accepted pairs of classes; classes with an accepted query) that a promise takes.

Three is the rule of three; nearest items of a query come in mutual pairs, and take more.
"""
RESAMPLES = 1000


def area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the curve of two descending cumulative counts over the same thresholds.

    >>> area(np.array([2, 2, 1, 0]), np.array([2, 1, 0, 0]))
    0.875
    """
    above = (positive[:-1] + positive[1:]) / 2  # those of a bin, counted half
    return float((above * -np.diff(negative)).sum() / (positive[0] * negative[0]))


def check_rate(name: str, rate: float) -> None:
    """A rate that can be promised lies between 0 and 1."""
    if not 0 < rate < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {rate}")


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
