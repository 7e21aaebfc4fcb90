"""Reading rows: from the rows of a study to scores by method and seed, and to who differs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from nearkin.measure.statistics import Difference, Estimate, estimate, holm, paired
from nearkin.runs.row import Row

Key = TypeVar("Key", bound=Hashable)
Scores = dict[int, float]  # by seed


def scores(
    rows: Iterable[Row], key: Callable[[Row], Key | None], metric: str, which: str = "last"
) -> dict[Key, Scores]:
    """key(row) -> seed -> metric; rows whose key is None, or that diverged, are left out.

    which: "last", "validated" or "best_on_test".
    """
    found: dict[Key, Scores] = {}
    for row in rows:
        name, metrics = key(row), getattr(row.metrics, which) or {}
        if row.status == "done" and name is not None and metrics.get(metric) is not None:
            found.setdefault(name, {})[row.recipe.seed] = metrics[metric]
    return found


def last_said(
    rows: Iterable[Row], key: Callable[[Row], Key | None], what: str
) -> dict[Key, Scores]:
    """key(row) -> seed -> what the loss said of a training batch after the last epoch."""
    found: dict[Key, Scores] = {}
    for row in rows:
        name, said = key(row), row.epochs[-1].monitor if row.epochs else None
        if name is not None and said and what in said:
            found.setdefault(name, {})[row.recipe.seed] = said[what]
    return found


def mean(values: Scores | None) -> Estimate | None:
    """The estimate over seeds; None where there is no seed."""
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


def best(found: dict[Key, Scores]) -> Key:
    """The method with the highest mean."""
    return max(found, key=lambda name: estimate(found[name].values()).mean)


def p_value(difference: Difference | None) -> str:
    """How a p is printed in a table; nothing where one seed cannot tell."""
    if difference is None or difference.estimate.n < 2:
        return ""
    return "< 0.001" if difference.p < 0.001 else f"{difference.p:.3f}"
