"""Means with intervals, and whether two methods differ: over a few seeds, or over test classes.

The spread over seeds says how much a training run depends on chance; that over test classes how
much the result depends on which classes happened to be tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from nearkin.extras import optional

Bounds = tuple[float, float]
SHARES: Bounds = (0.0, 1.0)
"""The bounds of recall@k, MAP@R and all other proportions."""
FREE: Bounds = (-inf, inf)


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds or test classes, with its 95 % interval.

    points: the values themselves where fewer than three seeds allow no interval worth its name;
    low and high are then the smaller and the larger of them.
    seeds: the values of all seeds, as far as they are known, for drawing them.
    """

    mean: float
    low: float
    high: float
    n: int
    points: tuple[float, ...] = ()
    seeds: tuple[float, ...] = field(default=(), repr=False, compare=False)


def estimate(values: Iterable[float], within: Bounds = FREE) -> Estimate:
    """Mean and t-interval: mean ± t(n - 1) s / √n, t the 0.975 quantile of Student's t.

    Two values are given as two points: their interval would be 13 times as wide as they are apart.

    Args:
        values: one or more numbers, as a rule one a seed.
        within: what the interval is clipped to; SHARES for proportions.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, low=-0.48..., high=4.48..., n=3, points=())
    >>> estimate([0.5, 0.75])
    Estimate(mean=0.625, low=0.5, high=0.75, n=2, points=(0.5, 0.75))
    >>> estimate([0.97, 0.98, 0.999], within=SHARES).high
    1.0
    """
    x = np.fromiter(values, float)
    if not len(x):
        raise ValueError("an estimate needs at least one value, got none")
    seeds = tuple(x.tolist())
    if len(x) < 3:
        return Estimate(float(x.mean()), float(x.min()), float(x.max()), len(x), seeds, seeds)
    found = interval(float(x.mean()), float(x.std(ddof=1)) / sqrt(len(x)), len(x), within)
    return replace(found, seeds=seeds)


def interval(mean: float, error: float, n: int, within: Bounds = FREE) -> Estimate:
    """mean ± t(n - 1) · error, clipped: the 95 % t-interval of a mean with this standard error."""
    with optional():  # imported here, so that nearkin.measure is light
        from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.975)) * error
    low, high = (min(max(bound, within[0]), within[1]) for bound in (mean - half, mean + half))
    return Estimate(mean, low, high, n)


def two_sided(mean: float, error: float, n: int) -> float:
    """The p of a t-test that the true mean is 0: 2 P(T(n - 1) > |mean| / error).

    >>> two_sided(2.0, 1.0, 11)
    0.073...
    """
    with optional():
        from scipy.special import stdtr

    if not error:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / error))


@dataclass(frozen=True)
class Difference:
    """A paired difference: its estimate, and the p of no difference."""

    estimate: Estimate
    p: float


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """a - b over the seeds that both have, and the p of a paired t-test.

    p is 1 with fewer than two seeds, or where all differences are 0; it is 0 where all are the same
    and not 0.
    """
    seeds = sorted(set(a) & set(b))
    difference = np.array([a[s] - b[s] for s in seeds])
    if len(seeds) < 2:
        return Difference(estimate(difference.tolist() or [nan]), 1.0)
    error = float(difference.std(ddof=1)) / sqrt(len(seeds)) if np.ptp(difference) else 0.0
    p = two_sided(float(difference.mean()), error, len(seeds))
    return Difference(estimate(difference), p)


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


def rank_correlation(a: Mapping[str, float], b: Mapping[str, float]) -> Estimate | None:
    """Spearman's rank correlation of two values of the same things, with its 95 % interval.

        tanh(artanh(r) ± 1.96 √((1 + r²/2) / (n - 3)))    over n things

    A perfect order of few things does not prove one of all: its interval is that of an r half a
    swap of neighbours from it. None with fewer than four things, or where
    all have one rank.
    Source: Bonett & Wright, Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations, Psychometrika 2000.

    >>> found = rank_correlation(dict(zip("abcd", (1, 2, 3, 4))), dict(zip("abcd", (1, 2, 4, 3))))
    >>> round(found.mean, 6), found.low < 0 < found.high < 1
    (0.8, True)
    """
    n = len(a)
    if a.keys() != b.keys():
        raise ValueError(f"wanted values of the same things, got {sorted(a)} and {sorted(b)}")
    if n < 4 or len(set(a.values())) < 2 or len(set(b.values())) < 2:
        return None
    with optional():
        from scipy.stats import rankdata

    x, y = (rankdata([values[name] for name in a]) for values in (a, b))
    r = float(np.corrcoef(x, y)[0, 1])
    most = 1 - 6 / (n * (n * n - 1))
    near = min(max(r, -most), most)
    half = 1.96 * sqrt((1 + near**2 / 2) / (n - 3))
    low, high = np.tanh([np.arctanh(near) - half, np.arctanh(near) + half])
    return Estimate(r, min(r, float(low)), max(r, float(high)), n)


