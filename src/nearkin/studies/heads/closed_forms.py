"""How far a head on stored features comes without a gradient: every closed form, searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nearkin.answers import Answer, Dots, Finding, Table
from nearkin.measure.statistics import Difference, holm
from nearkin.names import look_up
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared.methods import BARE, CLOSED, UNTRAINED, sizes
from nearkin.studies.shared.over_classes import difference_over_classes, over_classes
from nearkin.studies.shared.sentences import strength, surely_words
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import HALVES, common, settle, trials
from nearkin.studies.shared.words import listed, p_value, percent, surely
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "Closed forms"
QUESTION = (
    "How good is a linear head on stored features that no gradient has trained: whitened, by "
    "linear discriminants, by regression, ...? Power and shrinkage are chosen of 24 settings for "
    "every form and dimension: fitted to one half of the training classes, and tried on the other."
)

REFERENCE = "within-class whitened"
POWERED = "power alone"
ALL = 0
"""The dimension of what has no head: as many as there are features."""
FORM = CLOSED[REFERENCE]
METHODS: dict[str, dict[str, Any]] = {
    **CLOSED,
    "PCA": {**FORM, "head_start": "pca"},
    "LDA": {**FORM, "head_start": "lda"},
    "LFDA": {**FORM, "head_start": "lfda"},
    "regression": {**FORM, "head_start": "regression"},
    "KISSME": {**FORM, "head_start": "kissme"},
    "half KISSME": {**FORM, "head_start": "kissme", "head_options": {"contrast": 0.5}},
    "PLDA": {**FORM, "head_start": "plda"},
}
"""Name in the tables -> what differs from the common recipe."""

DIMS = "64,128,512"
HEADS = {"R@1": "recall@1", "MAP@R": "map@r"}


def forms(data: str, dims: str, names: str) -> dict[tuple[str, int], Recipe]:
    """(name, dimension) -> recipe, its power and shrinkage not chosen yet."""
    wanted = list(METHODS) if names == "all" else names.split(",")
    found = {
        (name, dim): replace(common(data), **look_up(name, METHODS, "method"), dim=dim)
        for name in wanted
        for dim in sizes(dims)
    }
    return {(POWERED, ALL): replace(common(data), **BARE), **found}


def search(data: str = CUB, dims: str = DIMS, methods: str = "all") -> Recipes:
    """The trials of every form at every dimension, those that have one map after each other."""
    found: Recipes = {}
    for (name, dim), recipe in forms(data, dims, methods).items():
        found |= trials(name, recipe, every=HALVES, dim=dim)
    return dict(sorted(found.items(), key=lambda item: of_one_map(item[0])))


def of_one_map(case: Case) -> tuple:
    """By form, fold, power and shrinkage, and by dimension last."""
    return case.method, case.seed, case["power"], case["shrinkage"], case["dim"]


def recipes(
    data: str = CUB, dims: str = DIMS, methods: str = "all", searched: Rows | None = None
) -> Recipes:
    """Every form and dimension, under the settings that its trials chose, fitted to all training
    classes.

    Args:
        data: the data set, of features.
        dims: embedding dimensions, separated by commas.
        methods: names separated by commas, or all.
        searched: the rows of `search`.
    """
    found = {
        Case(name, dim=dim): settle(recipe, searched, name, by="map@r", dim=dim)
        for (name, dim), recipe in forms(data, dims, methods).items()
    }
    return {Case(UNTRAINED, dim=ALL): replace(common(data), **BARE), **found}


def answer(rows: Rows) -> Answer:
    """A table for each dimension, and which form is best there."""
    dims = sorted({case["dim"] for case in rows} - {ALL})
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=summary(rows, dims),
        findings=tuple(finding for dim in dims for finding in findings(rows, dim)),
        tables=(*(table(rows, dim) for dim in dims), *without_head(rows)),
        figures=(bars(rows, dims),),
    )


def summary(rows: Rows, dims: list[int]) -> tuple[str, ...]:
    """Which form is first in R@1 at each dimension, and what the features are worth without one."""
    parts = []
    for dim in dims:
        share = {n: r.metrics.last["recall@1"] for n, r in at(rows, dim).items() if r.metrics.last}
        if share:
            first = max(share, key=share.__getitem__)
            parts.append(f"{percent(share[first])} at {dim}-D ({first})")
    bare = at(rows, ALL).get(UNTRAINED)
    if not parts or bare is None or not bare.metrics.last:
        return ()
    return (
        f"Without a gradient, the best closed form has an R@1 of {listed(parts, most=len(parts))}; "
        f"the features as they are, in all their dimensions, have "
        f"{percent(bare.metrics.last['recall@1'])}.",
    )


def at(rows: Rows, dim: int) -> dict[str, Row]:
    """Method -> row of this dimension."""
    return {case.method: row for case, row in rows.items() if case["dim"] == dim}


def table(rows: Rows, dim: int) -> Table:
    """Every form of this dimension, and the features as they are."""
    found, bare = at(rows, dim), at(rows, ALL).get(UNTRAINED)
    differ = differences(found)
    data = next(iter(rows.values())).data

    def cells(name: str, row: Row, label: str) -> tuple:
        shares = (over_classes(row, metric) for metric in HEADS.values())
        shrinkage = row.recipe.head_shrinkage if name in METHODS and name != "PCA" else None
        return label, *shares, row.recipe.head_power, shrinkage, p_value(differ.get(name))

    return Table(
        title=f"{dim}-D embeddings, {data.spoken}",
        columns=("form", *HEADS, "power", "shrinkage", "p"),
        rows=(
            *(cells(name, found[name], name) for name in METHODS if name in found),
            *([cells(UNTRAINED, bare, f"{UNTRAINED}, all dimensions")] if bare else []),
        ),
        percent=tuple(HEADS),
        best=tuple(HEADS),
        note=(
            f"{data.variant}. Mean ± half of the 95 % interval over {data.test_classes} test "
            "classes; a closed form has no seed. Power and shrinkage: those with the highest MAP@R "
            "on that half of the training classes which the form was not fitted to, in the mean "
            f"over both halves. p: R@1 against {REFERENCE}, by a bootstrap paired over test "
            "classes, Holm-corrected."
        ),
    )


def without_head(rows: Rows) -> tuple[Table, ...]:
    """The features as they are, and given a power: in all their dimensions, no head of any size."""
    whole = at(rows, ALL)
    if POWERED not in whole:
        return ()
    data = next(iter(whole.values())).data
    return (
        Table(
            title=f"All dimensions, without a head, {data.spoken}",
            columns=("features", *HEADS, "power"),
            rows=tuple(
                (name, *(over_classes(row, m) for m in HEADS.values()), row.recipe.head_power)
                for name, row in whole.items()
            ),
            percent=tuple(HEADS),
            note=f"{data.variant}. Intervals as above; of 24 powers that with the highest MAP@R.",
        ),
    )


def differences(found: Mapping[str, Row]) -> dict[str, Difference]:
    """Every form's R@1 minus that of the reference, over test classes, Holm-corrected."""
    reference = found.get(REFERENCE)
    differ = {
        name: difference
        for name, row in found.items()
        if reference and name != REFERENCE
        if (difference := difference_over_classes(row, reference, "recall@1"))
    }
    adjusted = holm([d.p for d in differ.values()])
    return {name: replace(d, p=p) for (name, d), p in zip(differ.items(), adjusted, strict=True)}


