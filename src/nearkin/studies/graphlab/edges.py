"""What edges say: nothing, a bias, a gate, a message of their own; taught or not."""

from __future__ import annotations

from functools import partial

from nearkin.answers import Answer, Dots, Finding, Table
from nearkin.measure.statistics import Difference
from nearkin.runs.recipe import Plain
from nearkin.studies.shared import baselines, controls, graph_report, sentences
from nearkin.studies.shared.graph_report import HEADS, Change, options
from nearkin.studies.shared.reading import Scores, against, differences, mean, scores
from nearkin.studies.shared.words import difference_cells, surely
from nearkin.studies.study import Rows, Study

TITLE = "Edges that carry numbers"
QUESTION = (
    "An edge between two images can say how alike they are. Does it help to let it: as a bias of "
    "the attention score, as a gate of the message, or in a graph network, in which edges and "
    "nodes update one another one to three times? And does it help to teach the edges directly, "
    "by a loss that asks whether the two images are of one class?"
)

NONE = "no edge features"
KINDS: dict[str, dict[str, Plain]] = {
    NONE: {},
    "bias of the score": {"edges": "bias"},
    "gate of the message": {"edges": "gate"},
    "graph network, 1 update": {"layer": "graph-network"},
    "graph network, 2 updates": {"layer": "graph-network", "layers": 2},
    "graph network, 3 updates": {"layer": "graph-network", "layers": 3},
    "graph network, 1 update, sum": {"layer": "graph-network", "aggregate": "sum"},
    "graph network, 1 update, max": {"layer": "graph-network", "aggregate": "max"},
}
TAUGHT = ", edge loss"
METHODS: dict[str, Change] = {
    **graph_report.CONTROLS,
    "no edges": options(layer="no-edges"),
    **{kind: options(**given) for kind, given in KINDS.items()},
    **{kind + TAUGHT: options(**given, edge_loss=1.0) for kind, given in KINDS.items()},
}
"""Name -> what differs from the common recipe."""


def answer(rows: Rows) -> Answer:
    """Every use of edges beside none, and what the edge loss adds to each."""
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(rows)),
        findings=(*findings(rows), *baselines.findings(rows)),
        tables=(graph_report.standings(rows, METHODS), table(rows), *baselines.tables(rows)),
        figures=(dots(rows),),
    )


def table(rows: Rows) -> Table:
    """Every method, beside no edge features and no edge loss, and beside itself untaught."""
    found = {head: scores(rows, metric) for head, metric in HEADS.items()}
    recall = found["R@1"]
    to_none = differences_to_none(recall)
    untaught = differences(recall, {kind + TAUGHT: kind for kind in KINDS})
    parameters = graph_report.costs(rows, graph_report.loss_parameters, 1e6)
    seconds = graph_report.costs(rows, graph_report.train_seconds)
    return Table(
        title=f"Every use of edges, {graph_report.data_name(rows)}",
        columns=(
            *("edges", *HEADS, "to none", "p", "to no edge loss", "p of the edge loss"),
            *("parameters of the loss, M", "training, s"),
        ),
        rows=tuple(
            (
                method,
                *(mean(found[head].get(method)) for head in HEADS),
                *difference_cells(to_none.get(method)),
                *difference_cells(untaught.get(method)),
                round(parameters[method], 2),
                round(seconds[method], 1),
            )
            for method in dict.fromkeys([*controls.BESIDE, *METHODS])
            if method in recall
        ),
        percent=tuple(HEADS),
        points=("to none", "to no edge loss"),
        best=tuple(HEADS),
        note=graph_report.note(
            rows, "no edge features, and against the same without the edge loss"
        ),
    )


def differences_to_none(recall: dict[str, Scores]) -> dict[str, Difference]:
    """Every trained method against attention without edge features."""
    return against(NONE, controls.ranked(recall))


def dots(rows: Rows) -> Dots:
    """R@1 of every use of edges, with and without the edge loss."""
    recall = scores(rows, "recall@1")
    groups = [kind for kind in KINDS if kind in recall]
    return Dots(
        title="R@1 by use of edges",
        y="R@1",
        groups=tuple(groups),
        series=("without the edge loss", "with it"),
        values=tuple((mean(recall.get(k)), mean(recall.get(k + TAUGHT))) for k in groups),
        percent=True,
    )


def kinds_against_none(recall: dict[str, Scores]) -> dict[str, Difference]:
    """Every use of edges without the edge loss, against none."""
    return against(NONE, {kind: recall[kind] for kind in KINDS if kind in recall})


def taught_against_untaught(recall: dict[str, Scores]) -> dict[str, Difference]:
    """What the edge loss adds to each use of edges."""
    found = differences(recall, {kind + TAUGHT: kind for kind in KINDS})
    return {name.removesuffix(TAUGHT): difference for name, difference in found.items()}


def summary(rows: Rows) -> list[str]:
    """Whether edges help, whether teaching them does, and what training gains."""
    recall = scores(rows, "recall@1")
    if NONE not in recall:
        return ["No run without edge features has finished, with which to compare."]
    kinds, taught = kinds_against_none(recall), taught_against_untaught(recall)
    lines = [sentences.versus(kinds, NONE)] if kinds else []
    if taught:
        helped = surely(taught, 1)
        where = f"with {sentences.named(helped, taught)}" if helped else "nowhere"
        lines.append(f"The edge loss surely helps {where}.")
    return [*lines, *graph_report.over_untrained(recall, NONE)]


def findings(rows: Rows) -> list[Finding]:
    """What each use of edges, and the edge loss, adds."""
    recall = scores(rows, "recall@1")
    if NONE not in recall:
        return []
    taught = taught_against_untaught(recall)
    return [
        *sentences.differences_found(kinds_against_none(recall), NONE),
        *sentences.changes_found(taught, "with the edge loss"),
    ]


STUDY = Study(
    title=TITLE,
    question=QUESTION,
    answer=answer,
    recipes=partial(graph_report.recipes, METHODS),
    search=partial(graph_report.search, METHODS),
    demo=graph_report.DEMO,
)
