"""The ProxyGML poster's table of rivals: all under one budget, beside what was published."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import numpy as np
from scipy.stats import rankdata

from nearkin.answers import Answer, Bars, Table
from nearkin.measure.statistics import estimate
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
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
from nearkin.studies.shared.methods import UNTRAINED, picked, sizes
from nearkin.studies.shared.reading import (
    Scores,
    against,
    differences,
    gathered,
    mean,
    method,
    scores,
    where,
)
from nearkin.studies.shared.sets import CUB, classes, pictures_of, proxygml
from nearkin.studies.shared.tuning import common, settle, trials, unsearched
from nearkin.studies.shared.words import (
    EPOCH_ON_TEST,
    SPREAD,
    difference_words,
    leader_words,
    or_none,
    p_value,
    percent,
    surely,
)
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


def asked(data: str, epochs: int, dim: int, names: str = "all") -> dict[str, Recipe]:
    """Name -> recipe, its settings not chosen yet; those that the data set allows, of "all"."""
    base = replace(common(data, epochs), dim=dim)
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
        found[OURS] = replace(proxygml(data, epochs, {}), dim=dim)
    return found


def fits(name: str, data: str) -> bool:
    """Whether a method can be run on a data set: stored features have one level, and batches of
    their own want many classes; data sets not known have them.

    >>> fits("HDC at its last level", CUB), fits("HDML on tuples", "mnist-5k"), fits("HDC", CUB)
    (False, False, True)
    """
    if name == HDC_AT_ONE_LEVEL:
        return not data.startswith("features:")
    return name not in OWN_BATCHES or (classes(data) or math.inf) >= WANTED_CLASSES


def search(
    data: str = CUB,
    epochs: int = 0,
    dims: str = DIMS,
    tune: bool = True,
    methods: str = "all",
) -> Recipes:
    """The trials of every method, at the largest dimension."""
    found: Recipes = {}
    for name, recipe in asked(data, epochs, max(sizes(dims)), methods).items():
        found |= trials(name, recipe) if tune and name != UNTRAINED else {}
    return found


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    dims: str = DIMS,
    tune: bool = True,
    methods: str = "all",
    searched: Rows | None = None,
) -> Recipes:
    """Every seed, dimension and method, under the settings that its trials chose.

    Args:
        dims: embedding dimensions, separated by commas.
        methods: names of the table, separated by commas; all that the data set allows.
        the others: those of every study.
    """
    settled = {
        (name, dim): settle(recipe, searched, name)
        for dim in sizes(dims)
        for name, recipe in asked(data, epochs, dim, methods).items()
    }
    return {
        Case(name, seed, dim=dim): replace(recipe, seed=seed)
        for seed in range(seeds)
        for (name, dim), recipe in settled.items()
        if name != UNTRAINED or seed == 0
    }


def answer(rows: Rows) -> Answer:
    """A table for each dimension, the bars of R@1, and whether the poster's order holds."""
    dims = sorted({case["dim"] for case in rows})
    every = (finding for dim in dims for finding in findings(where(rows, dim=dim), dim))
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=(*unsearched(rows), *every),
        tables=tuple(comparison(where(rows, dim=dim), dim) for dim in dims),
        figures=(bars(rows, dims),),
    )


def comparison(rows: Rows, dim: int) -> Table:
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
        [name for name in part if name in found["R@1"]] for part in (METHODS, OWN_BATCHES)
    )
    return Table(
        title=f"{dim}-D embeddings, {data.name}",
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
        + (OWN_NOTE if own else ""),
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


def bars(rows: Rows, dims: list[int]) -> Bars:
    """R@1 of every method and dimension."""
    found = {dim: scores(where(rows, dim=dim), "recall@1") for dim in dims}
    every = (*METHODS, *OWN_BATCHES)
    names = [name for name in every if any(name in f for f in found.values())]
    return Bars(
        title="R@1 by method and dimension",
        y="R@1",
        groups=tuple(names),
        series=tuple(f"{dim}-D" for dim in dims),
        values=tuple(tuple(mean(found[dim].get(name)) for dim in dims) for name in names),
        percent=True,
    )


def findings(rows: Rows, dim: int) -> list[str]:
    """Who leads, whom ProxyGML beats, what methods add to those that they are built on, and whether
    the published order holds."""
    recall = scores(rows, "recall@1")
    if OURS not in recall or len(recall) < 3:
        return []
    learned = of_equal_batches(recall)
    shares = {name: estimate(values.values()).mean for name, values in recall.items()}
    differ, others = against(OURS, learned), len(learned) - 1
    better, worse = (or_none(surely(differ, sign), others) for sign in (1, -1))
    found = [
        f"{dim}-D: {leader_words(learned, 'R@1')} {OURS} has {percent(shares[OURS])}; surely "
        f"better than it: {better}; surely worse: {worse}."
    ]
    if UNTRAINED in shares:
        found[0] += f" The inputs as they are: {percent(shares[UNTRAINED])}."
    added = [
        f"{name} {difference_words(difference)}"
        for name, difference in differences(recall, BASES).items()
    ]
    if added:
        found.append(
            f"{dim}-D: R@1 beside that of the loss that each is built on, under the same batches: "
            f"{', '.join(added)}."
        )
    published = published_of(rows)
    both = [name for name in published if name in learned and name not in IN_PART]
    if OURS in both and len(both) > 3:
        theirs = [list(published[name].values())[-1] for name in both]
        ours = [shares[name] for name in both]
        order = np.corrcoef(rankdata(theirs), rankdata(ours))[0, 1]
        found.append(
            f"{dim}-D: the published order of {len(both)} methods and ours have a rank "
            f"correlation of {order:.2f}; {OURS} is published as "
            f"number {rank(theirs, both.index(OURS))} of them, and is our number "
            f"{rank(ours, both.index(OURS))}."
        )
    return found


def rank(values: list[float], place: int) -> int:
    """1 + how many values are larger.

    >>> rank([3.0, 9.0, 5.0], 2)
    2
    """
    return 1 + sum(value > values[place] for value in values)


DEMO = {"data": "mnist-5k", "seeds": 2, "epochs": 2, "dims": "64", "tune": False}
STUDY = Study(TITLE, QUESTION, answer, recipes, search, demo=DEMO)
