"""Rows that may stand in one table: of the same data, and measured by the same metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nearkin.runs.row import Metrics, Numbers, Row, Stored
from nearkin.studies.study import Case

NAMED = 3  # cases, at most, that a remark names


def comparable(rows: Mapping[Case, Stored]) -> tuple[dict[Case, Any], list[str]]:
    """The rows that can be compared, and remarks on those that cannot.

    Of data of one name, those of most rows stay, by their fingerprints; of a metric, its newest
    version.
    """
    same, remarks = of_same_data(rows)
    found, more = of_same_metrics(same)
    return found, remarks + more


def of_same_data(rows: Mapping[Case, Stored]) -> tuple[dict[Case, Stored], list[str]]:
    """The rows without those of other data under the same name."""
    prints: dict[str, Counter[str]] = {}
    for row in rows.values():
        if row.data:
            prints.setdefault(row.data.name, Counter())[row.data.fingerprint] += 1
    remarks, same = [], dict(rows)
    for name, counts in prints.items():
        unknown = counts.pop("", 0)
        if not counts:
            continue
        most = max(counts, key=counts.__getitem__)
        others = [
            case
            for case, row in rows.items()
            if row.data and row.data.name == name and row.data.fingerprint not in (most, "")
        ]
        for case in others:
            del same[case]
        if others:
            remarks.append(f"Of other data under the name {name}, and left out: {named(others)}.")
        if unknown:
            remarks.append(
                "Without a fingerprint of their data, which may differ from those of the others: "
                f"{unknown} of the {unknown + counts.total()} rows of {name}."
            )
    return same, remarks


def of_same_metrics(rows: Mapping[Case, Stored]) -> tuple[dict[Case, Stored], list[str]]:
    """The rows without metrics that were computed by an older version than those of others."""
    versions: dict[str, dict[Case, int]] = {}
    runs = {case: row for case, row in rows.items() if isinstance(row, Row)}
    for case, row in runs.items():
        for metric in row.metrics.last or ():
            versions.setdefault(metric, {})[case] = row.metric_versions.get(metric, 1)
    old: dict[Case, set[str]] = {}
    for metric, by_case in versions.items():
        newest = max(by_case.values())
        for case, version in by_case.items():
            if version < newest:
                old.setdefault(case, set()).add(metric)
    if not old:
        return dict(rows), []
    found = dict(rows) | {case: without(runs[case], metrics) for case, metrics in old.items()}
    metrics = ", ".join(sorted(set.union(*old.values())))
    remark = f"Measured by an older version of {metrics}, and left out of it: {named(list(old))}."
    return found, [remark]


def named(cases: list[Case]) -> str:
    """The cases, or the first of them and how many more there are."""
    shown = "; ".join(f"{case.label}, seed {case.seed}" for case in cases[:NAMED])
    more = len(cases) - NAMED
    return f"{shown}; and {more} more" if more > 0 else shown


def without(row: Row, metrics: set[str]) -> Row:
    """The row without these test metrics."""

    def less(numbers: Numbers | None) -> Numbers | None:
        return numbers and {k: v for k, v in numbers.items() if k not in metrics}

    of = row.metrics
    left = Metrics(less(of.last), less(of.validated), less(of.best_on_test), of.refined)
    epochs = tuple(replace(epoch, test=less(epoch.test)) for epoch in row.epochs)
    return replace(row, metrics=left, epochs=epochs)
