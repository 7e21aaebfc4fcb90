"""How many proxies a class: the seed's study of N for three ratios, and what N is really."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nearkin.answers import Answer, Line, Lines
from nearkin.measure.statistics import estimate, paired
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared.reading import last_said, mean, p_value, scores
from nearkin.studies.shared.sets import CUB, fitted, proxygml, search, settings_of_full, teaches

__all__ = ["answer", "recipes", "search"]

TITLE = "ProxyGML: how many proxies a class"
QUESTION = (
    "Are a few proxies a class better than one, because they capture the variation within it? Or "
    "is N, with which the logits grow to ±N, but an inverse temperature? The controls keep the "
    "logits of N = 12 by a scale of 12 / N."
)
COUNTS = (1, 2, 4, 8, 12, 16)
RATIOS = (0.05, 0.2, 1.0)
USUAL = 12
DEMO = {"data": "mnist-5k", "seeds": 1, "epochs": 1, "tune": False}
"""The options of a short form that needs no data set."""


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    searched: list[Row] | None = None,
) -> list[Recipe]:
    """Every seed, N and ratio; then every N at the first ratio with logits as for N = 12."""
    usable = [ratio for ratio in RATIOS if teaches(data, ratio)]
    options: list[dict] = [{"proxies": n, "ratio": r} for r in usable for n in COUNTS]
    first = {"ratio": usable[0]}
    options += [first | {"proxies": n, "scale": USUAL / n} for n in COUNTS if n != USUAL]
    shared = settings_of_full(data, epochs, searched)
    return [
        replace(proxygml(data, epochs, chosen), seed=seed, **shared)
        for seed in range(seeds)
        for chosen in options
    ]


def point(row: Row) -> tuple[str, int]:
    """The curve that a run belongs to, and its N."""
    options: dict[str, Any] = {**fitted(row.recipe.data), **row.recipe.loss_options}
    curve = f"r = {options['ratio']:g}"
    return curve + (", s = 12 / N" if "scale" in options else ""), options["proxies"]


def answer(rows: list[Row]) -> Answer:
    """R@1 over N, with and without the growth of the logits; and do kin proxies stay apart?"""
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(findings(rows)),
        figures=(
            curves(rows, "R@1 over proxies a class", "R@1", recall(rows), percent=True),
            curves(rows, "Do a class's proxies stay apart?", "cosine of kin", together(rows)),
        ),
    )


def recall(rows: list[Row]) -> dict[tuple[str, int], dict[int, float]]:
    """(curve, N) -> seed -> R@1; N = 12 has the logits of N = 12, so it stands in both curves."""
    found = dict(scores(rows, point, "recall@1"))
    for curve in {curve for curve, _ in found if "s = " in curve}:
        plain = (curve.split(",")[0], USUAL)
        if plain in found:
            found[curve, USUAL] = found[plain]
    return found


def together(rows: list[Row]) -> dict[tuple[str, int], dict[int, float]]:
    """(curve, N) -> seed -> mean cosine between two proxies of a class, after training."""
    several = [row for row in rows if point(row)[1] > 1]
    return last_said(several, point, "proxy_cosine")


def curves(rows: list[Row], title: str, y: str, found: dict, percent: bool = False) -> Lines:
    """One line for each ratio, N along it."""
    lines = []
    for curve in dict.fromkeys(point(row)[0] for row in rows):
        counts = sorted(n for name, n in found if name == curve)
        values = [estimate(found[curve, n].values()) for n in counts]
        lines.append(Line.of(curve, counts, values, dashed="s = " in curve))
    return Lines(title, "proxies a class, N", y, tuple(lines), percent=percent)


def findings(rows: list[Row]) -> list[str]:
    """Whether N helps, and whether it still does once the logits are kept."""
    found = recall(rows)
    said = []
    for curve in dict.fromkeys(name for name, _ in found):
        if (curve, 1) in found and (curve, USUAL) in found:
            gain = paired(found[curve, USUAL], found[curve, 1])
            said.append(
                f"{curve}: {USUAL} proxies a class instead of 1 change R@1 by "
                f"{100 * gain.estimate.mean:+.1f} points (p {p_value(gain)})."
            )
    cosines = [mean(values) for (_, n), values in together(rows).items() if n == USUAL]
    if cosines:
        low = min(c.mean for c in cosines if c)
        said.append(
            f"After training, two of the {USUAL} proxies of a class have a cosine of {low:.2f} or "
            "more on average: 1 would be one and the same."
        )
    return said
