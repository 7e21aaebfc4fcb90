"""The n-tuple report's comparison in numbers: Siamese, triplet and n-tuple networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

from nearkin.answers import Answer, Figure, Finding, Gallery, Maps
from nearkin.runs.row import Row
from nearkin.studies.shared import comparison, sentences
from nearkin.studies.shared.methods import UNTRAINED, picked, sizes
from nearkin.studies.shared.reading import highest, where
from nearkin.studies.shared.words import SPREAD
from nearkin.studies.study import Case, Recipes, Rows, Study
from nearkin.studies.toolkit import claims, collapse, tables
from nearkin.studies.toolkit.methods import BASE, DATA, LARGE, METHODS, SMALL

TITLE = "The toolkit: Siamese, triplet and n-tuple networks"
QUESTION = (
    "Which of the losses of the Siamese / triplet / n-tuple family embeds best, and is it true "
    "that the ratio over all classes (8) scatters better but separates worse than the triplet on "
    "a tuple? Does the n-pair loss (7) collapse, and does an L2 term mend it? The n-tuple report "
    "showed pictures only; here are numbers: spread is the variance within classes, separation "
    "that between them over it, and anisotropy 0 for round classes and 1 for lines. (1) to (8) are "
    "the report's equations; a loss called printed is one as it stands there, others as meant."
)


def recipes(
    data: str = "mnist-5k",
    seeds: int = 5,
    epochs: int = 0,
    dims: str = "2,64",
    methods: str = "all",
    sweep: bool = True,
    small: bool = False,
) -> Recipes:
    """Every seed, dimension and method under one recipe; then n-pair (7) over its L2 weight.

    The pixels as they are have no seeds: they come once.
    Seeds come first, so that a study that is not finished yet has every method.

    Args:
        data: the data set.
        seeds: how many, from 0.
        epochs: 0 takes 12 on mnist-5k, 4 on the full sets.
        dims: embedding dimensions, separated by commas.
        methods: names separated by commas, or all.
        sweep: whether to add the sweep over the L2 weight, in 2-D on tuples of mnist-5k.
        small: a quarter of the report's network, in float32.
    """
    if data not in DATA:
        raise ValueError(
            f"the toolkit is compared on ten classes that training and test share: "
            f"{', '.join(DATA)}; for {data} there is the study rivals"
        )
    base = replace(BASE, data=data, **({} if data == BASE.data else LARGE))
    base = replace(base, epochs=epochs or base.epochs, **(SMALL if small else {}))
    found: Recipes = {}
    for seed, dim, (name, change) in product(
        range(seeds), sizes(dims), picked(methods, METHODS).items()
    ):
        if name != UNTRAINED or seed == 0:
            found[Case(name, seed, dim=dim)] = replace(base, dim=dim, seed=seed, **change)
    return found | (collapse.recipes(range(seeds)) if sweep else {})


def answer(rows: Rows) -> Answer:
    """Tables by dimension, the overlaps, the sweep, and the report's pictures and claims."""
    dims = sorted({case["dim"] for case in rows if "dim" in case})
    by_dim = {dim: where(rows, dim=dim) for dim in dims}
    swept = {case: row for case, row in rows.items() if "l2" in case}
    flat = {case.method: row for case, row in by_dim.get(2, {}).items() if case.seed == 0}
    done = {name: row for name, row in flat.items() if row.status == "done"}
    pictures = tables.trained(done)  # without the pixels, which are not in 2-D
    compared = [tables.compare(found, dim) for dim, found in by_dim.items()]
    metric = compared[-1].metric if compared else ""
    name = next((row.data.spoken for row in by_dim[dims[-1]].values()), "") if dims else ""
    title = f"{metric} of every method, {name}"
    figures: list[Figure] = [
        comparison.picture(compared, f"{metric} by method and dimension"),
        Maps("The embeddings of every method in 2-D", tuple(pictures.items())),
        *(tables.overlaps(found, dim) for dim, found in by_dim.items()),
        *(tables.curves(found, dim) for dim, found in by_dim.items()),
    ]
    best = leader(by_dim[dims[-1]]) if dims else None
    if best:
        figures.append(Gallery(f"Neighbours by {best[0]}, {dims[-1]}-D", best[1]))
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=summary(by_dim, swept) if rows else (),
        findings=(
            *(ours_called(line) for one in compared for line in sentences.findings(one)),
            *claims.findings(by_dim),
            *collapse.findings(swept),
        ),
        tables=(
            comparison.standings(compared, title, f"{SPREAD}."),
            *(
                make(found, dim)
                for dim, found in by_dim.items()
                for make in (tables.comparison, tables.shapes)
            ),
            collapse.table(swept),
        ),
        figures=tuple(figures),
    )


def summary(by_dim: Mapping[int, Rows], swept: Rows) -> tuple[str, ...]:
    """Who leads, how the ratio over all classes separates, whether the n-pair loss collapses."""
    compared = [tables.compare(found, dim) for dim, found in by_dim.items()]
    rest = [*claims.of_the_ratio(by_dim), *collapse.summary(swept)]
    return (*map(claims.called, sentences.summary(compared)[: 3 - len(rest)]), *rest)


def ours_called(finding: Finding) -> Finding:
    """The finding with our losses as one says them."""
    return replace(finding, text=claims.called(finding.text))


def leader(rows: Rows) -> tuple[str, Row] | None:
    """The trained method with the highest headline metric, and its first finished seed."""
    _, learned = tables.ranking(rows)
    if not learned:
        return None
    name = highest(learned)
    return name, where(rows, method=name, seed=min(learned[name])).popitem()[1]


DEMO = {
    "seeds": 3,
    "epochs": 6,
    "dims": "64",
    "methods": "no training,Siamese (1-3),triplet (4-6),n-tuple (7),ours: Fisher NCA",
    "sweep": False,
    "small": True,
}
"""The options of `make demo`: a minute on two cores, in which what is learnt beats pixels."""

STUDY = Study(TITLE, QUESTION, answer, recipes, demo=DEMO)
