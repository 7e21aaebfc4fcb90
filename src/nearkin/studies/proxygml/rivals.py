"""The ProxyGML poster's table of rivals: all under one budget, beside what was published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from nearkin.answers import Answer, Bars, Table
from nearkin.measure.statistics import estimate
from nearkin.runs.recipe import Recipe
from nearkin.studies.shared.methods import BARE, UNTRAINED, sizes
from nearkin.studies.shared.reading import Scores, against, mean, scores, where
from nearkin.studies.shared.sets import CUB, classes, pictures_of, proxygml
from nearkin.studies.shared.tuning import common, settle, trials, unsearched
from nearkin.studies.shared.words import (
    EPOCH_ON_TEST,
    SPREAD,
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

METHODS: dict[str, dict] = {
    UNTRAINED: BARE,
    "cross-entropy": {"loss": "cross-entropy"},
    "normalised cross-entropy": {"loss": "normalised-cross-entropy"},
    "contrastive": {"loss": "pml-contrastive"},
    "semi-hard triplet": {"loss": "semi-hard-triplet"},
    "lifted structure": {"loss": "lifted-structure"},
    "n-pair": {"loss": "pml-n-pair"},
    "margin": {"loss": "margin"},
    "multi-similarity": {"loss": "multi-similarity"},
    "SupCon": {"loss": "supcon"},
    "ArcFace": {"loss": "arcface"},
    "proxy-NCA": {"loss": "proxy-nca"},
    "SoftTriple": {"loss": "soft-triple"},
    "proxy-anchor": {"loss": "proxy-anchor"},
    "ProxyGML": {"loss": "proxy-gml"},
}
"""Name in the table -> what differs from the common recipe; losses/rivals.py has the settings."""

OURS = "ProxyGML"
PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "cub": {
        "semi-hard triplet": {"BN-Inception, 64-D": 42.6},
        "lifted structure": {"GoogLeNet, 64-D": 43.6},
        "contrastive": {"GoogLeNet": 26.4},
        "proxy-NCA": {"BN-Inception, 64-D": 49.2},
        "SoftTriple": {"BN-Inception, 512-D": 65.4},
        "multi-similarity": {"BN-Inception, 512-D": 65.7},
        "proxy-anchor": {"BN-Inception, 512-D": 68.4},
        "ProxyGML": {
            "BN-Inception, 64-D": 59.4,
            "BN-Inception, 384-D": 65.2,
            "BN-Inception, 512-D": 66.6,
        },
    },
    "cars": {
        "semi-hard triplet": {"BN-Inception, 64-D": 51.5},
        "lifted structure": {"GoogLeNet, 64-D": 53.0},
        "contrastive": {"GoogLeNet": 21.7},
        "proxy-NCA": {"BN-Inception, 64-D": 73.2},
        "SoftTriple": {"BN-Inception, 512-D": 84.5},
        "multi-similarity": {"BN-Inception, 512-D": 84.1},
        "proxy-anchor": {"BN-Inception, 512-D": 86.1},
        "ProxyGML": {
            "BN-Inception, 64-D": 78.9,
            "BN-Inception, 384-D": 84.5,
            "BN-Inception, 512-D": 85.5,
        },
    },
}
"""R@1 in per cent: the ProxyGML poster; proxy-anchor and contrastive: METHODS.md G's sources."""

DIMS = "64,384,512"

FEW_CENTRES = {"centers_per_class": 2}
"""SoftTriple's option where there are many classes, as in its paper on SOP."""

HEADS = {"NMI": "nmi", "R@1": "recall@1"}
DEEPER = {"R@2": "recall@2", "R@4": "recall@4", "R@8": "recall@8"}
DEEPEST = {"R@10": "recall@10", "R@100": "recall@100", "R@1000": "recall@1000"}
"""Of small and of large data sets, as their papers have it."""


def methods(data: str, epochs: int, dim: int) -> dict[str, Recipe]:
    """Name -> recipe, its settings not chosen yet."""
    base = replace(common(data, epochs), dim=dim)
    found = {name: replace(base, **change) for name, change in METHODS.items()}
    if (classes(data) or 0) > 500:
        found["SoftTriple"] = replace(found["SoftTriple"], loss_options=FEW_CENTRES)
    return {**found, OURS: replace(proxygml(data, epochs, {}), dim=dim)}


