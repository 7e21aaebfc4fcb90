"""How many proxies a sample is joined to: the ProxyGML poster's study of the ratio r."""

from __future__ import annotations

from dataclasses import replace

from nearkin.answers import Answer, Line, Lines
from nearkin.measure.statistics import SHARES, estimate
from nearkin.studies.proxygml.full import search, settings_of_full
from nearkin.studies.shared import baselines, comparison, controls, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.reading import Scores, scores
from nearkin.studies.shared.sets import CUB, classes, proxygml, teaches
from nearkin.studies.shared.tuning import WHITENED
from nearkin.studies.shared.words import SPREAD
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "ProxyGML: the scale of the graph"
QUESTION = (
    "Which share r of all proxies should a sample be joined to? Small graphs should show the local "
    "neighbourhood, and r = 1 is a softmax over all classes."
)
RATIOS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    start: str = WHITENED,
    searched: Rows | None = None,
) -> Recipes:
    """Every seed and ratio at which there is something to learn."""
    shared = settings_of_full(data, epochs, searched, start)
    return controls.recipes(data, start, searched) | {
        Case("ProxyGML", seed, ratio=ratio): replace(
            proxygml(data, epochs, {"ratio": ratio}, start), seed=seed, **shared
        )
        for seed in range(seeds)
        for ratio in RATIOS
        if teaches(data, ratio)
    }


def by_ratio(rows: Rows, metric: str) -> dict[float, Scores]:
    """r -> seed -> metric, r ascending."""
    return dict(sorted(scores(rows, metric, by=lambda case: case["ratio"]).items()))


def of_ratio(case: Case) -> str:
    """The name of a case in a table: its ratio, if it has one."""
    return f"r = {case['ratio']:g}" if "ratio" in case else case.method


def answer(rows: Rows) -> Answer:
    """R@1 and NMI over r, the best r, and the ratios that were skipped."""
    lines, compared, remarks = [], [], []
    whole = rows
    rows, _ = controls.parted(rows, "ratio")
    for name, metric in {"R@1": "recall@1", "NMI": "nmi"}.items():
        values = by_ratio(rows, metric)
        means = [estimate(v.values(), within=SHARES) for v in values.values()]
        lines.append(Line.of(name, values, means))
        ratios = {f"r = {r:g}": v for r, v in values.items()}
        beside = controls.beside(scores(whole, metric))
        compared.append(Comparison(name, ratios, beside, place=name, spoken=f"by {name}"))
    data = next((row.recipe.data for row in rows.values()), "")
    skipped = [r for r in RATIOS if not teaches(data, r)]
    if skipped:
        remarks.append(
            f"Skipped: r = {', '.join(f'{r:g}' for r in skipped)}. With {classes(data)} classes "
            "they choose the proxies of the true class alone, and the loss is 0."
        )
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=sentences.summary(compared[:1]),
        findings=(
            *(finding for one in compared for finding in sentences.findings(one)),
            *baselines.findings(whole, by=of_ratio),
        ),
        tables=(
            comparison.standings(compared, "R@1 and NMI by the ratio r", f"{SPREAD}."),
            *baselines.tables(whole, by=of_ratio),
        ),
        remarks=tuple(remarks),
        figures=(
            Lines(
                "R@1 and NMI over the ratio", "r", "share", tuple(lines), log_x=True, percent=True
            ),
        ),
    )


DEMO = {"data": "mnist-5k", "seeds": 1, "epochs": 1, "tune": False}
STUDY = Study(TITLE, QUESTION, answer, recipes, search, demo=DEMO)
