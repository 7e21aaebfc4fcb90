"""Means, intervals and tests are SciPy's, and the bootstrap is that of whole classes.

How often an interval holds the truth is simulated: a few draws here, more in benchmarks/intervals.
"""

import numpy as np
import pytest
from scipy import stats

from nearkin.measure.statistics import (
    SHARES,
    Estimate,
    against_fixed,
    bootstrap,
    bootstrap_difference,
    estimate,
    holm,
    paired,
)


def test_an_estimate_is_the_t_interval_of_scipy():
    x = [0.61, 0.58, 0.65, 0.6, 0.63]
    found = estimate(x)
    low, high = stats.t.interval(0.95, 4, np.mean(x), stats.sem(x))
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((np.mean(x), low, high, 5))
    assert estimate([0.7]) == Estimate(0.7, 0.7, 0.7, 1, (0.7,))
    with pytest.raises(ValueError, match="at least one value"):
        estimate([])


def test_a_paired_difference_is_the_paired_t_test_of_scipy_over_shared_seeds():
    a, b = {0: 0.61, 1: 0.58, 2: 0.65, 9: 0.1}, {2: 0.6, 1: 0.55, 0: 0.6, 7: 0.9}
    found = paired(a, b)
    wanted = stats.ttest_rel([0.61, 0.58, 0.65], [0.6, 0.55, 0.6])
    assert found.p == pytest.approx(np.asarray(wanted)[1])
    assert found.estimate.n == 3
    assert found.estimate.mean == pytest.approx(0.03)


def test_a_paired_difference_of_nothing_or_of_constants_has_a_clear_p():
    assert paired({0: 1.0}, {0: 0.5}).p == 1  # one seed proves nothing
    assert paired({0: 0.5, 1: 0.7}, {0: 0.5, 1: 0.7}).p == 1
    assert paired({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5}).p == 0
    assert np.isnan(paired({0: 1.0}, {1: 1.0}).estimate.mean)


def test_holm_rejects_what_stepping_down_rejects():
    p = np.random.default_rng(0).random(40) ** 4
    adjusted = np.array(holm(p.tolist()))
    for level in (0.001, 0.01, 0.05, 0.3):
        rejected = np.zeros(40, bool)
        for step, i in enumerate(np.argsort(p)):
            if p[i] > level / (40 - step):
                break
            rejected[i] = True
        assert np.array_equal(adjusted <= level, rejected)
    assert holm([]) == []


def test_two_values_are_two_points_and_no_interval():
    found = estimate([0.9, 0.5])
    assert found.points == (0.9, 0.5)
    assert (found.mean, found.low, found.high, found.n) == (0.7, 0.5, 0.9, 2)
    assert estimate([0.9, 0.5, 0.7]).points == ()


def test_no_interval_of_a_proportion_leaves_0_to_1():
    assert estimate([0.99, 0.9, 1.0], SHARES).high == 1
    assert estimate([0.01, 0.1, 0.0], SHARES).low == 0
    assert estimate([0.99, 0.9, 1.0]).high > 1  # what is no proportion has no bounds
    random = np.random.default_rng(6)
    for mean in (0.02, 0.5, 0.98):
        hits = random.random(60) < mean
        found = bootstrap({"x": hits}, np.arange(60) % 3, within=SHARES)["x"]
        assert 0 <= found.low <= found.mean <= found.high <= 1


def test_with_classes_of_one_it_is_the_t_interval_of_scipy():
    """Then the bootstrap's standard error, corrected, is s / sqrt(C): the usual one."""
    for count in (5, 80):
        x = np.random.default_rng(1).random(count)
        found = bootstrap({"x": x}, np.arange(count), resamples=20_000)["x"]
        wanted = stats.t.interval(0.95, count - 1, x.mean(), stats.sem(x))
        assert (found.low, found.high) == pytest.approx(wanted, abs=0.01)
        assert (found.mean, found.n) == (pytest.approx(x.mean()), count)


def test_classes_are_drawn_whole():
    random = np.random.default_rng(3)
    groups = random.integers(12, size=200)
    x = random.random(12)[groups] + 0.1 * random.random(200)
    draws = []
    for _ in range(4000):
        drawn = random.integers(12, size=12)
        draws.append(np.concatenate([x[groups == kind] for kind in drawn]).mean())
    half = stats.t.ppf(0.975, 11) * np.sqrt(12 / 11) * np.std(draws)
    found = bootstrap({"x": x}, groups, resamples=4000)["x"]
    assert (found.low, found.high) == pytest.approx([x.mean() - half, x.mean() + half], abs=0.015)
    items = bootstrap({"x": x}, np.arange(200))["x"]
    assert found.high - found.low > 2 * (items.high - items.low)  # items alike are not 200 chances


