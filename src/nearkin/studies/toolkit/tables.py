"""The toolkit's tables and figures: who finds kin, how classes scatter, what is mistaken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch

from nearkin.answers import Dots, Line, Lines, Table
from nearkin.measure import overlap
from nearkin.measure.statistics import SHARES as BOUNDS
from nearkin.measure.statistics import Estimate, estimate
from nearkin.runs.row import Row
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.shared.reading import (
    Scores,
    against,
    average,
    gathered,
    headline,
    highest,
    mean,
    method,
    scores,
)
from nearkin.studies.shared.words import SPREAD, p_value
from nearkin.studies.study import Rows
from nearkin.studies.toolkit.methods import METHODS

T = TypeVar("T")

SHARES = {
    "5-NN": "knn_accuracy",
    "R@1 in train": "in_train.recall@1",
    "R@1": "recall@1",
    "MAP@R": "map@r",
    "NMI": "nmi",
}
SHAPES = {"spread": "spread", "anisotropy": "anisotropy", "separation": "separation"}
DIGITS = {"4/7/9": [4, 7, 9], "2/3": [2, 3]}
GARMENTS = {"pullover/coat/shirt": [2, 4, 6], "sandal/sneaker/boot": [5, 7, 9]}
OVERLAPS = DIGITS | GARMENTS


def look_alike(rows: Rows) -> dict[str, list[int]]:
    """The groups of classes of this data set that are mistaken for each other."""
    fashion = any(row.recipe.data == "fashion-mnist" for row in rows.values())
    return GARMENTS if fashion else DIGITS


def column(rows: Rows, head: str) -> dict[str, Scores]:
    """Method -> seed -> the number under this head."""
    if head not in OVERLAPS:
        return scores(rows, (SHARES | SHAPES)[head])

    def mistaken(row: Row) -> float | None:
        return overlap(torch.tensor(row.confusion), OVERLAPS[head]) if row.confusion else None

    return gathered(rows, mistaken, method)


def cell(head: str, values: Scores | None) -> Estimate | None:
    """The mean under this head: of shares, within 0 and 1."""
    return average(values) if head in SHAPES else mean(values)


def trained(by_method: Mapping[str, T]) -> dict[str, T]:
    """Without the pixels as they are."""
    return {name: value for name, value in by_method.items() if name != UNTRAINED}


def ranking(rows: Rows) -> tuple[str, dict[str, Scores]]:
    """The headline metric, and each trained method's values of it."""
    metric = headline(rows.values())
    return metric.name, trained(scores(rows, metric.key))


def compare(rows: Rows, dim: int) -> Comparison:
    """The methods of one dimension by the headline metric, beside the pixels as they are."""
    metric = headline(rows.values())
    found = scores(rows, metric.key)
    bare = {name: values for name, values in found.items() if name == UNTRAINED}
    return Comparison(metric.name, trained(found), bare, f"{dim}-D", digits=2)


def comparison(rows: Rows, dim: int) -> Table:
    """Every method by how well it finds kin, and whether it differs from the leading one."""
    name, learned = ranking(rows)
    reference = highest(learned) if learned else None
    differ = against(reference, learned) if reference else {}
    note = f"{SPREAD}. No training: the pixels, 784-D."
    if reference:
        note += f" p: paired t-test of {name} against {reference}, Holm-corrected."
    found = {head: values for head in SHARES if (values := column(rows, head))}
    return Table(
        title=f"{dim}-D embeddings: who finds kin",
        columns=("method", *found, "p"),
        rows=tuple(
            (name, *(mean(found[head].get(name)) for head in found), p_value(differ.get(name)))
            for name in METHODS
            if any(name in values for values in found.values())
        ),
        percent=tuple(found),
        best=tuple(found),
        note=note,
    )


def shapes(rows: Rows, dim: int) -> Table:
    """Every method by how its classes scatter, stand apart, and are mistaken for each other."""
    alike = look_alike(rows)
    found = {head: column(rows, head) for head in (*SHAPES, *alike)}
    return Table(
        title=f"{dim}-D embeddings: scattering and separation",
        columns=("method", *found),
        rows=tuple(
            (name, *(cell(head, found[head].get(name)) for head in found))
            for name in METHODS
            if name in found["spread"]
        ),
        percent=tuple(alike),
        best=("separation",),
        lowest=("anisotropy", *alike),
        note=(
            "Spread: variance within classes; anisotropy: 0 for round classes, 1 for lines; "
            f"separation: variance between classes over that within; {' and '.join(alike)}: share "
            "of these whose nearest other item is another of the group."
        ),
    )


def overlaps(rows: Rows, dim: int) -> Dots:
    """How often classes that look alike are mistaken for one another, by method."""
    alike = look_alike(rows)
    found = {head: column(rows, head) for head in alike}
    names = [name for name in METHODS if any(name in f for f in found.values())]
    return Dots(
        title=f"Overlap of classes that look alike, {dim}-D",
        y="share mistaken",
        groups=tuple(names),
        series=tuple(alike),
        values=tuple(tuple(mean(found[head].get(name)) for head in alike) for name in names),
        percent=True,
    )


def curves(rows: Rows, dim: int) -> Lines:
    """Errors of the 5 nearest neighbours on test, by evaluated epoch, mean over seeds."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in trained(METHODS)}
    for case, row in rows.items():
        for epoch in row.epochs if case.method in found else ():
            if epoch.test:
                error = 1 - epoch.test["knn_accuracy"]
                found[case.method].setdefault(epoch.epoch, []).append(error)
    lines = [
        Line.of(name, epochs, [estimate(values, within=BOUNDS) for values in epochs.values()])
        for name, epochs in found.items()
        if epochs
    ]
    title = f"Errors of 5-NN over epochs, {dim}-D"
    return Lines(title, "epoch", "errors of 5-NN", tuple(lines), log_y=True, percent=True)
