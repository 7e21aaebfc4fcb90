"""Which graph is it: who listens to whom, beside a random graph of the same degree."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from nearkin.answers import Answer, Finding, Line, Lines, Table
from nearkin.measure.statistics import Difference, Estimate, estimate, paired
from nearkin.studies.shared import baselines, controls, graph_report, sentences
from nearkin.studies.shared.graph_report import HEADS, Change, options
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.shared.reading import Scores, average, differences, final_monitor, mean, scores
from nearkin.studies.shared.words import difference_cells, difference_words
from nearkin.studies.study import Rows, Study

TITLE = "Graphs over a batch"
QUESTION = (
    "The graph report wants to connect only images that are alike, instead of all of a batch. Does "
    "a sparse graph train better embeddings than the full one, and if so, because of who is "
    "connected or only because fewer are? Each graph stands beside a random one in which every "
    "image listens to as many others; and beside a graph that knows the labels, the most that "
    "knowing whom to listen to could give."
)

FULL = "full"
GRAPHS: dict[str, Change] = {
    FULL: options(),
    "no edges": options(layer="no-edges"),
    **{f"{k} nearest": options(builder="knn", k=k) for k in (2, 4, 8, 16, 32)},
    "8 nearest, union": options(builder="knn", k=8, symmetry="union"),
    "8 nearest, mutual": options(builder="mutual-knn", k=8),
    **{f"cosine > {t}": options(builder="threshold", threshold=t) for t in (0.25, 0.5, 0.75)},
    "cosine < −0.1": options(builder="threshold", threshold=0.1, sign="negative"),
    "|cosine| > 0.25": options(builder="threshold", threshold=0.25, sign="both"),
    "correlation > 0.5": options(builder="threshold", threshold=0.5, similarity="correlation"),
    "8 nearest, learned": options(builder="knn", k=8, similarity="learned"),
    "top 10 %": options(builder="top-ratio", ratio=0.1),
    "learned": options(builder="learned"),
    "label-guided": options(builder="label-guided", k=8),
}
"""Name -> what differs from the common recipe."""

SPARSE = {g: c["loss_options"] for g, c in GRAPHS.items() if "builder" in c["loss_options"]}
RANDOM: dict[str, Change] = {
    graph: options(**{**given, "builder": "random", "like": given["builder"]})
    for graph, given in SPARSE.items()
}
"""Graph -> its control: the same degrees, neighbours drawn at random."""

CONTROL = {graph: f"random, as {graph}" for graph in RANDOM}
"""Graph -> the name of its control."""

METHODS = graph_report.CONTROLS | GRAPHS | {CONTROL[g]: change for g, change in RANDOM.items()}
DRAWN = ("4 nearest", "8 nearest, mutual", "learned", "random, as 4 nearest")
"""The graphs whose pictures are shown: two of neighbours, one that is learned, and a control."""


def answer(rows: Rows) -> Answer:
    """Every graph beside the full one and beside its control, and degree against R@1."""
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(rows)),
        findings=(*findings(rows), *baselines.findings(rows)),
        tables=(
            graph_report.standings(rows, [*graph_report.CONTROLS, *GRAPHS]),
            table(rows),
            *baselines.tables(rows),
        ),
        figures=(
            graph_report.picture(rows, [*graph_report.CONTROLS, *GRAPHS]),
            by_degree(rows),
            graph_report.batch_graphs(rows, DRAWN, "Who is connected in a batch"),
        ),
    )


def table(rows: Rows) -> Table:
    """Every graph: whom it connects, what came of it, and by how much it beats its control."""
    found = {head: scores(rows, metric) for head, metric in HEADS.items()}
    recall = found["R@1"]
    degree, kin = (final_monitor(rows, key) for key in ("degree", "kin_heard"))
    shares = ("kin among them", *HEADS)
    full, random = compared(recall)
    return Table(
        title=f"Every graph, {graph_report.data_name(rows)}",
        columns=("graph", "neighbours", *shares, "to full", "p", "to random", "p of random"),
        rows=tuple(
            (
                graph,
                rounded(average(degree.get(graph))),
                mean(kin.get(graph)),
                *(mean(found[head].get(graph)) for head in HEADS),
                *difference_cells(full.get(graph)),
                *difference_cells(random.get(graph)),
            )
            for graph in dict.fromkeys([*controls.BESIDE, *METHODS])
            if graph in recall
        ),
        percent=shares,
        points=("to full", "to random"),
        best=tuple(HEADS),
        note=graph_report.note(rows, "the full graph, and against the control of the same degree")
        + " Neighbours: in one training batch after the last epoch; the control of the learned "
        "graph has as many as that one starts with.",
    )


def compared(recall: dict[str, Scores]) -> tuple[dict[str, Difference], dict[str, Difference]]:
    """Every graph minus the full one, and minus its random control."""
    full = {graph: FULL for graph in METHODS if graph not in (FULL, UNTRAINED)}
    return differences(recall, full), differences(recall, CONTROL)


def rounded(value: Estimate | None) -> float | None:
    """The mean to one decimal."""
    return None if value is None else round(value.mean, 1)


def by_degree(rows: Rows) -> Lines:
    """R@1 over the number of neighbours: nearest, and drawn at random."""
    recall = scores(rows, "recall@1")
    degree = final_monitor(rows, "degree")
    lines = []
    for kind in ("", "random, as "):
        members = [f"{kind}{k} nearest" for k in (2, 4, 8, 16, 32)]
        members = [m for m in (*members, FULL) if m in recall and m in degree]
        x = [estimate(degree[m].values()).mean for m in members]
        y = [estimate(recall[m].values()) for m in members]
        lines.append(Line.of("at random" if kind else "nearest", x, y))
    return Lines(
        title="R@1 by the number of neighbours",
        x="neighbours of an image",
        y="R@1",
        lines=tuple(lines),
        log_x=True,
        percent=True,
        note="Both end at the full graph.",
    )


def summary(rows: Rows) -> list[str]:
    """Whether any graph beats the full one, whether who is connected matters, and what is gained
    over no training."""
    recall = scores(rows, "recall@1")
    if FULL not in recall:
        return ["No run with the full graph has finished, with which to compare."]
    full, random = ({g: d for g, d in each.items() if g in GRAPHS} for each in compared(recall))
    lines = [sentences.versus(full, "the full graph")] if full else []
    lines += [sentences.versus(random, "random graphs of the same degree")] if random else []
    own = {name: recall[name] for name in (UNTRAINED, *GRAPHS) if name in recall}
    return [*lines, *graph_report.over_untrained(own, FULL)]


def findings(rows: Rows) -> list[Finding]:
    """Whether any graph beats the full one, and whether any beats its control."""
    recall = scores(rows, "recall@1")
    found = []
    for reference, differ in zip(
        ("the full graph", "its random control"), compared(recall), strict=True
    ):
        graphs = {g: d for g, d in differ.items() if g in GRAPHS}
        found += sentences.differences_found(graphs, reference) if graphs else []
    both = {graph: control for graph, control in CONTROL.items() if {graph, control} <= set(recall)}
    graphs, controls = together(recall, both), together(recall, both.values())
    if graphs:
        differ = paired(graphs, controls)
        text = f"All {len(both)} sparse graphs together against their controls: "
        found.append(Finding(f"{text}{difference_words(differ)}.", *sentences.strength([differ])))
    return found


def together(found: dict[str, Scores], methods: Iterable[str]) -> Scores:
    """The mean of these methods, of every seed that all of them have.

    >>> together({"a": {0: 1.0, 1: 2.0}, "b": {0: 3.0}}, ["a", "b"])
    {0: 2.0}
    """
    columns = [found[method] for method in methods]
    seeds = set.intersection(*(set(column) for column in columns)) if columns else set()
    return {seed: sum(column[seed] for column in columns) / len(columns) for seed in seeds}


STUDY = Study(
    title=TITLE,
    question=QUESTION,
    answer=answer,
    recipes=partial(graph_report.recipes, METHODS),
    search=partial(graph_report.search, METHODS),
    demo=graph_report.DEMO,
)