@pytest.mark.parametrize("classes", [5, 10, 20])
def test_intervals_hold_the_truth_and_alarms_are_rare_with_few_classes(classes):
    """In 400 simulations the percentiles of the draws would hold it in 84, 90 and 92 %."""
    random = np.random.default_rng(classes)
    group = np.repeat(np.arange(classes), 40)
    held = alarms = 0
    for seed in range(400):
        chance = random.beta(1.8, 1.2, classes)  # mean 0.6
        hit = random.random(len(group)) < chance[group]
        found = bootstrap({"x": hit}, group, within=SHARES, resamples=200, seed=seed)["x"]
        held += found.low <= 0.6 <= found.high
        shift = random.normal(0, 0.1, classes)
        a, b = (random.random(len(group)) < (chance + s * shift)[group] for s in (1, -1))
        difference = bootstrap_difference({"x": a}, {"x": b}, group, resamples=200, seed=seed)
        alarms += difference["x"].p < 0.05
    assert held / 400 >= 0.915  # 0.95, less three standard deviations of the simulation
    assert alarms / 400 <= 0.085


def test_one_class_tells_nothing_of_other_classes():
    found = bootstrap({"x": [0.0, 1.0]}, ["cat", "cat"], within=SHARES)["x"]
    assert found == Estimate(0.5, 0.5, 0.5, 1, (0.5,))
    assert bootstrap_difference({"x": [1.0, 1.0]}, {"x": [0.0, 0.0]}, [3, 3])["x"].p == 1


def test_a_paired_bootstrap_sees_what_two_intervals_hide():
    random = np.random.default_rng(4)
    groups = np.arange(300) % 30
    hard = random.random(30)[groups]
    a, b = hard + 0.02 + 0.01 * random.standard_normal(300), hard
    found = bootstrap_difference({"x": a, "other": a}, {"x": b}, groups)
    assert list(found) == ["x"]
    assert found["x"].p < 0.01
    assert found["x"].estimate.low > 0
    assert bootstrap({"x": a}, groups)["x"].low < b.mean()  # the intervals overlap
    back = bootstrap_difference({"x": b}, {"x": a}, groups)["x"]
    assert back.estimate.mean == pytest.approx(-found["x"].estimate.mean)
    assert bootstrap_difference({"x": a}, {"x": a}, groups)["x"].p == 1


@pytest.mark.parametrize("resamples", [99, 999])
def test_a_bootstrap_never_says_that_chance_is_impossible(resamples):
    """p is (0 + 1) of (resamples + 1) draws, twice, where all classes agree without any spread."""
    groups = np.arange(60) % 20
    found = bootstrap_difference(
        {"x": np.ones(60)}, {"x": np.zeros(60)}, groups, resamples=resamples
    )
    assert found["x"].p == 2 / (resamples + 1)


def test_the_p_of_a_difference_goes_with_its_interval():
    random = np.random.default_rng(8)
    for seed in range(40):
        x, groups = random.normal(0.25, 1, 90), np.arange(90) % 9
        found = bootstrap_difference({"x": x}, {"x": np.zeros(90)}, groups, seed=seed)["x"]
        assert (found.p < 0.05) == (found.estimate.low > 0 or found.estimate.high < 0)


def test_a_method_with_seeds_against_one_without_must_win_over_seeds_and_over_classes():
    random = np.random.default_rng(9)
    groups = np.arange(600) % 30
    fixed = random.random(600)

    def runs(over_classes: float, over_seeds: float) -> dict[int, np.ndarray]:
        """Better by 0.05 in the mean, by more in some classes, by more with some seeds."""
        gain = 0.05 + over_classes * random.standard_normal(30)[groups]
        return {s: fixed + gain + over_seeds * random.standard_normal() for s in range(5)}

    sure = against_fixed(runs(0.02, 0.01), fixed, groups)
    assert sure.p < 0.01
    by_chance = against_fixed(runs(0.5, 0.001), fixed, groups)  # sure for these classes alone
    assert by_chance.seeds.p < 0.01
    assert by_chance.p == by_chance.classes.p > 0.05
    lucky = against_fixed({0: fixed - 0.1, 1: fixed + 0.2, 2: fixed + 0.05}, fixed, groups)
    assert lucky.classes.p < 0.01
    assert lucky.p == lucky.seeds.p > 0.05
    values = list(runs(0.02, 0.01).values())
    mean = against_fixed(dict(enumerate(values)), fixed, groups)
    by_scipy = stats.ttest_1samp([v.mean() for v in values], fixed.mean())
    assert mean.seeds.p == pytest.approx(np.asarray(by_scipy)[1])
    with pytest.raises(ValueError, match="one seed or more"):
        against_fixed({}, fixed, groups)


def test_the_p_of_no_difference_is_even():
    """Among runs that do not differ, a share of about p has a p below p."""
    random = np.random.default_rng(5)
    p = [
        bootstrap_difference(
            {"x": random.standard_normal(120)},
            {"x": np.zeros(120)},
            np.arange(120) % 40,
            resamples=200,
            seed=i,
        )["x"].p
        for i in range(200)
    ]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.08)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.12)


def test_a_bootstrap_is_the_same_each_time():
    values, groups = {"x": [1.0, 2.0, 4.0]}, ["cat", "cat", "dog"]
    assert bootstrap(values, groups) == bootstrap(values, groups)
