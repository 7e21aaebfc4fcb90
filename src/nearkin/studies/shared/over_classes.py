"""Results over test classes: their intervals, and differences from a result that has no seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nearkin.measure.statistics import (
    SHARES,
    Difference,
    Estimate,
    Sure,
    against_fixed,
    bootstrap,
    bootstrap_difference,
)
from nearkin.runs.row import Row


def by_query(row: Row, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(Q,) a value and (Q,) a class for each query with kin, where each query has the mean of its
    class: the sums over classes, which are all that a bootstrap over classes needs. None of a row
    that does not hold them."""
    means = row.by_class
    if not means or metric not in means:
        return None
    counts = np.array(means["queries"], int)
    return np.repeat(means[metric], counts), np.repeat(np.arange(len(counts)), counts)


def over_classes(row: Row, metric: str) -> Estimate | None:
    """A row's test metric with its 95 % interval over test classes."""
    found = by_query(row, metric)
    if found is None:
        return None
    values, classes = found
    return bootstrap({metric: values}, classes, within=SHARES)[metric]


def difference_over_classes(one: Row, other: Row, metric: str) -> Difference | None:
    """One row minus another of the same test classes, paired over these."""
    a, b = by_query(one, metric), by_query(other, metric)
    if a is None or b is None:
        return None
    return bootstrap_difference({metric: a[0]}, {metric: b[0]}, a[1])[metric]


def against_closed(runs: Mapping[int, Row], closed: Row, metric: str) -> Sure | None:
    """The runs of a method, by seed, minus a result without a seed: over seeds and over classes."""
    reference = by_query(closed, metric)
    values = {seed: by_query(row, metric) for seed, row in runs.items()}
    found = {seed: value[0] for seed, value in values.items() if value is not None}
    if reference is None or not found:
        return None
    return against_fixed(found, *reference)
