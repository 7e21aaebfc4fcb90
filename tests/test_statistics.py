"""Means, intervals and tests are SciPy's, and the bootstrap is that of whole classes."""

import numpy as np
import pytest
from scipy import stats

from nearkin.measure.statistics import bootstrap, bootstrap_difference, estimate, holm, paired


def test_an_estimate_is_the_t_interval_of_scipy():
    x = [0.61, 0.58, 0.65, 0.6, 0.63]
    found = estimate(x)
    low, high = stats.t.interval(0.95, 4, np.mean(x), stats.sem(x))
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((np.mean(x), low, high, 5))
    assert estimate([0.7]).low == estimate([0.7]).high == 0.7
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


def test_with_classes_of_one_it_is_the_percentile_bootstrap_of_scipy():
    x = np.random.default_rng(1).random(80)
    found = bootstrap({"x": x}, np.arange(80), resamples=20_000)["x"]
    wanted = stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(wanted, abs=0.004)
    assert found.mean == pytest.approx(x.mean())
    assert found.n == 80


def test_classes_are_drawn_whole():
    random = np.random.default_rng(3)
    groups = random.integers(12, size=200)
    x = random.random(12)[groups] + 0.1 * random.random(200)
    draws = []
    for _ in range(4000):
        drawn = random.integers(12, size=12)
        draws.append(np.concatenate([x[groups == kind] for kind in drawn]).mean())
    found = bootstrap({"x": x}, groups, resamples=4000)["x"]
    assert (found.low, found.high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.015)
    items = bootstrap({"x": x}, np.arange(200))["x"]
    assert found.high - found.low > 2 * (items.high - items.low)  # items alike are not 200 chances


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
