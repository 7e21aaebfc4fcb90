"""How many proxies a class: the ProxyGML poster's study of N for three ratios, and what N does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

from nearkin.answers import Answer, Finding, Line, Lines
from nearkin.measure.statistics import Difference, estimate
from nearkin.studies.proxygml.full import search, settings_of_full
from nearkin.studies.shared import baselines, comparison, controls, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.reading import Scores, average, differences, final_monitor, scores
from nearkin.studies.shared.sets import CUB, proxygml, teaches
from nearkin.studies.shared.tuning import WHITENED
from nearkin.studies.shared.words import SPREAD, signed, surely
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "ProxyGML: how many proxies a class"
QUESTION = (
    "Are a few proxies a class better than one, because they capture the variation within it? Or "
    "is N, with which the logits grow to ±N, but an inverse temperature? The controls keep the "
    "logits of N = 12 by a scale of 12 / N."
)
COUNTS = (1, 2, 4, 8, 12, 16)
RATIOS = (0.05, 0.2, 1.0)
USUAL = 12


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    start: str = WHITENED,
    searched: Rows | None = None,
) -> Recipes:
    """Every seed, N and ratio; then every N at the first ratio with logits as for N = 12."""
    ratios = [ratio for ratio in RATIOS if teaches(data, ratio)]
    shared = settings_of_full(data, epochs, searched, start)
    found = controls.recipes(data, start, searched)
    for seed, ratio, n in product(range(seeds), ratios, COUNTS):
        one = replace(proxygml(data, epochs, {"ratio": ratio, "proxies": n}, start), **shared)
        found[Case(f"r = {ratio:g}", seed, proxies=n)] = replace(one, seed=seed)
    for seed, n in product(range(seeds), COUNTS):
        options = {"ratio": ratios[0], "proxies": n} | ({"scale": USUAL / n} if n != USUAL else {})
        one = replace(proxygml(data, epochs, options, start), **shared)
        found[Case(f"r = {ratios[0]:g}, s = 12 / N", seed, proxies=n)] = replace(one, seed=seed)
    return found


Curves = dict[tuple[str, int], Scores]
"""(curve, N) -> seed -> value."""


def point(case: Case) -> tuple[str, int]:
    """The curve of a run, and its N."""
    return case.method, case["proxies"]


def answer(rows: Rows) -> Answer:
    """R@1 over N, with and without the growth of the logits; and do kin proxies stay apart?"""
    whole = rows
    rows, beside = controls.parted(rows, "proxies")
    recall = scores(rows, "recall@1", by=point)
    cosine = final_monitor(rows, "proxy_cosine", by=point)
    several = {(curve, n): values for (curve, n), values in cosine.items() if n > 1}
    compared = by_curve(recall, beside)
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(recall, compared)),
        findings=(
            *findings(recall, several, compared),
            *baselines.findings(whole, by=lambda case: case.label),
        ),
        tables=(
            comparison.standings(compared, "R@1 by proxies a class", f"{SPREAD}."),
            *baselines.tables(whole, by=lambda case: case.label),
        ),
        figures=(
            lines("R@1 over proxies a class", "R@1", recall, percent=True),
            lines("Do a class's proxies stay apart?", "cosine of kin", several),
        ),
    )


def lines(title: str, y: str, found: Curves, percent: bool = False) -> Lines:
    """One line for each curve, N along it."""
    drawn = []
    for curve in dict.fromkeys(curve for curve, _ in found):
        counts = sorted(n for name, n in found if name == curve)
        values = [estimate(found[curve, n].values()) for n in counts]
        drawn.append(Line.of(curve, counts, values, dashed="s = " in curve))
    return Lines(title, "proxies a class, N", y, tuple(drawn), percent=percent)


def by_curve(recall: Curves, beside: Mapping[str, Scores]) -> list[Comparison]:
    """The numbers of proxies side by side, one comparison for each curve."""
    found: dict[str, dict[str, Scores]] = {}
    for (curve, n), values in sorted(recall.items()):
        found.setdefault(curve, {})[f"N = {n}"] = values
    return [Comparison("R@1", counts, beside, curve) for curve, counts in found.items()]


def gains(recall: Curves) -> dict[str, Difference]:
    """Curve -> what the usual number of proxies a class gains over one, Holm-corrected."""
    found = differences(recall, {(c, USUAL): (c, 1) for c, _ in recall})
    return {curve: difference for (curve, _), difference in found.items()}


def summary(recall: Curves, compared: list[Comparison]) -> list[str]:
    """Where several proxies a class help, and which number leads."""
    gained = gains(recall)
    if not gained:
        return [f"Runs with 1 and with {USUAL} proxies a class have not both finished."]
    helped, hurt = (surely(gained, sign) for sign in (1, -1))
    parts = [f"surely help at {sentences.named(helped, gained)}"] if helped else []
    parts += [f"surely hurt at {sentences.named(hurt, gained)}"] if hurt else []
    words = " and ".join(parts) or "change nothing that can be told"
    first = next(one for one in compared if one.place in gained)
    return [f"{USUAL} proxies a class instead of one {words}.", sentences.lead(first)]


def findings(recall: Curves, cosine: Curves, compared: list[Comparison]) -> list[Finding]:
    """Whether N helps, and whether it still does once the logits are kept."""
    found = sentences.changes_found(gains(recall), f"with {USUAL} proxies a class instead of 1")
    found += [f for one in compared for f in sentences.findings(one)]
    means = [average(values) for (_, n), values in cosine.items() if n == USUAL]
    if means:
        low = min(value.mean for value in means if value)
        found.append(
            Finding(
                f"After training, two of the {USUAL} proxies of a class have a cosine of "
                f"{signed(low)} or more on average: 1 would be one and the same."
            )
        )
    return found


DEMO = {"data": "mnist-5k", "seeds": 1, "epochs": 1, "tune": False}
STUDY = Study(TITLE, QUESTION, answer, recipes, search, demo=DEMO)
