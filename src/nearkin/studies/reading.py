"""Reading rows: from the rows of a study to scores by method and seed, and to who differs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from nearkin.measure.statistics import Difference, Estimate, estimate, holm, paired

Key = TypeVar("Key", bound=Hashable)
Scores = dict[int, float]  # by seed


def scores(
    rows: Iterable[dict], key: Callable[[dict], Key | None], metric: str, which: str = "last"
) -> dict[Key, Scores]:
    """key(row) -> seed -> metric; rows whose key is None, or that diverged, are left out.

    which: "last", "validated" or "best_on_test".
    """
    found: dict[Key, Scores] = {}
    for row in rows:
        name, metrics = key(row), row["metrics"][which]
        if name is not None and metrics and metrics.get(metric) is not None:
            found.setdefault(name, {})[row["recipe"]["seed"]] = metrics[metric]
    return found


def last_said(
    rows: Iterable[dict], key: Callable[[dict], Key | None], what: str
) -> dict[Key, Scores]:
    """key(row) -> seed -> what the loss said of a training batch after the last epoch."""
    found: dict[Key, Scores] = {}
    for row in rows:
        name, said = key(row), row["epochs"][-1].get("monitor") if row["epochs"] else None
        if name is not None and said and what in said:
            found.setdefault(name, {})[row["recipe"]["seed"]] = said[what]
    return found


def mean(values: Scores | None) -> Estimate | None:
    """The estimate over seeds; None where there is no seed."""
    return estimate(list(values.values())) if values else None


def against(reference: Key, found: dict[Key, Scores]) -> dict[Key, Difference]:
    """Every other method minus the reference, over shared seeds; p corrected by Holm's method."""
    others = [name for name in found if name != reference]
    differences = [paired(found[name], found[reference]) for name in others]
    adjusted = holm([d.p for d in differences])
    return {
        name: Difference(d.estimate, p)
        for name, d, p in zip(others, differences, adjusted, strict=True)
    }


def best(found: dict[Key, Scores]) -> Key:
    """The method with the highest mean."""
    return max(found, key=lambda name: estimate(list(found[name].values())).mean)


def p_value(difference: Difference | None) -> str:
    """How a p is printed in a table; nothing where one seed cannot tell."""
    if difference is None or difference.estimate.n < 2:
        return ""
    return "< 0.001" if difference.p < 0.001 else f"{difference.p:.3f}"
