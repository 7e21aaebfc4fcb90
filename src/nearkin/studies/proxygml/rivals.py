"""The ProxyGML poster's table of rivals: all under one budget, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from nearkin.answers import Answer, Finding, Table
from nearkin.measure.statistics import rank_correlation
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Data, Row
from nearkin.studies.proxygml.contenders import (
    BASES,
    HDC_AT_ONE_LEVEL,
    IN_PART,
    METHODS,
    OURS,
    OWN_BATCHES,
    PUBLISHED,
    WANTED_CLASSES,
    published_cell,
)
from nearkin.studies.shared import baselines, comparison, controls, over_forms, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import UNTRAINED, picked, sizes
from nearkin.studies.shared.reading import (
    Scores,
    against,
    average,
    differences,
    gathered,
    mean,
    method,
    scores,
    where,
)
from nearkin.studies.shared.sets import CUB, classes, pictures_of, proxygml
from nearkin.studies.shared.tuning import (
    ORTHOGONAL,
    WHITENED,
    common,
    settle,
    started,
    trials,
    unsearched,
    whitens,
)
from nearkin.studies.shared.words import EPOCH_ON_TEST, SPREAD, correlation_words, listed, p_value
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "ProxyGML and its rivals"
QUESTION = (
    "Is a graph of a few proxies a class better than its rivals, when every method has the same "
    "backbone, dimension, batches and number of trials? Settings and epochs are chosen on "
    "validation classes; the published numbers stand beside ours, with their backbones."
)

DIMS = "64,384,512"

FEW_CENTRES = {"centers_per_class": 2}
"""SoftTriple's option where there are many classes, as in its paper on SOP."""

HEADS = {"NMI": "nmi", "R@1": "recall@1"}
DEEPER = {"R@2": "recall@2", "R@4": "recall@4", "R@8": "recall@8"}
DEEPEST = {"R@10": "recall@10", "R@100": "recall@100", "R@1000": "recall@1000"}
"""Of small and of large data sets, as their papers have it."""


def candidates(
    data: str, epochs: int, dim: int, names: str = "all", start: str = ORTHOGONAL
) -> dict[str, Recipe]:
    """Name -> recipe, its settings not chosen yet; those that the data set allows, of "all"."""
    base = replace(common(data, epochs, start), dim=dim)
    known = {**METHODS, **OWN_BATCHES}
    if names == "all":
        known = {name: change for name, change in known.items() if fits(name, data)}
    found = {}
    for name, change in picked(names, known).items():
        options = {**base.backbone_options, **change.get("backbone_options", {})}
        own = {"backbone_options": {} if name == UNTRAINED else options}
        found[name] = replace(base, **{**change, **own})
    if "SoftTriple" in found and (classes(data) or 0) > 500:
        found["SoftTriple"] = replace(found["SoftTriple"], loss_options=FEW_CENTRES)
    if OURS in found:
        found[OURS] = replace(proxygml(data, epochs, {}, start), dim=dim)
    return {n: one if n == UNTRAINED else started(one, start) for n, one in found.items()}


def fits(name: str, data: str) -> bool:
    """Whether a method can be run on a data set: stored features have one level, and batches of
    their own want many classes, which a data set that is not known may lack.

    >>> fits("HDC at its last level", CUB), fits("HDML on tuples", "mnist-5k"), fits("HDC", CUB)
    (False, False, True)
    """
    if name == HDC_AT_ONE_LEVEL:
        return not data.startswith("features:")
    return name not in OWN_BATCHES or (classes(data) or 0) >= WANTED_CLASSES


def search(
    data: str = CUB,
    epochs: int = 0,
    dims: str = DIMS,
    tune: bool = True,
    methods: str = "all",
    start: str = WHITENED,
) -> Recipes:
    """The trials of every method: at every dimension, those that have one start after each other;
    of heads that start orthogonal, at the largest dimension."""
    found: Recipes = {}
    every = whitens(data, start)
    for dim in (sizes(dims) if every else [max(sizes(dims))]) if tune else ():
        axes: dict[str, Any] = {"dim": dim} if every else {}
        found |= controls.search(data, start, dim, axes)
        for name, recipe in candidates(data, epochs, dim, methods, start).items():
            found |= trials(name, recipe, **axes) if name != UNTRAINED else {}
    return dict(sorted(found.items(), key=of_one_start)) if every else found


def of_one_start(item: tuple[Case, Recipe]) -> tuple:
    """The closed form that a trial starts as, and its fold."""
    case, one = item
    return one.head_start, one.head_power, one.head_shrinkage, case.seed


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    dims: str = DIMS,
    tune: bool = True,
    methods: str = "all",
    start: str = WHITENED,
    searched: Rows | None = None,
) -> Recipes:
    """Every seed, dimension and method, under the settings that its trials chose.

    Args:
        dims: embedding dimensions, separated by commas.
        methods: names of the table, separated by commas; all that the data set allows.
        the others: those of every study.
    """
    every, found = whitens(data, start), {}
    for dim in sizes(dims):
        axes: dict[str, Any] = {"dim": dim} if every else {}
        found |= controls.recipes(data, start, searched, dim, {"dim": dim}, axes)
        for name, recipe in candidates(data, epochs, dim, methods, start).items():
            one, many = settle(recipe, searched, name, **axes), seeds
            if name == UNTRAINED:
                one, many = found.get(Case(name, dim=dim), recipe), 1
            found |= {Case(name, s, dim=dim): replace(one, seed=s) for s in range(many)}
    return found


