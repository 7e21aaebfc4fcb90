"""What the graph adds: over the auxiliary loss alone, over no edges, over batches drawn so."""

from __future__ import annotations

from nearkin.answers import Answer, Finding, Table
from nearkin.measure.statistics import Difference
from nearkin.studies.shared import baselines, comparison, controls, graph_report, sentences
from nearkin.studies.shared.graph_report import Change, options
from nearkin.studies.shared.reading import Scores, differences, mean, scores, where
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import WHITENED
from nearkin.studies.shared.words import SPREAD, SURE, difference_cells, points
from nearkin.studies.study import Case, Recipes, Rows, Study

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
    return (graph_report.CONTROLS if sampler == "classes" else {}) | METHODS


def search(data: str = CUB, epochs: int = 0, tune: bool = True, start: str = WHITENED) -> Recipes:
    """The trials for each kind of batch."""
    found: Recipes = {}
    for sampler in SAMPLERS:
        found |= graph_report.search(methods(sampler), data, epochs, tune, start, sampler)
    return found


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    start: str = WHITENED,
    searched: Rows | None = None,
) -> Recipes:
    """Every kind of batch, seed and method; one setting for each kind."""
    found: Recipes = {}
    for sampler in SAMPLERS:
        asked = (data, seeds, epochs, tune, start, searched, sampler)
        found |= graph_report.recipes(methods(sampler), *asked)
    return found


def answer(rows: Rows) -> Answer:
    """The one table, its bars, and the three gains in words."""
    compared = [
        graph_report.compare(where(rows, sampler=sampler), methods(sampler), f"{name} batches")
        for sampler, name in SAMPLERS.items()
    ]
    title = f"R@1 by method and kind of batch, {graph_report.data_name(rows)}"
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(rows)),
        findings=(*findings(rows), *baselines.findings(rows, by=labelled)),
        tables=(
            comparison.standings(compared, title, f"{SPREAD}."),
            table(rows),
            *baselines.tables(rows, by=labelled),
        ),
        figures=(comparison.picture(compared, title),),
    )


def labelled(case: Case) -> str:
    """A method and its kind of batches."""
    return f"{case.method}, {SAMPLERS[case['sampler']]} batches"


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
        title=f"What the graph adds, {graph_report.data_name(rows)}",
        columns=(
            *("method", "batches", "R@1"),
            *(head for over in gained for head in (over, f"p {over}")),
        ),
        rows=tuple(
            (
                method,
                SAMPLERS[sampler] if method not in controls.BESIDE else "",
                mean(found),
                *(c for g in gained.values() for c in difference_cells(g.get((method, sampler)))),
            )
            for (method, sampler), found in recall.items()
        ),
        percent=("R@1",),
        points=tuple(gained),
        best=("R@1",),
        note=graph_report.note(rows, "the control that heads the column"),
    )


ATTENTION = "attention, full graph"


def of_attention(rows: Rows) -> dict[str, dict[str, Difference]]:
    """Over what -> kind of batch -> what attention over the full graph gains."""
    return {
        over: {
            f"{SAMPLERS[sampler]} batches": difference
            for (method, sampler), difference in found.items()
            if method == ATTENTION
        }
        for over, found in gains(rows).items()
    }


def summary(rows: Rows) -> list[str]:
    """What attention gains over each control, with batches drawn class by class."""
    lines = []
    for over, found in of_attention(rows).items():
        difference = found.get(f"{SAMPLERS['classes']} batches")
        if difference is None:
            continue
        mean = difference.estimate.mean
        size = points(abs(mean), sign="")
        changes = f"{'gains' if mean >= 0 else 'loses'} {size}"
        if size == points(0, sign=""):
            changes = "gains and loses nothing"
        sure = "" if difference.p < SURE else ", which is not sure"
        lines.append(f"Attention over the full graph {changes} {over}{sure}.")
    return lines or ["No attention over the full graph has finished beside its controls."]


GIVEN = {
    "over the auxiliary loss": "with attention over the full graph beside the auxiliary loss",
    "over no edges": "with attention over the full graph in place of no edges",
    "over random batches": "with attention over the full graph, against random batches",
}
"""Over what -> the change, as a sentence begins."""


def findings(rows: Rows) -> list[Finding]:
    """The three gains of attention over the full graph, and all of what the graph gains."""
    found = []
    for over, differ in of_attention(rows).items():
        found += sentences.changes_found(differ, GIVEN[over])
    return found


STUDY = Study(TITLE, QUESTION, answer, recipes, search, demo=graph_report.DEMO)
