"""The seed's table of rivals: every method under one budget, beside what was published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from nearkin.answers import Answer, Bars, Table
from nearkin.measure.statistics import estimate
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared.methods import BARE, UNTRAINED, sizes
from nearkin.studies.shared.reading import Scores, against, mean, p_value, scores
from nearkin.studies.shared.sets import CUB, classes, proxygml
from nearkin.studies.shared.tuning import common, settle, trials, unsearched

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
"""R@1 in per cent: seed 1's poster; proxy-anchor and contrastive: METHODS.md G's sources."""

DIMS = "64,384,512"

FEW_CENTRES = {"centers_per_class": 2}
"""SoftTriple's option where there are many classes, as in its paper on SOP."""

HEADS = {"NMI": "nmi", "R@1": "recall@1"}
DEEPER = {"R@2": "recall@2", "R@4": "recall@4", "R@8": "recall@8"}
DEEPEST = {"R@10": "recall@10", "R@100": "recall@100", "R@1000": "recall@1000"}
"""Of small and of large data sets, as their papers have it."""

DEMO = {"data": "mnist-5k", "seeds": 2, "epochs": 2, "dims": "64", "tune": False}
"""The options of a short form that needs no data set."""


def methods(data: str, epochs: int, dim: int) -> dict[str, Recipe]:
    """Name -> recipe, its settings not chosen yet."""
    base = replace(common(data, epochs), dim=dim)
    found = {name: replace(base, **change) for name, change in METHODS.items()}
    if (classes(data) or 0) > 500:
        found["SoftTriple"] = replace(found["SoftTriple"], loss_options=FEW_CENTRES)
    return {**found, OURS: replace(proxygml(data, epochs, {}), dim=dim)}


def search(data: str = CUB, epochs: int = 0, dims: str = DIMS, tune: bool = True) -> list[Recipe]:
    """The trials of every method, at the largest dimension."""
    found = methods(data, epochs, max(sizes(dims))) if tune else {}
    return [trial for name, r in found.items() if name != UNTRAINED for trial in trials(r)]


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    dims: str = DIMS,
    tune: bool = True,
    searched: list[Row] | None = None,
) -> list[Recipe]:
    """Every seed, dimension and method, under the settings that its trials chose.

    Args:
        dims: embedding dimensions, separated by commas.
        the others: those of every study.
    """
    searched = searched or []
    settled = [
        (name, settle(recipe, searched))
        for dim in sizes(dims)
        for name, recipe in methods(data, epochs, dim).items()
    ]
    return [
        replace(recipe, seed=seed)
        for seed in range(seeds)
        for name, recipe in settled
        if name != UNTRAINED or seed == 0
    ]


def method(row: Row) -> str:
    """The method's name in the table."""
    if row.recipe.backbone == "identity":
        return UNTRAINED
    trained = (name for name in METHODS if name != UNTRAINED)
    return next(name for name in trained if METHODS[name]["loss"] == row.recipe.loss)


def answer(rows: list[Row]) -> Answer:
    """A table for each dimension, the bars of R@1, and whether the seed's order holds."""
    dims = sorted({row.recipe.dim for row in rows})
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=(*unsearched(rows), *(said for dim in dims for said in findings(rows, dim))),
        tables=tuple(comparison(rows, dim) for dim in dims),
        figures=(bars(rows, dims),),
    )


def of_dim(rows: list[Row], dim: int, metric: str, which: str = "last") -> dict[str, Scores]:
    """Method -> seed -> metric, of one dimension."""
    return scores((r for r in rows if r.recipe.dim == dim), method, metric, which)


def comparison(rows: list[Row], dim: int) -> Table:
    """Every method, whether it differs from ProxyGML, and what was published."""
    data = rows[0].data
    large = "Stanford_Online" in data.name or data.name in ("sop", "inshop")
    heads = {**HEADS, **(DEEPEST if large else DEEPER), "MAP@R": "map@r"}
    found = {head: of_dim(rows, dim, metric) for head, metric in heads.items()}
    oracle = of_dim(rows, dim, "recall@1", "best_on_test")
    differ = against(OURS, found["R@1"])
    published = PUBLISHED.get(family(rows), {})
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
                beside(published.get(name, {}), dim),
            )
            for name in METHODS
            if name in found["R@1"]
        ),
        percent=shares,
        best=tuple(heads),
        note=(
            f"Ours: {data.variant}. Mean ± half of the 95 % t-interval over seeds, last epoch; "
            "beside it what choosing the epoch on test would have said. p: paired t-test of R@1 "
            f"against {OURS}, Holm-corrected. {UNTRAINED.capitalize()}: the inputs as they are, in "
            "all their dimensions. Published: fine-tuned backbones, full frames."
        ),
    )


def family(rows: list[Row]) -> str:
    """Whose published numbers may stand beside these rows: "cub", "cars" or ""."""
    name = rows[0].data.name.lower()
    return next((known for known in PUBLISHED if known in name), "")


def beside(published: dict[str, float], dim: int) -> str:
    """The published number of this dimension, else the last, with its backbone.

    >>> beside({"BN-Inception, 64-D": 59.4, "BN-Inception, 512-D": 66.6}, 64)
    '59.4 (BN-Inception, 64-D)'
    """
    if not published:
        return ""
    where = next((key for key in published if key.endswith(f" {dim}-D")), list(published)[-1])
    return f"{published[where]} ({where})"


def bars(rows: list[Row], dims: list[int]) -> Bars:
    """R@1 of every method and dimension."""
    found = {dim: of_dim(rows, dim, "recall@1") for dim in dims}
    names = [name for name in METHODS if any(name in f for f in found.values())]
    return Bars(
        title="R@1 by method and dimension",
        y="R@1",
        groups=tuple(names),
        series=tuple(f"{dim}-D" for dim in dims),
        values=tuple(tuple(mean(found[dim].get(name)) for dim in dims) for name in names),
        percent=True,
    )


def findings(rows: list[Row], dim: int) -> list[str]:
    """Who is best, whom ProxyGML beats, and whether the published order holds."""
    found = of_dim(rows, dim, "recall@1")
    if OURS not in found or len(found) < 3:
        return []
    points = {name: 100 * estimate(s.values()).mean for name, s in found.items()}
    differ = {name: d for name, d in against(OURS, found).items() if d.p < 0.05}
    better = [name for name, d in differ.items() if d.estimate.mean > 0]
    worse = [name for name, d in differ.items() if d.estimate.mean < 0]
    leader = max(points, key=points.__getitem__)
    said = [
        f"{dim}-D: {leader} is best, R@1 {points[leader]:.1f} %; {OURS} has {points[OURS]:.1f} %. "
        f"Surely better than {OURS}: {', '.join(better) or 'none'}; surely worse: "
        f"{', '.join(worse) or 'none'}."
    ]
    both = [name for name in PUBLISHED.get(family(rows), {}) if name in points]
    if len(both) > 3:
        theirs = [list(PUBLISHED[family(rows)][name].values())[-1] for name in both]
        ours = [points[name] for name in both]
        order = np.corrcoef(rankdata(theirs), rankdata(ours))[0, 1]
        said.append(
            f"{dim}-D: the published order of {len(both)} methods and ours have a rank "
            f"correlation of {order:.2f}; {OURS} is published as "
            f"number {rank(theirs, both.index(OURS))} of them, and is our number "
            f"{rank(ours, both.index(OURS))}."
        )
    return said


def rank(values: list[float], place: int) -> int:
    """1 + how many values are larger.

    >>> rank([3.0, 9.0, 5.0], 2)
    2
    """
    return 1 + sum(value > values[place] for value in values)