def answer(rows: Rows) -> Answer:
    """Who leads at each dimension, a table for each, and whether the published order holds."""
    dims = sorted({case["dim"] for case in rows})
    by_dim = {dim: where(rows, dim=dim) for dim in dims}
    compared = [compare(found, dim) for dim, found in by_dim.items()]
    data = next((row.data for row in rows.values()), Data(""))
    title = f"R@1 of every method, {data.spoken}"
    forms = over_forms.sentence(by_dim[dims[-1]], f"at {dims[-1]}-D") if dims else ""
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(filter(None, (forms, *sentences.summary(compared))))[:3],
        findings=(
            *(finding for one in compared for finding in sentences.findings(one)),
            *(f for dim, found in by_dim.items() for f in baselines.findings(found, f"at {dim}-D")),
            *(finding for dim, found in by_dim.items() for finding in added(found, dim)),
            *published_order(by_dim),
        ),
        tables=(
            comparison.standings(compared, title, f"{data.variant}. {SPREAD}."),
            *(table(found, dim) for dim, found in by_dim.items()),
            *(one for dim, found in by_dim.items() for one in baselines.tables(found, f"{dim}-D")),
        ),
        figures=(comparison.picture(compared, "R@1 by method and dimension"),),
        remarks=tuple(unsearched(rows)),
    )


def compare(rows: Rows, dim: int) -> Comparison:
    """The methods of one dimension under the same batches; beside them no training."""
    recall = scores(rows, "recall@1")
    beside = controls.beside(recall)
    return Comparison("R@1", of_equal_batches(recall), beside, f"{dim}-D", reference=OURS)


def table(rows: Rows, dim: int) -> Table:
    """Every method, whether it differs from ProxyGML, and what was published."""
    data = next(iter(rows.values())).data
    large = "Stanford_Online" in data.name or data.name in ("sop", "inshop")
    heads = {**HEADS, **(DEEPEST if large else DEEPER), "MAP@R": "map@r"}
    found = {head: scores(rows, metric) for head, metric in heads.items()}
    oracle = scores(rows, "recall@1", "best_on_test")
    times = gathered(rows, step_milliseconds, method)
    differ = against(OURS, of_equal_batches(found["R@1"]))
    published = published_of(rows)
    shares = (*heads, "best epoch on test")
    equal, own = (
        [name for name in part if name in found["R@1"]]
        for part in (dict.fromkeys([*controls.BESIDE, *METHODS]), OWN_BATCHES)
    )
    return Table(
        title=f"{dim}-D embeddings, {data.spoken}",
        columns=("method", *shares, "p", "ms a step", "published R@1"),
        rows=tuple(
            (
                name,
                *(mean(found[head].get(name)) for head in heads),
                mean(oracle.get(name)),
                p_value(differ.get(name)),
                median(times[name].values()) if name in times else None,
                published_cell(published.get(name, {}), dim),
            )
            for name in (*equal, *own)
        ),
        percent=shares,
        best=tuple(heads),
        above=len(equal) if own else None,
        note=(
            f"Ours: {data.variant}. {SPREAD}; "
            f"beside it {EPOCH_ON_TEST}. p: paired t-test of R@1 "
            f"against {OURS}, Holm-corrected. ms a step: training alone, a batch of "
            f"128, median over seeds. "
            f"{UNTRAINED.capitalize()}: the inputs as they are, in "
            "all their dimensions. Published: fine-tuned backbones, full frames."
        )
        + (OWN_NOTE if own else "")
        + (TREE_NOTE if any(name.startswith("spanning-tree") for name in (*equal, *own)) else ""),
    )


TREE_NOTE = (
    " Spanning-tree positives are what the abstract of DAMLRRM tells; the loss of that paper is "
    "not known to us."
)
OWN_NOTE = (
    " Below the line: batches that are not those of the methods above it, each method behind the "
    "loss that it is built on under the same batches."
)


def step_milliseconds(row: Row) -> float | None:
    """The time of one training step, in the mean over a run."""
    steps = sum(epoch.steps for epoch in row.epochs)
    return 1000 * row.cost.train_seconds / steps if steps and row.cost.train_seconds else None


def of_equal_batches(recall: dict[str, Scores]) -> dict[str, Scores]:
    """Without the inputs as they are, and without batches that are not those of all others."""
    return {name: recall[name] for name in METHODS if name in recall and name != UNTRAINED}


def published_of(rows: Rows) -> dict[str, dict[str, float]]:
    """The published numbers of the pictures of these rows: of CUB, Cars196 or SOP."""
    data = next(iter(rows.values())).recipe.data
    return PUBLISHED.get(pictures_of(data), {})


def added(rows: Rows, dim: int) -> list[Finding]:
    """What methods add to the loss that each is built on, under the same batches."""
    differ = differences(scores(rows, "recall@1"), BASES)
    given = f"at {dim}-D, against the loss that each method is built on"
    return sentences.changes_found(differ, given)


def published_order(by_dim: Mapping[int, Rows]) -> list[Finding]:
    """How far the published order of the methods is ours, at each dimension."""
    parts, many = [], 0
    for dim, rows in by_dim.items():
        recall = of_equal_batches(scores(rows, "recall@1"))
        published = {n: of for n, of in published_of(rows).items() if n in recall.keys() - IN_PART}
        theirs = {name: list(values.values())[-1] for name, values in published.items()}
        ours = {name: e.mean for name in theirs if (e := average(recall[name]))}
        if found := rank_correlation(theirs, ours):
            many = found.n
            parts.append(f"{correlation_words(found)} at {dim}-D")
    if not parts:
        return []
    text = f"Over {many} methods, the published R@1 and ours have a rank correlation of "
    return [Finding(f"{text}{listed(parts, len(parts))}.")]


DEMO = {"data": "mnist-5k", "seeds": 2, "epochs": 2, "dims": "64", "tune": False}
STUDY = Study(TITLE, QUESTION, answer, recipes, search, demo=DEMO)
