"""How many proxies a sample is joined to: the seed's study of the ratio r."""

from __future__ import annotations

from dataclasses import replace

from nearkin.answers import Answer, Line, Lines
from nearkin.measure.statistics import estimate
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared.reading import scores
from nearkin.studies.shared.sets import CUB, classes, proxygml, search, settings_of_full, teaches

__all__ = ["answer", "recipes", "search"]

TITLE = "ProxyGML: the scale of the graph"
QUESTION = (
    "Which share r of all proxies should a sample be joined to? Small graphs should show the local "
    "neighbourhood, and r = 1 is a softmax over all classes."
)
RATIOS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
DEMO = {"data": "mnist-5k", "seeds": 1, "epochs": 1, "tune": False}
"""The options of a short form that needs no data set."""


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    searched: list[Row] | None = None,
) -> list[Recipe]:
    """Every seed and ratio at which there is something to learn."""
    shared = settings_of_full(data, epochs, searched)
    return [
        replace(proxygml(data, epochs, {"ratio": ratio}), seed=seed, **shared)
        for seed in range(seeds)
        for ratio in RATIOS
        if teaches(data, ratio)
    ]


def ratio(row: Row) -> float:
    """r of a run."""
    return float(row.recipe.loss_options["ratio"] or 0)


def answer(rows: list[Row]) -> Answer:
    """R@1 and NMI over r, the best r, and the ratios that were skipped."""
    lines = []
    best = {}
    for name, metric in {"R@1": "recall@1", "NMI": "nmi"}.items():
        found = scores(rows, ratio, metric)
        ratios = sorted(found)
        values = [estimate(found[r].values()) for r in ratios]
        lines.append(Line.of(name, ratios, values))
        best[name] = max(zip(values, ratios, strict=True), key=lambda pair: pair[0].mean)
    said = [f"{n} is best at r = {r:g}: {100 * v.mean:.1f} %." for n, (v, r) in best.items()]
    data = rows[0].recipe.data
    skipped = [r for r in RATIOS if not teaches(data, r)]
    if skipped:
        said.append(
            f"Skipped: r = {', '.join(f'{r:g}' for r in skipped)}. With {classes(data)} classes "
            "they choose the proxies of the true class alone, and the loss is 0."
        )
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(said),
        figures=(
            Lines(
                "R@1 and NMI over the ratio", "r", "share", tuple(lines), log_x=True, percent=True
            ),
        ),
    )
