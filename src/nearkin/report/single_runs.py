"""The page of single runs: what `nearkin train` left in a folder, side by side."""

from __future__ import annotations

from nearkin.answers import Answer, Figure, Gallery, Maps, Table
from nearkin.report import standard
from nearkin.runs.row import Row
from nearkin.studies.shared.reading import mean, scores

QUESTION = "The runs of nearkin train in this folder; those that differ in the seed alone are one."
SHARES = {
    "R@1 in train": "in_train.recall@1",
    "R@1": "recall@1",
    "MAP@R": "map@r",
    "NMI": "nmi",
    "5-NN": "knn_accuracy",
}


def answer(rows: list[Row]) -> Answer:
    """Every method's metrics, its 2-D pictures, and the neighbours that the best one finds."""
    names = {row.hash: name for name, group in standard.methods(rows).items() for row in group}
    measured = {head: scores(rows, lambda r: names[r.hash], k) for head, k in SHARES.items()}
    found = {head: values for head, values in measured.items() if values}
    table = Table(
        title="Every method",
        columns=("method", "data", *found),
        rows=tuple(
            (name, data, *(mean(found[head].get(name)) for head in found))
            for name, data in {names[r.hash]: r.data.name for r in rows}.items()
        ),
        percent=tuple(found),
        note="The last epoch, on test. Means over seeds with 95 % t-intervals.",
    )
    finished = [row for row in rows if row.status == "done"]
    figures: list[Figure] = []
    flat = [row for row in finished if row.recipe.dim == 2]
    if flat:
        pictures = tuple((f"{names[r['hash']]}, seed {r['recipe']['seed']}", r) for r in flat)
        figures.append(Maps("The embeddings in 2-D", pictures))
    if finished:
        metric = standard.headline(finished)
        top = max(finished, key=lambda row: metric.of(row) or 0.0)
        figures.append(Gallery(f"Neighbours by {names[top['hash']]}", top))
    return Answer("Single runs", QUESTION, tables=(table,), figures=tuple(figures))
