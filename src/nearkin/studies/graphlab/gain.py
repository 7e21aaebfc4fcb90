"""What the graph adds: over the auxiliary loss alone, over no edges, over batches drawn so."""

from __future__ import annotations

from nearkin.answers import Answer, Bars, Table
from nearkin.studies.shared import refinement
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.shared.reading import Scores, differences, mean, scores
from nearkin.studies.shared.refinement import Change, options
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.words import difference_cells, difference_words
from nearkin.studies.study import Recipes, Rows, Study

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


def methods(sampler: str) -> dict[str, Change]:
    """The methods with batches of one kind; the controls with the usual one."""
    return (refinement.CONTROLS if sampler == "classes" else {}) | METHODS


def search(data: str = CUB, epochs: int = 0, tune: bool = True) -> Recipes:
    """The trials for each kind of batch."""
    found: Recipes = {}
    for sampler in SAMPLERS:
        found |= refinement.search(methods(sampler), data, epochs, tune, sampler)
    return found


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    searched: Rows | None = None,
) -> Recipes:
    """Every kind of batch, seed and method; one setting for each kind."""
    found: Recipes = {}
    for sampler in SAMPLERS:
        asked = (data, seeds, epochs, tune, searched, sampler)
        found |= refinement.recipes(methods(sampler), *asked)
    return found


def answer(rows: Rows) -> Answer:
    """The one table, its bars, and the three gains in words."""
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(findings(rows)),
        tables=(table(rows),),
        figures=(bars(rows),),
    )


def recalls(rows: Rows) -> dict[tuple[str, str], Scores]:
    """(method, sampler) -> seed -> R@1."""
    return scores(rows, "recall@1", by=lambda case: (case.method, case["sampler"]))


def gains(rows: Rows) -> dict[str, dict]:
    """Over what -> (method, sampler) -> the paired difference; Holm-corrected in each column."""
    every = [(method, sampler) for sampler in SAMPLERS for method in METHODS]
    pairs = {
        "over the auxiliary loss": {m: (ALONE, m[1]) for m in every if m[0] != ALONE},
        "over no edges": {m: (NO_EDGES, m[1]) for m in every if m[0] not in (ALONE, NO_EDGES)},
        "over random batches": {m: (m[0], "random") for m in every if m[1] == "classes"},
    }
    recall = recalls(rows)
    return {over: differences(recall, each) for over, each in pairs.items()}


def table(rows: Rows) -> Table:
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
                *(c for g in gained.values() for c in difference_cells(g.get((method, sampler)))),
            )
            for (method, sampler), found in recall.items()
        ),
        percent=("R@1", *gained),
        best=("R@1",),
        note=refinement.note(rows, "the control that heads the column"),
    )


def bars(rows: Rows) -> Bars:
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


def findings(rows: Rows) -> list[str]:
    """The three gains of attention over the full graph."""
    return [
        f"Attention over the full graph, {over}, with {SAMPLERS[sampler]} batches: "
        f"{difference_words(d)}."
        for over, found in gains(rows).items()
        for (method, sampler), d in found.items()
        if method == "attention, full graph"
    ]


STUDY = Study(TITLE, QUESTION, answer, recipes, search, demo=refinement.DEMO)
