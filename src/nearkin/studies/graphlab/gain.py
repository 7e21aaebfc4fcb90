"""What the graph adds: over the auxiliary loss alone, over no edges, over batches drawn so."""

from __future__ import annotations

from functools import partial

from nearkin.answers import Answer, Bars, Table
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared import refinement
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.shared.reading import differences, mean, scores
from nearkin.studies.shared.refinement import Change, beside, options, verdict
from nearkin.studies.shared.sets import CUB

TITLE = "What the graph adds"
QUESTION = (
    "A network trained with message passing over its batches beats one without. How much of that "
    "is the graph? The auxiliary loss alone classifies the raw embeddings; no edges adds all of "
    "the layer but the listening, with equally many parameters; and batches drawn class by class "
    "(P x K), without which a graph has hardly any kin to connect, could be the gain by themselves."
)

ALONE, NO_EDGES = "auxiliary loss alone", "no edges"
METHODS: dict[str, Change] = {
    ALONE: options(refined=0.0),
    NO_EDGES: options(layer="no-edges"),
    "mean of the batch": options(layer="mean"),
    "attention, full graph": options(),
    "attention, 8 nearest": options(builder="knn", k=8),
    "attention, 8 at random": options(builder="random", like="knn", k=8),
}
"""Name -> what differs from the common recipe."""

SAMPLERS = {"classes": "P x K", "random": "random"}
DEMO = refinement.DEMO


def of(row: Row, sampler: str) -> str | None:
    """The method of a row with these batches; None for others."""
    known = row.recipe.sampler == sampler
    return refinement.name_of(row, asked_with(sampler)) if known else None


def asked_with(sampler: str) -> dict[str, Change]:
    """The methods with batches of one kind; the controls with the usual one."""
    return (refinement.CONTROLS if sampler == "classes" else {}) | METHODS


def search(data: str = CUB, epochs: int = 0, tune: bool = True) -> list[Recipe]:
    """The trials for each kind of batch."""
    return [
        trial
        for sampler in SAMPLERS
        for trial in refinement.search(asked_with(sampler), data, epochs, tune, sampler)
    ]


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    searched: list[Row] | None = None,
) -> list[Recipe]:
    """Every kind of batch, seed and method; one setting for each kind."""
    asked = (data, seeds, epochs, tune, searched)
    return [
        one
        for sampler in SAMPLERS
        for one in refinement.recipes(asked_with(sampler), *asked, sampler)
    ]


def answer(rows: list[Row]) -> Answer:
    """The one table, its bars, and the three gains in words."""
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(findings(rows)),
        tables=(table(rows),),
        figures=(bars(rows),),
    )


def recalls(rows: list[Row]) -> dict[tuple[str, str], dict[int, float]]:
    """(method, sampler) -> seed -> R@1."""
    return {
        (method, sampler): found
        for sampler in SAMPLERS
        for method, found in scores(rows, partial(of, sampler=sampler), "recall@1").items()
    }


def gains(rows: list[Row]) -> dict[str, dict]:
    """Over what -> (method, sampler) -> the paired difference; Holm-corrected in each column."""
    every = [(method, sampler) for sampler in SAMPLERS for method in METHODS]
    pairs = {
        "over the auxiliary loss": {m: (ALONE, m[1]) for m in every if m[0] != ALONE},
        "over no edges": {m: (NO_EDGES, m[1]) for m in every if m[0] not in (ALONE, NO_EDGES)},
        "over random batches": {m: (m[0], "random") for m in every if m[1] == "classes"},
    }
    recall = recalls(rows)
    return {over: differences(recall, each) for over, each in pairs.items()}


def table(rows: list[Row]) -> Table:
    """Every method and kind of batch, and what it gains over each control."""
    recall, gained = recalls(rows), gains(rows)
    return Table(
        title=f"What the graph adds, {refinement.data_name(rows)}",
        columns=(
            *("method", "batches", "R@1"),
            *(head for over in gained for head in (over, f"p {over}")),
        ),
        rows=tuple(
            (
                method,
                SAMPLERS[sampler] if method != UNTRAINED else "",
                mean(found),
                *(cell for g in gained.values() for cell in beside(g.get((method, sampler)))),
            )
            for (method, sampler), found in recall.items()
        ),
        percent=("R@1", *gained),
        best=("R@1",),
        note=refinement.note(rows, "the control that heads the column"),
    )


def bars(rows: list[Row]) -> Bars:
    """R@1 of every method, by kind of batch."""
    recall = recalls(rows)
    groups = [m for m in METHODS if any((m, s) in recall for s in SAMPLERS)]
    return Bars(
        title="R@1 by method and kind of batch",
        y="R@1",
        groups=tuple(groups),
        series=tuple(SAMPLERS.values()),
        values=tuple(tuple(mean(recall.get((m, s))) for s in SAMPLERS) for m in groups),
        percent=True,
    )


def findings(rows: list[Row]) -> list[str]:
    """The three gains of attention over the full graph."""
    return [
        f"Attention over the full graph, {over}, with {SAMPLERS[sampler]} batches: {verdict(d)}."
        for over, found in gains(rows).items()
        for (method, sampler), d in found.items()
        if method == "attention, full graph"
    ]
