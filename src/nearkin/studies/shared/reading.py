"""Reading rows: from the rows of a study to scores by method and seed, and to who differs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from nearkin.measure.statistics import SHARES, Difference, Estimate, estimate, holm, paired
from nearkin.runs.row import Row
from nearkin.studies.study import Case, Rows

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")
Scores = dict[int, float]  # by seed


def method(case: Case) -> str:
    """The method of a case: what scores are gathered by, where nothing else is named."""
    return case.method


def where(rows: Mapping[Case, Found], **axes: str | int | float | bool | None) -> dict[Case, Found]:
    """The rows of the cases that have these values on these axes."""
    return {case: row for case, row in rows.items() if case.on(**axes)}


def gathered(
    rows: Rows, read: Callable[[Row], float | None], by: Callable[[Case], Key]
) -> dict[Key, Scores]:
    """by(case) -> seed -> read(row), without rows that diverged or have no such number."""
    found: dict[Key, Scores] = {}
    for case, row in rows.items():
        if row.status == "done" and (value := read(row)) is not None:
            found.setdefault(by(case), {})[case.seed] = value
    return found


def scores(
    rows: Rows, metric: str, which: str = "last", by: Callable[[Case], Key] = method
) -> dict[Key, Scores]:
    """by(case) -> seed -> test metric; which: "last", "validated" or "best_on_test"."""
    return gathered(rows, lambda row: (getattr(row.metrics, which) or {}).get(metric), by)


def final_monitor(rows: Rows, value: str, by: Callable[[Case], Key] = method) -> dict[Key, Scores]:
    """by(case) -> seed -> what the loss reports of a training batch after the last epoch."""

    def read(row: Row) -> float | None:
        return (row.epochs[-1].monitor or {}).get(value) if row.epochs else None

    return gathered(rows, read, by)


@dataclass(frozen=True)
class Metric:
    """A metric of rows: its key there, and its name here."""

    key: str
    name: str

    def of(self, row: Row, which: str = "last") -> float | None:
        """A row's number: last, validated or best_on_test; None where it has none."""
        return (getattr(row.metrics, which) or {}).get(self.key)


METRICS = (
    Metric("in_train.recall@1", "R@1 among training images"),
    Metric("knn_accuracy", "5-NN accuracy"),
    Metric("recall@1", "R@1"),
)


def headline(rows: Iterable[Row]) -> Metric:
    """The metric by which rows are ranked: the first of METRICS that all finished runs have."""
    finished = [row for row in rows if row.metrics.last]
    found = (m for m in METRICS if finished and all(m.of(row) is not None for row in finished))
    return next(found, METRICS[-1])


def mean(values: Scores | None) -> Estimate | None:
    """The estimate over seeds of a share; None where there is no seed."""
    return estimate(values.values(), within=SHARES) if values else None


def average(values: Scores | None) -> Estimate | None:
    """The estimate over seeds of a number of any size; None where there is no seed."""
    return estimate(values.values()) if values else None


def differences(found: Mapping[Key, Scores], pairs: Mapping[Key, Key]) -> dict[Key, Difference]:
    """Each method minus the one that it is paired with, over shared seeds, where both are found; p
    corrected by Holm's method."""
    there = {a: paired(found[a], found[b]) for a, b in pairs.items() if a in found and b in found}
    adjusted = holm([d.p for d in there.values()])
    return {a: replace(d, p=p) for (a, d), p in zip(there.items(), adjusted, strict=True)}


def against(reference: Key, found: Mapping[Key, Scores]) -> dict[Key, Difference]:
    """Every other method minus the reference, as `differences`; none where it is not found."""
    return differences(found, {name: reference for name in found if name != reference})


def highest(found: Mapping[Key, Scores]) -> Key:
    """The method with the highest mean, which is not to say that it is better than the next."""
    return max(found, key=lambda name: estimate(found[name].values()).mean)
