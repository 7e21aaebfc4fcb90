"""Means with intervals, and whether two methods differ: the statistics of a few seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % t-interval; low and high are the mean where n is 1."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean and t-interval: mean ± t(n - 1) s / √n.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, low=-0.48..., high=4.48..., n=3)
    """
    x = np.asarray(values, float)
    if not len(x):
        raise ValueError("an estimate needs at least one value, got none")
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, mean, mean, 1)
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Estimate(mean, mean - half, mean + half, len(x))


@dataclass(frozen=True)
class Difference:
    """Paired difference over shared seeds: its estimate and the p of a paired t-test."""

    estimate: Estimate
    p: float


def paired(a: dict[int, float], b: dict[int, float]) -> Difference:
    """a - b over the seeds that both have; p is 1 with fewer than two, or where all are equal."""
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
