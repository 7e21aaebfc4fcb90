"""When a user should stop at the closed form: a designed study over the size of the training set.

Training starts where the closed form ends, so that its gain is what the gradient adds. A full grid
of sizes and dimensions would be dear, and its trends need no full one: every second cell of images
by classes, its corners among them, shows both trends; other dimensions are looked at in the
corners, where a set is smallest and largest in either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from nearkin.answers import Answer, Finding, Line, Lines, Table
from nearkin.measure.statistics import SHARES, Estimate, Sure, against_fixed, estimate, holm
from nearkin.studies.heads.cells import (
    FORMS,
    LOSSES,
    REFERENCE,
    Cell,
    cells,
    common_of,
    compared,
    over_queries,
    untrained,
)
from nearkin.studies.shared.methods import BARE, UNTRAINED
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import common
from nearkin.studies.shared.words import SURE, listed, p_cell, percent, signed
from nearkin.studies.study import Case, Measured, Study, Task

TITLE = "When to stop at the closed form"
QUESTION = (
    "Of how many classes, with how many images each, and at which dimension, is it worth while to "
    "go on from within-class whitening, and to train the head on stored features by a loss? Every "
    "method tries four settings, fitted to one half of the classes at hand and judged by the "
    "other; training starts as the closed form that was chosen so."
)

METRICS = {"R@1": "recall@1", "MAP@R": "map@r"}


def measure(
    data: str = CUB,
    seeds: int = 3,
    images: str = "2,4,8,16,all",
    classes: str = "10,30,all",
    dims: str = "64",
) -> dict[Case, Task]:
    """Every cell of the design: all methods, by several seeds, each of which draws a subset.

    Args:
        data: the data set, of features.
        seeds: how many, from 0.
        images: numbers of images of a class, separated by commas, or all.
        classes: numbers of classes, likewise.
        dims: embedding dimensions; the first has every second cell, others the corners.
    """
    bare = replace(common(data), **BARE)
    found = {Case(UNTRAINED): Task(f"stop-{bare.hash}", partial(untrained, bare), bare)}
    for cell in cells(images, classes, dims):
        recipe = common_of(data, cell)
        task = Task(f"stop-{recipe.hash}-{seeds}", partial(compared, recipe, seeds), recipe)
        n, c, dim = cell
        found[Case("all methods", images=n, classes=c, dim=dim)] = task
    return found


def answer(found: Measured) -> Answer:
    """The gain of each loss over the closed form: its trend, every cell, and a picture."""
    measured = {cell: m.values for case, m in found.items() if (cell := cell_of(case))}
    bare = next((m.values["shares"] for case, m in found.items() if not cell_of(case)), None)
    data = next((m.data for m in found.values() if m.data), None)
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=summary(measured, bare),
        findings=tuple(line for word in METRICS for line in findings(measured, word)),
        tables=tuple(table(measured, word, bare, data) for word in METRICS) if measured else (),
        figures=tuple(picture(measured, *each) for each in product(LOSSES, METRICS)),
    )


Values = Mapping[Cell, Mapping[str, Any]]
"""Cell -> what was measured there."""


def cell_of(case: Case) -> Cell | None:
    """The cell of a case; None of no training."""
    return (case["images"], case["classes"], case["dim"]) if "images" in case else None


def images_of(values: Mapping[str, Any]) -> float:
    """Images of a class, in the mean."""
    return values["images"] / values["classes"]


def by_seed(values: Mapping[str, Any], name: str, metric: str) -> Estimate:
    """A method's share in a cell."""
    return estimate([over_queries(one, metric) for one in values["shares"][name]], within=SHARES)


def gain(values: Mapping[str, Any], name: str, metric: str) -> Sure:
    """A loss less within-class whitening on the same images: over seeds, and over test classes."""
    counts = np.array(values["shares"][name][0]["queries"], int)
    apart = {
        seed: np.repeat(np.subtract(one[metric], other[metric]), counts)
        for seed, (one, other) in enumerate(
            zip(values["shares"][name], values["shares"][REFERENCE], strict=True)
        )
    }
    return against_fixed(apart, np.zeros(counts.sum()), np.repeat(np.arange(len(counts)), counts))


def gains(measured: Values, metric: str) -> dict[tuple[Cell, str], tuple[Estimate, float]]:
    """(Cell, loss) -> its gain over seeds, and p, Holm-corrected over all cells and losses."""
    found = {
        (cell, name): gain(values, name, metric)
        for cell, values in measured.items()
        for name in LOSSES
    }
    p = holm([one.p for one in found.values()])
    return {
        key: (one.seeds.estimate, adjusted)
        for (key, one), adjusted in zip(found.items(), p, strict=True)
    }


def trend(measured: Values, name: str, metric: str) -> tuple[Estimate, ...] | None:
    """a, b and c of  gain = a + b (log2 n - its mean) + c (log2 k - its mean)  at the dimension
    with most cells, n images of each of k classes: by least squares for each seed, and then over
    seeds. None with fewer than four cells."""
    of_dim = [dim for _, _, dim in measured]
    cells = [cell for cell in measured if cell[2] == max(of_dim, key=of_dim.count)]
    if len(cells) < 4:
        return None
    own = [measured[cell] for cell in cells]
    x = np.log2([(images_of(values), values["classes"]) for values in own])
    design = np.column_stack([np.ones(len(cells)), x - x.mean(0)])
    y = [
        [over_queries(one, metric) for one in values["shares"][name]] for values in own
    ] - np.array(
        [[over_queries(one, metric) for one in values["shares"][REFERENCE]] for values in own]
    )
    return tuple(map(estimate, np.linalg.lstsq(design, y, rcond=None)[0]))


