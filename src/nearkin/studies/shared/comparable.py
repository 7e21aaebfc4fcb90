"""Rows that may stand in one table: of the same data, and measured by the same metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nearkin.measure import CHANGED
from nearkin.runs.row import Metrics, Numbers, Row, Stored
from nearkin.studies.shared.words import listed
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
    old: dict[str, list[Case]] = {}
    for metric, by_case in versions.items():
        newest = max(by_case.values())
        if earlier := [case for case, version in by_case.items() if version < newest]:
            old[metric] = earlier
    found = dict(rows)
    for case, row in runs.items():
        if metrics := {metric for metric, cases in old.items() if case in cases}:
            found[case] = without(row, metrics)
    return found, earlier_versions(old, len(runs))


def earlier_versions(old: Mapping[str, list[Case]], runs: int) -> list[str]:
    """What was measured by an earlier version of which metrics, what that did otherwise, and what
    is made of it; metrics that changed in the same cases, by the same change, in one remark."""
    alike: dict[tuple[str, tuple[Case, ...]], list[str]] = {}
    for metric, cases in sorted(old.items()):
        change = CHANGED.get(metric, "")
        alike.setdefault((change, tuple(cases)), []).append(metric.upper() if change else metric)
    return [
        f"An earlier version of {listed(metrics, most=len(metrics))} measured {len(cases)} of "
        f"the {runs} runs. {change + ' ' if change else ''}Numbers of the two versions cannot be "
        f"compared, so no {' or '.join(metrics)} is taken from there, but "
        f"every other number is: {named(cases)}."
        for (change, cases), metrics in alike.items()
    ]


def named(cases: Sequence[Case]) -> str:
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