def bootstrap(
    values: Mapping[str, ArrayLike],
    groups: ArrayLike,
    *,
    within: Bounds = FREE,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Mean of each value with a 95 % interval over groups, by a bootstrap of whole groups.

        mean ± t(C - 1) · √(C / (C - 1)) · s,    s the standard deviation of the draws' means

    Each draw takes C of the C groups with replacement, each with all its values; its mean is that
    of all values drawn. The items of a class are alike, so that a bootstrap over items would
    promise too much. One group has no spread, and its interval is a point.

    Source: Davison & Hinkley, Bootstrap methods and their application, 1997, section 3.8
    (resampling of whole clusters).
    Differs: not the percentiles of the draws, which hold the true mean in about 84 % of cases with
    5 classes and 92 % with 20. This interval does in 92 to 95 % from 5 classes on; with a mean
    near 1 in 89 to 94 % (`python -m benchmarks.intervals` simulates it).

    Args:
        values: name -> (Q,) numbers.
        groups: (Q,) the group (class) of each, as integers or names.
        within: what the intervals are clipped to; SHARES for proportions.

    >>> bootstrap({"recall@1": [1.0, 0.0, 1.0, 1.0]}, [7, 7, 8, 9], within=SHARES)
    {'recall@1': Estimate(mean=0.75, low=0.0, high=1.0, n=3, points=())}
    """
    draws, count = resampled(values, groups, resamples, seed)
    return {
        name: _over_groups(np.asarray(value, float), draw, count, within)[0]
        for (name, value), draw in zip(values.items(), draws.T, strict=True)
    }


def bootstrap_difference(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    groups: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """a - b of each value that both have, on the same queries, by a bootstrap over groups.

    Both are drawn together. p is that of the t-test which belongs to the interval of `bootstrap`,
    and never below 2 (0 + 1) / (resamples + 1), what so many draws can tell at best; it is 1 where
    there is only one group.
    """
    both = {k: np.asarray(a[k], float) - np.asarray(b[k], float) for k in a if k in b}
    draws, count = resampled(both, groups, resamples, seed)
    found = {}
    for (name, value), draw in zip(both.items(), draws.T, strict=True):
        one, error = _over_groups(value, draw, count)
        p = two_sided(one.mean, error, count) if count > 1 else 1.0
        found[name] = Difference(one, min(1.0, max(p, 2 * (0 + 1) / (resamples + 1))))
    return found


@dataclass(frozen=True)
class Sure:
    """A difference that must hold twice: over other seeds, and over other test classes.

    seeds: over the seeds of the method that has them, by a t-test.
    classes: of the mean over these seeds, by a bootstrap paired over test classes.
    """

    seeds: Difference
    classes: Difference

    @property
    def p(self) -> float:
        """The larger of the two p: small only where both are (an intersection-union test)."""
        return max(self.seeds.p, self.classes.p)


def against_fixed(
    runs: Mapping[int, ArrayLike],
    fixed: ArrayLike,
    groups: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Sure:
    """A method with several seeds minus a result that has no seed, such as a closed form.

    Args:
        runs: seed -> (Q,) one value a query, of this seed's run.
        fixed: (Q,) the values of the fixed result on the same queries.
        groups: (Q,) the class of each query.

    >>> found = against_fixed({0: [1, 0, 1, 1], 1: [1, 1, 1, 0]}, [0, 0, 1, 0], [7, 7, 8, 9])
    >>> round(found.seeds.estimate.mean, 2), found.p == found.classes.p
    (0.5, True)
    """
    if not runs:
        raise ValueError("wanted the values of one seed or more, got none")
    reference = np.asarray(fixed, float)
    values = {s: np.asarray(v, float) for s, v in runs.items()}
    level = float(reference.mean())
    over_seeds = paired({s: float(v.mean()) for s, v in values.items()}, dict.fromkeys(runs, level))
    mean = np.mean(list(values.values()), axis=0)
    over_classes = bootstrap_difference(
        {"": mean}, {"": reference}, groups, resamples=resamples, seed=seed
    )
    return Sure(over_seeds, over_classes[""])


def _over_groups(
    value: np.ndarray, draws: np.ndarray, count: int, within: Bounds = FREE
) -> tuple[Estimate, float]:
    """The estimate over groups from the means of the draws, and its standard error."""
    mean = float(value.mean())
    if count < 2:
        return Estimate(mean, mean, mean, count, (mean,)), 0.0
    error = sqrt(count / (count - 1)) * float(draws.std(ddof=1))
    return interval(mean, error, count, within), error


def resampled(
    values: Mapping[str, ArrayLike], groups: ArrayLike, resamples: int, seed: int
) -> tuple[np.ndarray, int]:
    """(resamples, values) means of draws of whole groups, and how many groups there are."""
    classes, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    sums = [np.bincount(place, np.asarray(v, float), len(classes)) for v in values.values()]
    totals = np.stack([*sums, sizes], 1)  # (groups, values + 1)
    times = np.array_split(drawn(len(classes), resamples, seed), 20)  # of few bytes as floats
    draws = np.concatenate([part @ totals for part in times])
    return draws[:, :-1] / draws[:, -1:], len(classes)


@lru_cache(maxsize=4)
def drawn(count: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, count) how often each draw has each of so many groups; kept, as all comparisons
    of a page draw alike, and drawing takes ten times as long as the sums."""
    random, share = np.random.default_rng(seed), np.full(count, 1 / count)
    small = np.min_scalar_type(count)
    times = np.stack([random.multinomial(count, share).astype(small) for _ in range(resamples)])
    times.setflags(write=False)
    return times