def summary(measured: Values, bare: Any) -> tuple[str, ...]:
    """How far the closed form comes, what training adds to it in the mean of the cells, and how
    that depends on their size."""
    fitted = {n: found for n in LOSSES if (found := trend(measured, n, METRICS["R@1"]))}
    if not fitted:
        return ()
    level = {cell: by_seed(each, REFERENCE, "recall@1").mean for cell, each in measured.items()}
    least, most = (pick(level, key=level.__getitem__) for pick in (min, max))
    beside = f"; no training has {percent(over_queries(bare, 'recall@1'))}" if bare else ""
    added, images, classes = (
        listed([f"{points_of(one[i])} points by {name}" for name, one in fitted.items()])
        for i in range(3)
    )
    return (
        f"{REFERENCE[0].upper()}{REFERENCE[1:]} has an R@1 of {percent(level[least])} "
        f"({words(least, measured)}) to {percent(level[most])} ({words(most, measured)}){beside}.",
        f"In the mean over all sizes of the training set, training from there on adds {added}.",
        f"With twice the images of a class, training adds more: {images}; with twice the classes: "
        f"{classes}.",
    )


def points_of(one: Estimate) -> str:
    """Points with half of their interval, if they have one.

    >>> points_of(Estimate(0.012, 0.01, 0.014, 3))
    '+1.2 ± 0.2'
    """
    half = f" ± {50 * (one.high - one.low):.1f}" if one.n > 2 else ""
    return f"{signed(100 * one.mean, '+z.1f')}{half}"


def findings(measured: Values, word: str) -> list[Finding]:
    """In how many cells a loss is surely above or below, and where it gains most and least."""
    found, said = gains(measured, METRICS[word]), []
    for name in LOSSES if measured else ():
        own = {cell: one for (cell, loss), one in found.items() if loss == name}
        sure = [one.mean for one, p in own.values() if p < SURE]
        up, down = sum(x > 0 for x in sure), sum(x < 0 for x in sure)
        order = sorted(own, key=lambda cell, own=own: own[cell][0].mean)
        least, most = (
            f"{points_of(own[c][0])} points with {words(c, measured)}"
            for c in (order[0], order[-1])
        )
        text = (
            f"In {word}, training by {name} is surely above {REFERENCE} for {up or 'none'} of "
            f"{len(own)} sizes of the training set, and surely below it for {down or 'none'}. What "
            f"it adds lies between {least} and {most}."
        )
        said.append(Finding(text, min(p for _, p in own.values()), max(map(abs, sure), default=0)))
    return said


def words(cell: Cell, measured: Values) -> str:
    """A cell as one says it."""
    values = measured[cell]
    return f"{images_of(values):.0f} images of {values['classes']} classes, {cell[2]}-D"


def table(measured: Values, word: str, bare: Any, data: Any) -> Table:
    """Every cell: the closed forms, the losses, and what these gain."""
    metric, heads = METRICS[word], (*FORMS, *LOSSES)
    found = gains(measured, metric)

    def size(cell: Cell) -> tuple:
        return cell[2], measured[cell]["classes"], images_of(measured[cell])

    lines = []
    for cell in sorted(measured, key=size):
        dim, classes, images = size(cell)
        own = (by_seed(measured[cell], name, metric) for name in heads)
        over = (found[cell, name] for name in LOSSES)
        extra = (part for one, p in over for part in (hundredfold(one), p_cell(p)))
        lines.append((dim, f"{images:.0f}", classes, *own, *extra))
    level = f" No training has {percent(over_queries(bare, metric))}." if bare else ""
    return Table(
        title=f"{word} by the size of the training set, {data.spoken}",
        columns=(
            "dim",
            "images",
            "classes",
            *heads,
            *(c for name in LOSSES for c in (f"{name}, points", f"p, {name}")),
        ),
        rows=tuple(lines),
        percent=heads,
        note=(
            f"{data.variant}.{level} Mean over seeds ± half of its 95 % t-interval; a seed draws "
            f"the classes and images. Points: to {REFERENCE} on the same images. p: the larger of "
            "a t-test over seeds and of a bootstrap paired over test classes, Holm-corrected over "
            "all cells."
        ),
    )


def hundredfold(one: Estimate) -> Estimate:
    """A difference of shares in points."""
    points = tuple(100 * x for x in one.points)
    return replace(
        one, mean=100 * one.mean, low=100 * one.low, high=100 * one.high, points=points, seeds=()
    )


def picture(measured: Values, name: str, word: str) -> Lines:
    """What a loss gains against images of a class, a line for each number of classes."""
    lines: list[Line] = []
    for dim, kinds in dict.fromkeys((cell[2], cell[1]) for cell in measured):
        own = [values for cell, values in measured.items() if (cell[2], cell[1]) == (dim, kinds)]
        own.sort(key=images_of)
        over = [gain(values, name, METRICS[word]).seeds.estimate for values in own]
        title = f"{own[0]['classes']} classes, {dim}-D"
        lines.append(Line.of(title, [round(images_of(values)) for values in own], over))
    ends = [x for line in lines for x in line.x]
    if ends:
        lines.append(Line(REFERENCE, (min(ends), max(ends)), (0.0, 0.0), dashed=True))
    return Lines(
        title=f"What {name} adds to the closed form, {word}",
        x="images per class",
        y=f"gain in {word}",
        lines=tuple(lines),
        log_x=True,
        percent=True,
        note="Bands: 95 % t-intervals over seeds, each of which draws classes and images.",
    )


STUDY = Study(TITLE, QUESTION, answer, measure=measure)
