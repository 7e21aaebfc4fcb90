"""What stands in every table beside trained heads on features: no training, and closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from nearkin.runs.recipe import Recipe
from nearkin.studies.shared.methods import BARE, CLOSED, UNTRAINED
from nearkin.studies.shared.reading import Scores, scores
from nearkin.studies.shared.tuning import STARTS, common, settle, started, trials, whitens
from nearkin.studies.study import Case, Recipes, Rows

Found = TypeVar("Found")

STARTED = {
    "whitened start, 0.3": STARTS["whitened, 0.3"],
    "whitened start, 1": STARTS["whitened, 1"],
    "half-KISSME start": STARTS["half KISSME"],
}
"""What trained heads start as, left untrained: the simplest explanation of a method's lead is that
it was given a better start."""

FORMS = (*CLOSED, *STARTED)
BESIDE = (UNTRAINED, *FORMS)
"""What no gradient has trained: it has no seed, and is not ranked."""

DIM = 128
"""The dimension of a study that has one."""

NONE: Mapping[str, Any] = {}


def forms(data: str, dim: int) -> dict[str, Recipe]:
    """Name -> recipe of a closed form of this dimension, its settings not chosen yet."""
    return {name: replace(common(data), **change, dim=dim) for name, change in CLOSED.items()}


def search(data: str, start: str, dim: int = DIM, axes: Mapping[str, Any] = NONE) -> Recipes:
    """The trials of the closed forms; none where heads do not start as such."""
    found: Recipes = {}
    for name, recipe in forms(data, dim).items() if whitens(data, start) else ():
        found |= trials(name, recipe, **axes)
    return found


def recipes(
    data: str,
    start: str,
    searched: Rows | None,
    dim: int = DIM,
    axes: Mapping[str, Any] = NONE,
    of_trials: Mapping[str, Any] = NONE,
) -> Recipes:
    """The features as they are, the closed forms under the settings that their trials chose, and
    what heads start as; none where heads do not start as closed forms.

    Args:
        axes: of the cases.
        of_trials: of the cases of the trials.
    """
    if not whitens(data, start):
        return {}
    found = {Case(UNTRAINED, **axes): replace(common(data), **BARE)}
    for name, recipe in forms(data, dim).items():
        found[Case(name, **axes)] = settle(recipe, searched, name, by="map@r", **of_trials)
    untrained = replace(common(data), **next(iter(CLOSED.values())), dim=dim)
    for name, change in STARTED.items():
        found[Case(name, **axes)] = replace(started(untrained, start), **change)
    return found


def parted(rows: Rows, axis: str) -> tuple[Rows, dict[str, Scores]]:
    """The rows of runs, which have this axis; and the R@1 of what stands beside them."""
    runs = {case: row for case, row in rows.items() if axis in case}
    return runs, beside(scores(rows, "recall@1"))


def beside(found: Mapping[str, Found]) -> dict[str, Found]:
    """What no gradient has trained, of these methods."""
    return {name: found[name] for name in BESIDE if name in found}


def ranked(found: Mapping[str, Found]) -> dict[str, Found]:
    """The trained methods among these."""
    return {name: value for name, value in found.items() if name not in BESIDE}
