"""How many samples does it take? Nested shares of the images and of the classes, equal steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from scipy.optimize import curve_fit

from nearkin.answers import Answer, Line, Lines, Table
from nearkin.measure.statistics import Estimate, estimate
from nearkin.names import look_up
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared.methods import BARE, FEW, METHODS, UNTRAINED, method, under
from nearkin.studies.shared.reading import Scores, mean, scores
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import common, settle, trials

TITLE = "Sample efficiency"
QUESTION = (
    "How does a metric depend on how much it is learnt from? Each method learns from nested shares "
    "of every class's images, and of the classes, in equally many steps. Which one reaches 95 % of "
    "its full score with least?"
)

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
KEPT = {"images": "keep_images", "classes": "keep_classes"}
WAYS = {"images per class": KEPT["images"], "classes": KEPT["classes"]}
PARTS = 6  # of a run; validation chooses how many of them are taken
ENOUGH = 0.95

DEMO = {
    "data": "mnist-5k",  # tested on the classes that it is trained on, so none can be left out
    "seeds": 2,
    "steps": 60,
    "methods": "contrastive",
    "tune": False,
    "ways": "images",
}
"""The options of a short form that needs no data set."""


def settings(data: str, steps: int, methods: str) -> list[Recipe]:
    """A recipe on all data for each method, its settings not chosen yet."""
    base = replace(common(data), steps=steps, epochs=PARTS, evaluate_every=1)
    return list(under(base, methods).values())


def search(
    data: str = CUB, steps: int = 600, methods: str = FEW, tune: bool = True
) -> list[Recipe]:
    """The trials of every method, on all data."""
    return [t for r in settings(data, steps, methods) for t in trials(r)] if tune else []


def recipes(
    data: str = CUB,
    seeds: int = 5,
    steps: int = 600,
    methods: str = FEW,
    tune: bool = True,
    ways: str = "images,classes",
    searched: list[Row] | None = None,
) -> list[Recipe]:
    """Every method, share of the images, share of the classes, and seed.

    Args:
        data: the data set.
        seeds: how many, from 0; a seed has one nested series of subsets.
        steps: the most that a run may take, whatever the share.
        methods: names separated by commas, or all.
        tune: whether settings are searched; otherwise the common ones are taken.
        ways: shares of what: images, classes, or both, separated by a comma.
        searched: the rows of `search`.
    """
    runs = [replace(common(data), **BARE)]
    for recipe in settings(data, steps, methods):
        settled = settle(recipe, searched or [])
        settled = replace(
            settled, steps=steps * settled.epochs // PARTS, evaluate_every=settled.epochs
        )
        for seed in range(seeds):
            whole = replace(settled, seed=seed)
            runs.append(whole)
            for way, share in product(ways.split(","), SHARES[:-1]):
                runs.append(replace(whole, **{look_up(way, KEPT, "way"): share}))
    return runs


Curve = dict[float, Scores]
"""Share -> seed -> metric."""


def curve(rows: list[Row], name: str, way: str) -> Curve:
    """A method's R@1 by the share of one way; the other way whole."""
    mine, other = (WAYS[way], *(field for w, field in WAYS.items() if w != way))
    kept = [r for r in rows if method(r) == name and getattr(r.recipe, other) == 1]
    found = scores(kept, lambda row: getattr(row.recipe, mine), "recall@1")
    return dict(sorted(found.items()))


def counts(rows: list[Row], way: str) -> dict[float, float]:
    """Share -> how many images a class, or classes, that was on the average."""
    seen: dict[float, list[float]] = {}
    for row in rows:
        data = row.data
        many = data.train_classes
        if way == "images per class":
            many = data.train_images / data.train_classes
        other = next(field for w, field in WAYS.items() if w != way)
        if getattr(row.recipe, other) == 1 and row.recipe.epochs:
            seen.setdefault(getattr(row.recipe, WAYS[way]), []).append(many)
    return {share: float(np.mean(found)) for share, found in seen.items()}


def law(n: Sequence[float], score: Sequence[float]) -> tuple[float, float, float] | None:
    """a, b and c of  score = a - b n^-c,  by least squares; None with fewer than four points.

    a is what endless data would give, c how fast it is approached.
    Source: Hestness et al., Deep learning scaling is predictable, empirically, 2017,
    arXiv:1712.00409, there for the error. Bounds: 0 <= a <= 1, 0 <= b, 0.01 <= c <= 3.
    """
    if len(n) < 4:
        return None
    scale = np.asarray(n, float) / max(n)  # so that b is what is missing at the largest n
    try:
        (a, b, c), _ = curve_fit(
            lambda x, a, b, c: a - b * x**-c,
            scale,
            np.asarray(score, float),
            p0=(min(1.0, max(score)), 0.05, 0.5),
            bounds=((0, 0, 0.01), (1, 1, 3)),
            max_nfev=10_000,
        )
    except RuntimeError:  # no fit found
        return None
    return float(a), float(b * max(n) ** c), float(c)


