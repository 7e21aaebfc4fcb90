"""Which attention is it: every layer, and every part of it left out, one at a time."""

from __future__ import annotations

from functools import partial

from nearkin.answers import Answer, Dots, Finding, Lines, Table
from nearkin.losses.refinement_options import as_published, as_released
from nearkin.measure.statistics import Difference
from nearkin.runs.recipe import Plain
from nearkin.studies.shared import baselines, controls, graph_report, sentences
from nearkin.studies.shared.graph_report import HEADS, Change, options
from nearkin.studies.shared.reading import Scores, against, mean, scores
from nearkin.studies.shared.words import difference_cells
from nearkin.studies.study import Rows, Study

TITLE = "Attention in message passing over a batch"
QUESTION = (
    "The images of a batch refine their embeddings by listening to one another, and are then "
    "classified. Does it matter by which attention: dot product, GAT (static) or GATv2 (dynamic), "
    "with parameters matched? Does attention do anything that a plain mean of the batch, or no "
    "listening at all, does not? And which of projections, residual, feed-forward part and norms "
    "is it that works? The graph report could not tell GATv2 from the dot product over 5 seeds."
)

DOT, GAT, GATV2 = "dot-product", "GAT", "GATv2"
LAYERS: dict[str, dict[str, Plain]] = {
    DOT: {},
    GAT: {"layer": "gat"},
    GATV2: {"layer": "gatv2"},
}
WHOLE = graph_report.CONTROLS | {
    "group loss": {"loss": "group"},
    "auxiliary loss alone": options(refined=0.0),
    **graph_report.JUDGES,
}
"""Name -> what differs from the common recipe."""

PARTS = {
    "projections": "query key value out",
    "residual": "residual",
    "feed-forward": "feedforward",
    "norms": "norms",
}
LESS: dict[str, dict[str, Change]] = {
    name: {f"{name} without {p}": options(**given, without=w) for p, w in PARTS.items()}
    for name, given in LAYERS.items()
}
"""Layer -> what is left of it without each part."""

FORMS: dict[str, dict[str, Change]] = {
    DOT: {
        "dot-product, null neighbour": options(null_neighbour=True),
        "as published, CUB settings": options(**as_published("cub")),
        "as released, CUB settings": options(**as_released("cub")),
    },
    GAT: {"GAT, its paper's form": options(layer="gat", shared_projection=True)},
    GATV2: {"GATv2, its paper's form": options(layer="gatv2", shared_projection=True)},
}
"""Layer -> the form in which it was released or published."""

PLAIN = ("no edges", "mean", "auxiliary loss alone", "cross-entropy")
"""What attention is held against: all of the layer without it, and no layer at all."""

VARIANTS = {name: FORMS[name] | LESS[name] for name in LAYERS}
METHODS = WHOLE | VARIANTS[DOT] | VARIANTS[GAT] | VARIANTS[GATV2]


def answer(rows: Rows) -> Answer:
    """Every layer, every layer less a part, and where attention goes while it trains."""
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(rows)),
        findings=(*findings(rows), *baselines.findings(rows)),
        tables=(
            graph_report.standings(rows, whole()),
            layers(rows),
            parts(rows),
            *baselines.tables(rows),
        ),
        figures=(
            graph_report.picture(rows, whole()),
            dots(rows),
            attention(rows),
            graph_report.batch_graphs(rows, LAYERS, "Who listens to whom in a batch"),
        ),
    )


def whole() -> list[str]:
    """Every whole method and form, without the parts left out."""
    return [*WHOLE, *(form for forms in FORMS.values() for form in forms)]


def layers(rows: Rows) -> Table:
    """Every whole method and form, beside the dot product, with what it costs."""
    found = {head: scores(rows, metric) for head, metric in HEADS.items()}
    oracle = scores(rows, "recall@1", "best_on_test")
    differ = whole_differences(found["R@1"])
    parameters = graph_report.costs(rows, graph_report.loss_parameters, 1e6)
    seconds = graph_report.costs(rows, graph_report.train_seconds)
    memory = graph_report.costs(rows, lambda row: row.cost.peak_memory_mb)
    shares, over = (*HEADS, "best epoch on test"), "to dot-product"
    return Table(
        title=f"Every layer, {graph_report.data_name(rows)}",
        columns=(
            *("method", *shares, over, "p"),
            *("parameters of the loss, M", "training, s", "memory, MB"),
        ),
        rows=tuple(
            (
                method,
                *(mean(found[head].get(method)) for head in HEADS),
                mean(oracle.get(method)),
                *difference_cells(differ.get(method)),
                round(parameters[method], 2),
                round(seconds[method], 1),
                round(memory[method]),
            )
            for method in dict.fromkeys([*controls.BESIDE, *whole()])
            if method in found["R@1"]
        ),
        percent=shares,
        points=(over,),
        best=tuple(HEADS),
        note=graph_report.note(rows, "the dot product")
        + " As published and as released: one learning rate for all, as there, where the others' "
        "classifiers have one of their own. Memory: what the first epoch adds to the process.",
    )


