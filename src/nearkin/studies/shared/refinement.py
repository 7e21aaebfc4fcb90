"""What the studies of the graph lab share: their recipe, its settings, and how rows are read.

Each question has a file of its own: attention, graph, edges, graph_gain and rank_collapse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from nearkin.answers import BatchGraphs, Line
from nearkin.measure.statistics import Difference, Estimate, estimate
from nearkin.runs.recipe import Plain, Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared.methods import BARE, UNTRAINED
from nearkin.studies.shared.reading import Scores, p_value
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import common, settle, trials

HEADS = {"R@1": "recall@1", "MAP@R": "map@r", "NMI": "nmi"}
DEMO = {"data": "mnist-5k", "seeds": 2, "epochs": 2, "tune": False}
"""The options of a short form that needs no data set."""

Change = Mapping[str, Any]
"""What differs from the common recipe: its fields, and loss_options of graph refinement."""


def recipe(data: str, epochs: int, change: Change) -> Recipe:
    """Graph refinement with this change, its settings not chosen yet.

    epochs: the most that a run may take; 0: 8 on features, 4 on pictures.
    """
    base = common(data, epochs or (8 if data.startswith("features:") else 4))
    return replace(replace(base, loss="graph-refinement"), **change)


def search(
    methods: Mapping[str, Change],
    data: str = CUB,
    epochs: int = 0,
    tune: bool = True,
    sampler: str = "classes",
) -> list[Recipe]:
    """The trials of graph refinement: five judges, of which each has two of the five folds. And
    those of each other loss among the methods, on all folds.

    So every training class validates twice. On CUB two folds alone, 40 classes, cannot tell
    settings apart that differ by 1.7 points on new classes.
    """
    if not tune:
        return []
    alone = [recipe(data, epochs, change) for change in methods.values() if "loss" in change]
    found = [t for one in alone if one.epochs for t in trials(one, range(FOLDS))]
    for i, judge in enumerate(judges(data, epochs, sampler)):
        found += trials(judge, (i, (i + 1) % FOLDS))
    return found


def judges(data: str, epochs: int, sampler: str) -> list[Recipe]:
    """The recipes of JUDGES, with batches of one kind."""
    return [replace(recipe(data, epochs, c), sampler=sampler) for c in JUDGES.values()]


def recipes(
    methods: Mapping[str, Change],
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    searched: list[Row] | None = None,
    sampler: str = "classes",
) -> list[Recipe]:
    """Every seed and method: graph refinement under the one setting that is best for the judges in
    the mean, other losses under that of their own trials; once, where nothing is trained."""
    like = judges(data, epochs, sampler)
    found = []
    for change in methods.values():
        one = replace(recipe(data, epochs, change), sampler=sampler)
        own = one.loss != "graph-refinement"
        found.append(settle(one, searched or [], () if own else like) if one.epochs else one)
    return [
        replace(one, seed=seed) for seed in range(seeds) for one in found if one.epochs or not seed
    ]


def name_of(row: Row, methods: Mapping[str, Change]) -> str | None:
    """The name of a row's change among the methods; None where it is none of them."""
    asked = row.recipe
    for name, change in methods.items():
        wanted = {"loss": "graph-refinement", "loss_options": {}} | dict(change)
        if all(getattr(asked, field) == value for field, value in wanted.items()):
            return name
    return None


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


def batch_graphs(
    rows: Iterable[Row], name: Callable[[Row], str | None], wanted: Iterable[str], title: str
) -> BatchGraphs:
    """The graph of a batch under these methods, of each the first seed that kept its pictures."""
    kept: dict[str | None, Row] = {}
    for row in rows:
        if row.files.attention:
            kept.setdefault(name(row), row)
    return BatchGraphs(
        title,
        tuple((method, kept[method]) for method in wanted if method in kept),
        "Six classes of a training batch after training. The wider an edge, the more attention two "
        "images give each other; green where they are of one class.",
    )


def monitored(
    rows: Iterable[Row], name: Callable[[Row], str | None], key: str
) -> dict[str, dict[int, Scores]]:
    """Method -> epoch -> seed -> what the loss said of a training batch under this key."""
    found: dict[str, dict[int, Scores]] = {}
    for row in rows:
        method = name(row)
        for epoch in row.epochs:
            said = (epoch.monitor or {}).get(key)
            if method is not None and said is not None:
                by_epoch = found.setdefault(method, {})
                by_epoch.setdefault(epoch.epoch, {})[row.recipe.seed] = said
    return found


def curve(name: str, by_epoch: dict[int, Scores], dashed: bool = False) -> Line:
    """The mean over seeds at each epoch, with its interval."""
    x = sorted(by_epoch)
    return Line.of(name, x, [estimate(by_epoch[e].values()) for e in x], dashed)


def costs(
    rows: Iterable[Row], name: Callable[[Row], str | None], key: str, unit: float
) -> dict[str | None, float]:
    """Method -> the mean of a cost of its runs, in these units."""
    found: dict[str | None, list[float]] = {}
    for row in rows:
        if (value := getattr(row.cost, key)) is not None:
            found.setdefault(name(row), []).append(value / unit)
    return {method: sum(values) / len(values) for method, values in found.items()}


def beside(difference: Difference | None) -> tuple[Estimate | None, str]:
    """A difference and its p, as two cells."""
    return (difference.estimate if difference else None, p_value(difference))


def verdict(difference: Difference) -> str:
    """A difference in words: points of R@1, and whether it is sure.

    >>> verdict(Difference(estimate([0.01, 0.012, 0.011]), 0.01))
    '+1.1 points (p = 0.010)'
    """
    p = p_value(difference)
    sure = f" (p {p if p.startswith('<') else '= ' + p})" if p else ""
    return f"{100 * difference.estimate.mean:+.1f} points{sure}"


def data_name(rows: list[Row]) -> str:
    """The data set of the rows; nothing where there are none."""
    return rows[0].data.name if rows else ""


def note(rows: list[Row], reference: str) -> str:
    """What stands under a table of differences."""
    variant = rows[0].data.variant if rows else ""
    return (
        f"{variant}. Mean ± half of the 95 % t-interval over seeds, last epoch; one setting for "
        "all graph refinement, chosen on validation classes. Differences and p: paired t-tests of "
        f"R@1 against {reference}, Holm-corrected."
    )
