"""How many samples does it take? Nested shares of the images and of the classes, equal steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from scipy.optimize import curve_fit

from nearkin.answers import Answer, Finding, Line, Lines, Table
from nearkin.measure.statistics import SHARES as BOUNDS
from nearkin.measure.statistics import Estimate, estimate
from nearkin.names import look_up
from nearkin.runs.recipe import Recipe
from nearkin.studies.shared import comparison, controls, over_forms, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import BARE, CLOSED, FEW, METHODS, UNTRAINED, under
from nearkin.studies.shared.reading import Scores, against, mean, scores, where
from nearkin.studies.shared.sentences import begun
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import WHITENED, common, settle, started, trials
from nearkin.studies.shared.words import SPREAD, percent, undecided
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "Sample efficiency"
QUESTION = (
    "How does a metric depend on how much it is learnt from? Each method learns from nested shares "
    "of every class's images, and of the classes, in equally many steps. Which one reaches 95 % of "
    "its full score with least?"
)

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
WAYS = {"images": "keep_images", "classes": "keep_classes"}
UNITS = {"images": "images per class", "classes": "classes"}
PARTS = 6  # of a run; validation chooses how many of them are taken
ENOUGH = 0.95


def settings(data: str, steps: int, methods: str, start: str) -> dict[str, Recipe]:
    """A recipe on all data for each method, its settings not chosen yet."""
    base = replace(common(data), steps=steps, epochs=PARTS, evaluate_every=1)
    return {name: started(one, start) for name, one in under(base, methods).items()}


def search(
    data: str = CUB,
    steps: int = 600,
    methods: str = FEW,
    tune: bool = True,
    start: str = WHITENED,
) -> Recipes:
    """The trials of every method, on all data."""
    found = controls.search(data, start) if tune else {}
    for name, recipe in settings(data, steps, methods, start).items():
        found |= trials(name, recipe) if tune else {}
    return found


def recipes(
    data: str = CUB,
    seeds: int = 5,
    steps: int = 600,
    methods: str = FEW,
    tune: bool = True,
    ways: str = "images,classes",
    start: str = WHITENED,
    searched: Rows | None = None,
) -> Recipes:
    """Every method, share of the images, share of the classes, and seed.

    Args:
        data: the data set.
        seeds: how many, from 0; a seed has one nested series of subsets.
        steps: the most that a run may take, whatever the share.
        methods: names separated by commas, or all.
        tune: whether settings are searched; otherwise the common ones are taken.
        ways: shares of what: images, classes, or both, separated by a comma.
        start: how linear heads on features start: whitened or orthogonal.
        searched: the rows of `search`.
    """
    fields = {way: look_up(way, WAYS, "way") for way in ways.split(",")}
    found = {Case(UNTRAINED): replace(common(data), **BARE)}
    beside = controls.recipes(data, start, searched)
    settled = {case.method: one for case, one in beside.items() if case.method in CLOSED}
    for name, recipe in settings(data, steps, methods, start).items():
        one = settle(recipe, searched, name)
        settled[name] = replace(one, steps=steps * one.epochs // PARTS, evaluate_every=one.epochs)
    for name, one in settled.items():
        for seed, (way, field), share in product(range(seeds), fields.items(), SHARES):
            case = Case(name, seed, of=way, share=share)
            found[case] = replace(one, seed=seed, **{field: share})
    return found


Curve = dict[float, Scores]
"""Share -> seed -> metric."""


def curves_of(rows: Rows) -> dict[str, Curve]:
    """Method -> its R@1 by share, of the rows of one way."""
    found = scores(rows, "recall@1", by=lambda case: (case.method, case["share"]))
    return {
        name: dict(sorted((share, found[m, share]) for m, share in found if m == name))
        for name in (*CLOSED, *METHODS)
        if any(m == name for m, _ in found)
    }


def counts(rows: Rows) -> dict[float, float]:
    """Share -> how many images a class, or classes, that was on the average."""
    seen: dict[float, list[float]] = {}
    for case, row in rows.items():
        many = row.data.train_classes
        if case["of"] == "images":
            many = row.data.train_images / row.data.train_classes
        seen.setdefault(case["share"], []).append(many)
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


def enough(points: Curve) -> Scores:
    """Seed -> the smallest share for 95 % of the full score, of seeds that have all shares."""
    seeds = set.intersection(*(set(s) for s in points.values())) if points else set()
    return {seed: share_for(points, seed) for seed in sorted(seeds)} if len(points) > 1 else {}


def answer(rows: Rows) -> Answer:
    """A figure and a table for each of the two ways."""
    by_way = {way: found for way in WAYS if (found := where(rows, of=way))}
    bare = mean(scores(rows, "recall@1").get(UNTRAINED))
    compared = [compare(found, way, SHARES[0], rows) for way, found in by_way.items()]
    compared += [compare(found, way, 1.0, rows) for way, found in list(by_way.items())[:1]]
    full = where(next(iter(by_way.values()), {}), share=SHARES[-1])
    ways = [line for way, found in by_way.items() for line in findings(found, way)]
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(
            sentence for way, found in by_way.items() for sentence in summary(found, way)
        )[:2]
        + tuple(sentences.lead(one) for one in compared[:1] if one.scores),
        findings=(
            *ways,
            *(line for one in compared for line in sentences.findings(one)),
            *over_forms.findings(full, "with all data"),
        ),
        tables=(
            comparison.standings(compared, "R@1 with the least and with all data", f"{SPREAD}."),
            *(table(found, way, bare) for way, found in by_way.items()),
            *over_forms.tables(full, "with all data"),
        ),
        figures=tuple(figure(found, way, bare) for way, found in by_way.items()),
    )


def compare(found: Rows, way: str, share: float, rows: Rows) -> Comparison:
    """The methods at one share of one way, beside no training; and, where a closed form has all
    data, and so no seed, beside these."""
    recall = {name: points[share] for name, points in curves_of(found).items() if share in points}
    bare = scores(rows, "recall@1").get(UNTRAINED)
    beside = {UNTRAINED: bare} if bare else {}
    if share == 1:
        forms = {n: {0: next(iter(v.values()))} for n, v in controls.beside(recall).items()}
        recall, beside = controls.ranked(recall), beside | forms
    place = "all data" if share == 1 else f"{100 * share:g} % of {way}"
    return Comparison("R@1", recall, beside, place, f"with {place}")


def figure(rows: Rows, way: str, bare: Estimate | None) -> Lines:
    """R@1 against how much was learnt from, each method with its band and its law."""
    number, lines = counts(rows), []
    for name, points in curves_of(rows).items():
        n = [number[share] for share in points]
        means = [estimate(s.values(), within=BOUNDS) for s in points.values()]
        lines.append(Line.of(name, n, means))
        fitted = law(n, [m.mean for m in means])
        if fitted:
            a, b, c = fitted
            x = np.geomspace(min(n), max(n), 30)
            y = a - b * x**-c
            curve = tuple(x.tolist()), tuple(y.tolist())
            lines.append(Line(f"{name}, law", *curve, dashed=True, listed=False))
    if bare and number:
        ends = (min(number.values()), max(number.values()))
        lines.append(Line(UNTRAINED, ends, (bare.mean, bare.mean), dashed=True))
    return Lines(
        title=f"R@1 by the number of {UNITS[way]}",
        x=UNITS[way],
        y="R@1",
        lines=tuple(lines),
        log_x=True,
        percent=True,
        note="Bands: 95 % t-intervals over seeds. Dashed, in colour: a - b n^-c.",
    )


def table(rows: Rows, way: str, bare: Estimate | None) -> Table:
    """Every method by share, the share that is enough, and its law."""
    heads = tuple(f"{100 * share:g}" for share in SHARES)
    number, lines = counts(rows), []
    for name, points in curves_of(rows).items():
        means = [mean(points.get(share)) for share in SHARES]
        fitted = law(
            [number[share] for share in points],
            [estimate(s.values()).mean for s in points.values()],
        )
        lines.append((name, *means, mean(enough(points)), *(fitted or (None, None, None))))
    if bare:
        lines.append((UNTRAINED, *(bare.mean for _ in SHARES), None, None, None, None))
    data = next(iter(rows.values())).data
    return Table(
        title=f"R@1 by share of the {UNITS[way]}",
        columns=("method", *heads, "enough", "a", "b", "c"),
        rows=tuple(lines),
        percent=(*heads, "enough", "a"),
        best=heads,
        lowest=("enough",),
        note=(
            f"{data.spoken}: {data.variant}. Equal steps at every share, "
            "settings chosen once, on all training classes but those that validate. "
            f"{SPREAD}. Enough: what reaches 95 % of the full score. "
            f"Law: R@1 = a - b n^-c, a 100 % at most, n the number of {UNITS[way]}."
        ),
    )


def sufficient(rows: Rows) -> tuple[dict[str, Scores], dict[str, float]]:
    """The shares that are enough for each method, by seed; and their means, the least first."""
    found = {name: shares for name, p in curves_of(rows).items() if (shares := enough(p))}
    means = {name: estimate(shares.values()).mean for name, shares in found.items()}
    return found, dict(sorted(means.items(), key=lambda item: item[1]))


def findings(rows: Rows, way: str) -> list[Finding]:
    """Who gets by with least, and of whom that is sure."""
    found, means = sufficient(rows)
    if not found:
        return []
    least, most = next(iter(means)), next(reversed(means))
    line = f"For 95 % of its R@1 on all data, {least} needs {share_words(means[least], way)}"
    if len(means) < 2:
        return [Finding(f"{line}.")]
    others = against(least, found)
    unsure, sure = undecided(others), sentences.strength(others.values())
    line += f" and {most} {percent(means[most], 0)}; {least} needs least"
    words = f"{line}, but {unsure}." if unsure else f"{line}, surely less than every other."
    return [Finding(words, *sure)]


def summary(rows: Rows, way: str) -> list[str]:
    """How much is enough, in a sentence."""
    found, means = sufficient(rows)
    if not found:
        return []
    least, most = next(iter(means)), next(reversed(means))
    text = f"{begun(least)} reaches 95 % of its R@1 on all data with "
    text += share_words(means[least], way)
    if len(means) < 2:
        return [f"{text}."]
    return [f"{text}; {most}, which needs most, with {percent(means[most], 0)}."]


def share_words(share: float, way: str) -> str:
    """So much of the images or of the classes."""
    return f"{percent(share, 0)} of the {'images of each class' if way == 'images' else way}"


DEMO = {
    "data": "mnist-5k",  # tested on the classes that it is trained on, so none can be left out
    "seeds": 2,
    "steps": 60,
    "methods": "contrastive",
    "tune": False,
    "ways": "images",
}
STUDY = Study(TITLE, QUESTION, answer, recipes, search, demo=DEMO)
