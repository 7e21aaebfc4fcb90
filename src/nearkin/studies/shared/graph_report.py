"""What the studies of the graph report share: their recipe, its settings, and how rows are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from nearkin.answers import BatchGraphs, Dots, Line, Table
from nearkin.measure.statistics import estimate
from nearkin.runs.recipe import Plain, Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared import comparison, controls
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import BARE, UNTRAINED
from nearkin.studies.shared.reading import Scores, gathered, highest, scores
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import (
    HALVES,
    ORTHOGONAL,
    WHITENED,
    common,
    settle,
    started,
    trials,
    whitens,
)
from nearkin.studies.shared.words import SPREAD, points
from nearkin.studies.study import Case, Recipes, Rows

HEADS = {"R@1": "recall@1", "MAP@R": "map@r", "NMI": "nmi"}
DEMO = {"data": "mnist-5k", "seeds": 2, "epochs": 2, "tune": False}

Change = Mapping[str, Any]
"""What differs from the common recipe: its fields, and loss_options of graph refinement."""


def recipe(data: str, epochs: int, change: Change, start: str = ORTHOGONAL) -> Recipe:
    """Graph refinement with this change, its settings not chosen yet.

    epochs: the most that a run may take; 0: 8 on features, 6 of heads that start as closed forms,
        4 on pictures.
    """
    usual = 8 if data.startswith("features:") and not whitens(data, start) else 0
    base = replace(common(data, epochs or usual, start), loss="graph-refinement")
    found = replace(base, **change)
    return started(found, start) if found.epochs else found


def search(
    methods: Mapping[str, Change],
    data: str = CUB,
    epochs: int = 0,
    tune: bool = True,
    start: str = WHITENED,
    sampler: str = "",
) -> Recipes:
    """The trials of graph refinement: five judges, of which each has two of the five folds. And
    those of each other loss among the methods, on all folds. Where heads start as closed forms, all
    have both halves.

    So every training class validates twice. On CUB two folds alone, 40 classes, cannot tell
    settings apart that differ by 1.7 points on new classes.

    sampler: of the batches; "" takes classes, and is then no axis of the cases.
    """
    if not tune:
        return {}
    found, halved = controls.search(data, start), whitens(data, start)
    axes: dict[str, Any] = {"sampler": sampler} if sampler else {}
    for name, change in methods.items():
        one = recipe(data, epochs, change, start)
        if "loss" in change and one.epochs:
            found |= trials(name, one, range(HALVES if halved else FOLDS), **axes)
    for i, (name, change) in enumerate(JUDGES.items()):
        judge = replace(recipe(data, epochs, change, start), sampler=sampler or "classes")
        folds = (0, 1) if halved else (i, (i + 1) % FOLDS)
        found |= trials(name, judge, folds, **axes)
    return found


def recipes(
    methods: Mapping[str, Change],
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    start: str = WHITENED,
    searched: Rows | None = None,
    sampler: str = "",
) -> Recipes:
    """Every seed and method: graph refinement under the one setting that is best for the judges in
    the mean, other losses under that of their own trials; once, where nothing is trained."""
    axes, settled = {"sampler": sampler} if sampler else {}, {}
    for name, change in methods.items():
        one = replace(recipe(data, epochs, change, start), sampler=sampler or "classes")
        judges = name if "loss" in change else JUDGES.keys()
        settled[name] = settle(one, searched, judges, **axes) if one.epochs else one
    found = {
        Case(name, seed, **axes): replace(one, seed=seed)
        for seed in range(seeds)
        for name, one in settled.items()
        if one.epochs or not seed
    }
    if UNTRAINED not in methods:
        return found
    return found | controls.recipes(data, start, searched, axes=axes)


def options(**given: Plain) -> dict[str, Any]:
    """The change that sets these options of the loss.

    >>> options(builder="knn", k=8)
    {'loss_options': {'builder': 'knn', 'k': 8}}
    """
    return {"loss_options": given}


CONTROLS: dict[str, Change] = {
    UNTRAINED: BARE | {"augment": "none"},
    "cross-entropy": {"loss": "cross-entropy"},
}
"""Rows of every table: the inputs as they are, and the plainest loss."""

JUDGES: dict[str, Change] = {
    "no edges": options(layer="no-edges"),
    "mean": options(layer="mean"),
    "dot-product": options(),
    "GAT": options(layer="gat"),
    "GATv2": options(layer="gatv2"),
}
"""Whose trials choose the one setting under which all graph refinement runs: then only what is
compared differs, and none is luckier in its settings than another."""
FOLDS = 5


def compare(rows: Rows, names: Iterable[str], place: str = "") -> Comparison:
    """These methods by R@1, beside what no gradient has trained."""
    recall = scores(rows, "recall@1")
    found = controls.ranked({name: recall[name] for name in names if name in recall})
    return Comparison("R@1", found, controls.beside(recall), place, f"with {place}")


def standings(rows: Rows, names: Iterable[str]) -> Table:
    """Who leads among these methods, and who cannot be told from whom."""
    one = compare(rows, names)
    variant = next((row.data.variant for row in rows.values()), "")
    return comparison.standings([one], f"R@1, {data_name(rows)}", f"{variant}. {SPREAD}.")


def picture(rows: Rows, names: Iterable[str]) -> Dots:
    """The same as a picture."""
    return comparison.picture([compare(rows, names)], f"R@1, {data_name(rows)}")


def over_untrained(recall: Mapping[str, Scores], reference: str) -> list[str]:
    """Who leads, and by how much that is above no training; nothing where one is missing."""
    trained = controls.ranked(recall)
    if UNTRAINED not in recall or reference not in trained:
        return []
    one = Comparison("R@1", trained, {UNTRAINED: recall[UNTRAINED]})
    top = highest(trained)
    gain = one.over(top, UNTRAINED).estimate.mean
    size = points(abs(gain)).lstrip("+")
    return [
        f"Highest is {top} with {one.level(top)} R@1, {size} {'above' if gain > 0 else 'below'} no "
        "training."
    ]


def batch_graphs(rows: Rows, methods: Iterable[str], title: str) -> BatchGraphs:
    """The graph of a batch under these methods, of each the first seed that kept its pictures."""
    shown: dict[str, Row] = {}
    for case, row in rows.items():
        if row.files.attention:
            shown.setdefault(case.method, row)
    return BatchGraphs(
        title,
        tuple((method, shown[method]) for method in methods if method in shown),
        "Six classes of a training batch after training. The wider an edge, the more attention two "
        "images give each other; green where they are of one class.",
    )


def monitored(rows: Rows, value: str) -> dict[str, dict[int, Scores]]:
    """Method -> epoch -> seed -> what the loss reports of a training batch under this name."""
    found: dict[str, dict[int, Scores]] = {}
    for case, row in rows.items():
        for epoch in row.epochs:
            if epoch.monitor and value in epoch.monitor:
                by_epoch = found.setdefault(case.method, {})
                by_epoch.setdefault(epoch.epoch, {})[case.seed] = epoch.monitor[value]
    return found


def curve(name: str, by_epoch: Mapping[int, Scores], dashed: bool = False) -> Line:
    """The mean over seeds at each epoch, with its interval."""
    x = sorted(by_epoch)
    return Line.of(name, x, [estimate(by_epoch[e].values()) for e in x], dashed)


def costs(rows: Rows, read: Callable[[Row], float | None], unit: float = 1.0) -> dict[str, float]:
    """Method -> the mean of a cost of its runs, in these units."""
    found = gathered(rows, read, lambda case: case.method)
    return {name: sum(values.values()) / len(values) / unit for name, values in found.items()}


def loss_parameters(row: Row) -> float | None:
    """Parameters of the loss."""
    return row.cost.loss_parameters


def train_seconds(row: Row) -> float | None:
    """Seconds of training."""
    return row.cost.train_seconds


def data_name(rows: Rows) -> str:
    """The data set of the rows; nothing where there are none."""
    return next((row.data.spoken for row in rows.values()), "")


def note(rows: Rows, reference: str) -> str:
    """What stands under a table of differences."""
    variant = next((row.data.variant for row in rows.values()), "")
    return (
        f"{variant}. {SPREAD}; one setting for "
        "all graph refinement, chosen on validation classes. Differences and p: paired t-tests of "
        f"R@1 against {reference}, Holm-corrected."
    )