def share_for(points: Curve, seed: int) -> float:
    """The smallest share with ENOUGH of the score at the largest, between points by log share."""
    shares = [share for share in points if seed in points[share]]
    values = [points[share][seed] for share in shares]
    wanted = ENOUGH * values[-1]
    first = next(i for i, value in enumerate(values) if value >= wanted)
    if first == 0:
        return shares[0]
    step = (wanted - values[first - 1]) / (values[first] - values[first - 1])
    below, above = np.log(shares[first - 1]), np.log(shares[first])
    return float(np.exp(below + step * (above - below)))


def reached(points: Curve) -> Estimate | None:
    """The smallest share for 95 % of the full score, over the seeds that have all shares."""
    seeds = set.intersection(*(set(s) for s in points.values())) if points else set()
    if len(points) < 2 or not seeds:
        return None
    return estimate([share_for(points, seed) for seed in sorted(seeds)])


def answer(rows: list[Row]) -> Answer:
    """A figure and a table for each of the two ways."""
    names = [name for name in METHODS if any(method(row) == name for row in rows)]
    ways = [way for way, field in WAYS.items() if any(getattr(r.recipe, field) < 1 for r in rows)]
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(said for way in ways for said in findings(rows, names, way)),
        tables=tuple(table(rows, names, way) for way in ways),
        figures=tuple(figure(rows, names, way) for way in ways),
    )


def untrained(rows: list[Row]) -> float | None:
    """R@1 of the inputs as they are."""
    found = (r.metrics.last for r in rows if r.recipe.backbone == "identity")
    return next((last["recall@1"] for last in found if last), None)


def figure(rows: list[Row], names: list[str], way: str) -> Lines:
    """R@1 against how much was learnt from, each method with its band and its law."""
    number, lines = counts(rows, way), []
    for name in names:
        points = curve(rows, name, way)
        n = [number[share] for share in points]
        means = [estimate(s.values()) for s in points.values()]
        lines.append(Line.of(name, n, means))
        fitted = law(n, [m.mean for m in means])
        if fitted:
            a, b, c = fitted
            x = np.geomspace(min(n), max(n), 30)
            y = a - b * x**-c
            lines.append(Line(f"{name}, law", tuple(x.tolist()), tuple(y.tolist()), dashed=True))
    bare = untrained(rows)
    if bare is not None and number:
        ends = (min(number.values()), max(number.values()))
        lines.append(Line(UNTRAINED, ends, (bare, bare), dashed=True))
    return Lines(
        title=f"R@1 by the number of {way}",
        x=way,
        y="R@1",
        lines=tuple(lines),
        log_x=True,
        percent=True,
        note="Bands: 95 % t-intervals over seeds. Dashed: a - b n^-c.",
    )


def table(rows: list[Row], names: list[str], way: str) -> Table:
    """Every method by share, the share that is enough, and its law."""
    heads = tuple(f"{100 * share:g}" for share in SHARES)
    number, lines = counts(rows, way), []
    for name in names:
        points = curve(rows, name, way)
        means = [mean(points.get(share)) for share in SHARES]
        fitted = law(
            [number[share] for share in points],
            [estimate(s.values()).mean for s in points.values()],
        )
        lines.append((name, *means, reached(points), *(fitted or (None, None, None))))
    bare = untrained(rows)
    if bare is not None:
        lines.append((UNTRAINED, *(bare for _ in SHARES), None, None, None, None))
    return Table(
        title=f"R@1 by share of the {way}",
        columns=("method", *heads, "enough", "a", "b", "c"),
        rows=tuple(lines),
        percent=(*heads, "enough", "a"),
        best=heads,
        lowest=("enough",),
        note=(
            f"{rows[0]['data']['name']}, {rows[0]['data']['variant']}. Equal steps at every share, "
            "settings chosen once, on all training classes but those that validate. Mean ± half of "
            "the 95 % t-interval over seeds. Enough: what reaches 95 % of the full score. "
            f"Law: R@1 = a - b n^-c, a 100 % at most, n the number of {way}."
        ),
    )


def findings(rows: list[Row], names: list[str], way: str) -> list[str]:
    """Who gets by with least."""
    found = {n: share for n in names if (share := reached(curve(rows, n, way)))}
    if not found:
        return []
    least = min(found, key=lambda name: found[name].mean)
    most = max(found, key=lambda name: found[name].mean)
    return [
        f"95 % of the full R@1 takes {least} {100 * found[least].mean:.0f} % of the {way}, "
        f"and {most} {100 * found[most].mean:.0f} %."
    ]