def whole_differences(recall: dict[str, Scores]) -> dict[str, Difference]:
    """Every whole method and form against the dot product."""
    trained = controls.ranked({m: recall[m] for m in whole() if m in recall})
    return against(DOT, trained)


def parts(rows: Rows) -> Table:
    """Each layer whole and less one part, with the difference that the part makes."""
    recall = scores(rows, "recall@1")
    parameters = graph_report.costs(rows, graph_report.loss_parameters, 1e6)
    lines = []
    for layer in LAYERS:
        family = {m: recall[m] for m in (layer, *LESS[layer]) if m in recall}
        differ = against(layer, family)
        lines += [
            (m, mean(s), *difference_cells(differ.get(m)), round(parameters[m], 2))
            for m, s in family.items()
        ]
    return Table(
        title="One part of a layer left out",
        columns=("layer", "R@1", "to the whole", "p", "parameters of the loss, M"),
        rows=tuple(lines),
        percent=("R@1",),
        points=("to the whole",),
        note=graph_report.note(rows, "the whole layer"),
    )


def dots(rows: Rows) -> Dots:
    """R@1 of each layer, whole and less one part."""
    recall = scores(rows, "recall@1")
    groups = [layer for layer in LAYERS if layer in recall]
    return Dots(
        title="R@1 by layer, whole and with one part left out",
        y="R@1",
        groups=tuple(groups),
        series=("whole", *(f"without {part}" for part in PARTS)),
        values=tuple(tuple(mean(recall.get(m)) for m in (layer, *LESS[layer])) for layer in groups),
        percent=True,
    )


def attention(rows: Rows) -> Lines:
    """Where the attention of a training batch goes, epoch by epoch, beside equal attention."""
    reports = {
        key: graph_report.monitored(rows, key)
        for key in ("attention_within", "attention_across", "degree", "kin_heard")
    }
    lines = []
    for where in ("within", "across"):
        for layer, by_epoch in reports[f"attention_{where}"].items():
            if layer not in LAYERS:
                continue
            relative: dict[int, Scores] = {}
            for epoch, seeds in by_epoch.items():
                for seed, share in seeds.items():
                    degree = reports["degree"][layer][epoch][seed]
                    kin = reports["kin_heard"][layer][epoch][seed]
                    equal = degree * (kin if where == "within" else 1 - kin) / (degree + 1)
                    relative.setdefault(epoch, {})[seed] = share / equal if equal else 1.0
            line = f"{layer}, {where} classes"
            lines.append(graph_report.curve(line, relative, dashed=where == "across"))
    return Lines(
        title="Attention within and across classes over training",
        x="epoch",
        y="attention over an equal share",
        lines=tuple(lines),
        note="Of one training batch. 1: as much as if an image gave every image, itself too, the "
        "same.",
    )


def summary(rows: Rows) -> list[str]:
    """Whether layers differ, whether listening helps, and what training gains."""
    recall = scores(rows, "recall@1")
    if DOT not in recall:
        return ["No run with dot-product attention has finished."]
    layered = against(DOT, {m: recall[m] for m in LAYERS if m in recall})
    plain = against(DOT, {m: recall[m] for m in (DOT, *PLAIN) if m in recall})
    parts = ((layered, "other layers"), (plain, "controls without attention"))
    lines = [sentences.versus(d, "the dot product", others) for d, others in parts if d]
    return [*lines, *graph_report.over_untrained(recall, DOT)]


def findings(rows: Rows) -> list[Finding]:
    """Whether layers differ, whether listening helps, and which part matters."""
    recall = scores(rows, "recall@1")
    if DOT not in recall:
        return []
    found = sentences.differences_found(whole_differences(recall), "the dot product")
    for layer in (layer for layer in LAYERS if layer in recall):
        family = {m: recall[m] for m in (layer, *LESS[layer]) if m in recall}
        lost = {m.removeprefix(f"{layer} without "): d for m, d in against(layer, family).items()}
        found += sentences.changes_found(lost, f"where one part of {layer} is left out")
    return found


STUDY = Study(
    title=TITLE,
    question=QUESTION,
    answer=answer,
    recipes=partial(graph_report.recipes, METHODS),
    search=partial(graph_report.search, METHODS),
    demo=graph_report.DEMO,
)
