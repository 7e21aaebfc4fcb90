"""Means with intervals, and whether two methods differ: of a few seeds, or of the test classes.

The spread over seeds says how much a training run depends on chance; that over test classes how
much the result depends on which classes happened to be tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, over n seeds or test classes; a point where n is 1."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and t-interval: mean ± t(n - 1) s / √n, t the 0.975 quantile.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, low=-0.48..., high=4.48..., n=3)
    """
    x = np.fromiter(values, float)
    if not len(x):
        raise ValueError("an estimate needs at least one value, got none")
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, mean, mean, 1)
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Estimate(mean, mean - half, mean + half, len(x))


@dataclass(frozen=True)
class Difference:
    """Paired difference: its estimate, and the p of no difference."""

    estimate: Estimate
    p: float


def paired(a: dict[int, float], b: dict[int, float]) -> Difference:
    """a - b over the seeds that both have, and the p of a paired t-test.

    p is 1 with fewer than two seeds, or where all differences are 0; it is 0 where all are the same
    and not 0.
    """
    seeds = sorted(set(a) & set(b))
    difference = [a[s] - b[s] for s in seeds]
    if len(seeds) < 2 or not np.ptp(difference):
        same = len(seeds) < 2 or difference[0] == 0
        return Difference(estimate(difference or [float("nan")]), 1.0 if same else 0.0)
    return Difference(estimate(difference), float(np.asarray(stats.ttest_1samp(difference, 0))[1]))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, float(p[i]) * (len(p) - rank)))
        adjusted[i] = largest
    return adjusted


def bootstrap(
    values: Mapping[str, ArrayLike],
    groups: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Mean of each value with the percentile interval of a bootstrap over groups.

    As many groups as there are are drawn with replacement, each with all its values; the mean is
    that of all values drawn. The items of a class are alike, so a bootstrap over the items would
    promise too much.

    Source: Davison & Hinkley, Bootstrap methods and their application, 1997, section 3.8
    (resampling of whole clusters).

    Args:
        values: name -> (Q,) numbers.
        groups: (Q,) the group (class) of each, as integers or names.

    >>> bootstrap({"recall@1": [1.0, 1.0, 1.0]}, [7, 7, 9])
    {'recall@1': Estimate(mean=1.0, low=1.0, high=1.0, n=2)}
    """
    draws, count = _resampled(values, groups, resamples, seed)
    found = {}
    for (name, value), draw in zip(values.items(), draws.T, strict=True):
        low, high = np.percentile(draw, [2.5, 97.5])
        found[name] = Estimate(
            float(np.asarray(value, float).mean()), float(low), float(high), count
        )
    return found


def bootstrap_difference(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    groups: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """a - b of each value that both have, on the same queries, by a bootstrap over groups.

    Both are drawn together. p is two-sided: twice the share of draws on the rarer side of 0 (0
    itself belongs to both), one draw being added so that it never is 0.
    """
    both = {k: np.asarray(a[k], float) - np.asarray(b[k], float) for k in a if k in b}
    found = bootstrap(both, groups, resamples=resamples, seed=seed)
    draws, _ = _resampled(both, groups, resamples, seed)
    rarer = np.minimum((draws <= 0).sum(0), (draws >= 0).sum(0))
    p = np.minimum(1, 2 * (rarer + 1) / (resamples + 1))
    return {
        name: Difference(one, float(chance))
        for (name, one), chance in zip(found.items(), p, strict=True)
    }


def _resampled(
    values: Mapping[str, ArrayLike], groups: ArrayLike, resamples: int, seed: int
) -> tuple[np.ndarray, int]:
    """(resamples, values) means of draws of whole groups, and how many groups there are."""
    kinds, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    sums = [np.bincount(place, np.asarray(v, float), len(kinds)) for v in values.values()]
    totals = np.stack([*sums, sizes], 1)  # (groups, values + 1)
    random = np.random.default_rng(seed)
    share = np.full(len(kinds), 1 / len(kinds))
    draws = np.stack([random.multinomial(len(kinds), share) @ totals for _ in range(resamples)])
    return draws[:, :-1] / draws[:, -1:], len(kinds)