def search(data: str = CUB, epochs: int = 0, dims: str = DIMS, tune: bool = True) -> Recipes:
    """The trials of every method, at the largest dimension."""
    found: Recipes = {}
    for name, recipe in methods(data, epochs, max(sizes(dims))).items():
        found |= trials(name, recipe) if tune and name != UNTRAINED else {}
    return found


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    dims: str = DIMS,
    tune: bool = True,
    searched: Rows | None = None,
) -> Recipes:
    """Every seed, dimension and method, under the settings that its trials chose.

    Args:
        dims: embedding dimensions, separated by commas.
        the others: those of every study.
    """
    settled = {
        (name, dim): settle(recipe, searched, name)
        for dim in sizes(dims)
        for name, recipe in methods(data, epochs, dim).items()
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
    differ = against(OURS, trained(found["R@1"]))
    published = published_of(rows)
    shares = (*heads, "best epoch on test")
    return Table(
        title=f"{dim}-D embeddings, {data.name}",
        columns=("method", *shares, "p", "published R@1"),
        rows=tuple(
            (
                name,
                *(mean(found[head].get(name)) for head in heads),
                mean(oracle.get(name)),
                p_value(differ.get(name)),
                published_cell(published.get(name, {}), dim),
            )
            for name in METHODS
            if name in found["R@1"]
        ),
        percent=shares,
        best=tuple(heads),
        note=(
            f"Ours: {data.variant}. {SPREAD}; "
            f"beside it {EPOCH_ON_TEST}. p: paired t-test of R@1 "
            f"against {OURS}, Holm-corrected. {UNTRAINED.capitalize()}: the inputs as they are, in "
            "all their dimensions. Published: fine-tuned backbones, full frames."
        ),
    )


def trained(recall: dict[str, Scores]) -> dict[str, Scores]:
    """Without the inputs as they are."""
    return {name: values for name, values in recall.items() if name != UNTRAINED}


def published_of(rows: Rows) -> dict[str, dict[str, float]]:
    """The published numbers that may stand beside these rows: of CUB's and of Cars's pictures."""
    data = next(iter(rows.values())).recipe.data
    return PUBLISHED.get(pictures_of(data), {})


def published_cell(published: dict[str, float], dim: int) -> str:
    """The published number of this dimension, else the last, with its backbone.

    >>> published_cell({"BN-Inception, 64-D": 59.4, "BN-Inception, 512-D": 66.6}, 64)
    '59.4 (BN-Inception, 64-D)'
    """
    if not published:
        return ""
    chosen = next((key for key in published if key.endswith(f" {dim}-D")), list(published)[-1])
    return f"{published[chosen]} ({chosen})"


def bars(rows: Rows, dims: list[int]) -> Bars:
    """R@1 of every method and dimension."""
    found = {dim: scores(where(rows, dim=dim), "recall@1") for dim in dims}
    names = [name for name in METHODS if any(name in f for f in found.values())]
    return Bars(
        title="R@1 by method and dimension",
        y="R@1",
        groups=tuple(names),
        series=tuple(f"{dim}-D" for dim in dims),
        values=tuple(tuple(mean(found[dim].get(name)) for dim in dims) for name in names),
        percent=True,
    )


def findings(rows: Rows, dim: int) -> list[str]:
    """Who leads, whom ProxyGML beats, and whether the published order holds."""
    recall = scores(rows, "recall@1")
    if OURS not in recall or len(recall) < 3:
        return []
    learned = trained(recall)
    shares = {name: estimate(values.values()).mean for name, values in recall.items()}
    differ, others = against(OURS, learned), len(learned) - 1
    better, worse = (or_none(surely(differ, sign), others) for sign in (1, -1))
    found = [
        f"{dim}-D: {leader_words(learned, 'R@1')} {OURS} has {percent(shares[OURS])}; surely "
        f"better than it: {better}; surely worse: {worse}."
    ]
    if UNTRAINED in shares:
        found[0] += f" The inputs as they are: {percent(shares[UNTRAINED])}."
    published = published_of(rows)
    both = [name for name in published if name in shares]
    if len(both) > 3:
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