def findings(rows: Rows, dim: int) -> list[Finding]:
    """Which form is first in R@1 and in MAP@R, which are surely better or worse than the reference,
    and what the features are worth as they are."""
    found, whole = at(rows, dim), at(rows, ALL)
    shares = {
        head: {name: row.metrics.last[key] for name, row in found.items() if row.metrics.last}
        for head, key in HEADS.items()
    }
    if len(found) < 2 or not all(shares.values()):
        return []
    first = {head: max(values, key=values.__getitem__) for head, values in shares.items()}
    led = (f"{first[head]} in {head} with {percent(shares[head][first[head]])}" for head in HEADS)
    differ = differences(found)
    said = f"At {dim}-D, first of the forms are {listed(list(led))}."
    bare = whole.get(UNTRAINED)
    if bare and bare.metrics.last:
        said += f" The features as they are have {percent(bare.metrics.last['recall@1'])} R@1."
    for sign, word in ((1, "better"), (-1, "worse")) if differ else ():
        those = {name: differ[name] for name in surely(differ, sign)}
        than = f"{word} than {REFERENCE} in R@1"
        said += f" {surely_words(those, than)}." if those else f" None is surely {than}."
    return [Finding(said, *strength(differ.values()))]


def bars(rows: Rows, dims: list[int]) -> Dots:
    """R@1 of every form and dimension."""
    found = {dim: at(rows, dim) for dim in dims}
    names = [name for name in METHODS if any(name in f for f in found.values())]

    def share(name: str, dim: int) -> Any:
        return over_classes(found[dim][name], "recall@1") if name in found[dim] else None

    return by_dimension("R@1 by form and dimension", names, dims, share)


def by_dimension(
    title: str, names: Sequence[str], dims: Sequence[int], share: Callable[[str, int], Any]
) -> Dots:
    """R@1 of each head at each dimension; share(name, dimension) is None where there is none."""
    return Dots(
        title=title,
        y="R@1",
        groups=tuple(names),
        series=tuple(f"{dim}-D" for dim in dims),
        values=tuple(tuple(share(name, dim) for dim in dims) for name in names),
        percent=True,
    )


STUDY = Study(TITLE, QUESTION, answer, recipes, search)
