"""The ProxyGML poster's ablation: its three modules, on and off; and what makes row 1 collapse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nearkin.answers import Answer, Finding, Table
from nearkin.measure.statistics import Estimate, paired
from nearkin.runs.row import Data
from nearkin.studies.proxygml.full import settings_of_full
from nearkin.studies.shared import baselines, comparison, controls, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.reading import against, average, final_monitor, mean, scores, where
from nearkin.studies.shared.sets import CUB, proxygml
from nearkin.studies.shared.tuning import WHITENED, settle, trials, unsearched
from nearkin.studies.shared.words import (
    SPREAD,
    difference_words,
    p_value,
    percent,
)
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "ProxyGML's three modules"
QUESTION = (
    "What do the positive mask S^pos, the mask softmax M and the proxies' own term L^p each do? "
    "The poster reports R@1 47.3 with none of them and 85.5 with all on Cars196, from which a "
    "collapse of the method without them follows. Is it the proxies, which are never chosen, the "
    "true class, which is missing, or the softmax? The controls below change one thing each."
)

FULL = "8: S^pos, M, L^p"
NONE = "1: none"
NO_POSITIVES = {"positives": "none"}
NO_MASK = {"mask": False}
NO_OWN_TERM = {"weight": 0.0}
ROWS: dict[str, dict] = {
    NONE: NO_POSITIVES | NO_MASK | NO_OWN_TERM,
    "2: S^pos": NO_MASK | NO_OWN_TERM,
    "3: M": NO_POSITIVES | NO_OWN_TERM,
    "4: L^p": NO_POSITIVES | NO_MASK,
    "5: M, L^p": NO_POSITIVES,
    "6: S^pos, L^p": NO_MASK,
    "7: S^pos, M": NO_OWN_TERM,
    FULL: {},
}
"""Row of the poster's table -> ProxyGML's options."""

CONTROLS: dict[str, dict] = {
    "1, all proxies chosen": ROWS[NONE] | {"ratio": 1.0},
    "1, softmax 4 times sharper": ROWS[NONE] | {"scale": 4.0},
    "8, softmax 4 times sharper": {"scale": 4.0},
}
"""Row 1 again, with one thing changed that its collapse could come from."""

PUBLISHED = {
    NONE: "52.1 / 47.3",
    "2: S^pos": "69.6 / 83.3",
    "3: M": "54.9 / 66.1",
    "4: L^p": "67.1 / 81.7",
    "5: M, L^p": "68.8 / 82.6",
    "6: S^pos, L^p": "71.6 / 84.5",
    "7: S^pos, M": "70.7 / 84.0",
    FULL: "72.4 / 85.5",
}
"""NMI and R@1 on Cars196, in per cent: the poster (BN-Inception, 512-D, full frames)."""

HEADS = {"NMI": "nmi", "R@1": "recall@1", "MAP@R": "map@r"}
GRAPH = {
    "own proxies chosen": "own_chosen",
    "true class missing": "class_missing",
    "proxies idle": "proxies_idle",
}
SHARED, OWN = "settings of the full method", "settings of its own"


def search(data: str = CUB, epochs: int = 0, tune: bool = True, start: str = WHITENED) -> Recipes:
    """The trials of every row."""
    found = controls.search(data, start) if tune else {}
    for name, options in ROWS.items():
        found |= trials(name, proxygml(data, epochs, options, start)) if tune else {}
    return found


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    start: str = WHITENED,
    searched: Rows | None = None,
) -> Recipes:
    """Every seed and row, under the settings of the full method; and, where these were searched,
    under its own."""
    shared = settings_of_full(data, epochs, searched, start, FULL)
    found: Recipes = {}
    for under in (SHARED, OWN) if searched else (SHARED,):
        found |= controls.recipes(data, start, searched, axes={"under": under})
    for seed in range(seeds):
        for name, options in (ROWS | CONTROLS).items():
            one = replace(proxygml(data, epochs, options, start), **shared)
            found[Case(name, seed, under=SHARED)] = replace(one, seed=seed)
        for name, options in ROWS.items() if searched else ():
            one = settle(proxygml(data, epochs, options, start), searched, name)
            found[Case(name, seed, under=OWN)] = replace(one, seed=seed)
    return found


def answer(rows: Rows) -> Answer:
    """The poster's table twice, the graph behind it, the controls, and what follows."""
    shared, own = where(rows, under=SHARED), where(rows, under=OWN)
    compared = [compare(shared, SHARED), *([compare(own, OWN)] if own else [])]
    tables = [comparison.standings(compared, "R@1 of every row of the ablation", f"{SPREAD}.")]
    tables += [table(shared, "Every row under the settings of the full method", ROWS)]
    tables += [table(own, "Every row under settings of its own", ROWS)] if own else []
    tables.append(graph(shared))
    tables += baselines.tables(shared, SHARED) + baselines.tables(own, OWN)
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(shared, own)),
        findings=(*findings(shared, own), *baselines.findings(own or shared)),
        tables=tuple(tables),
        figures=(comparison.picture(compared, "R@1 by row of the ablation"),),
        remarks=tuple(unsearched(rows)),
    )


def compare(rows: Rows, settings: str) -> Comparison:
    """The eight rows under one kind of settings."""
    recall = scores(rows, "recall@1")
    eight = {name: recall[name] for name in ROWS if name in recall}
    beside = controls.beside(recall)
    return Comparison("R@1", eight, beside, place=settings, spoken=f"under {settings}")


def table(rows: Rows, title: str, names: Iterable[str]) -> Table:
    """The eight rows, and whether each differs from the full method."""
    found = {head: scores(rows, metric) for head, metric in HEADS.items()}
    differ = against(FULL, controls.ranked(found["R@1"]))
    data = next((row.data for row in rows.values()), Data(""))
    return Table(
        title=f"{title}, {data.spoken}",
        columns=("row", *HEADS, "p", "published NMI / R@1, Cars196"),
        rows=tuple(
            (
                name,
                *(mean(found[head].get(name)) for head in HEADS),
                p_value(differ.get(name)),
                PUBLISHED.get(name, ""),
            )
            for name in (*controls.BESIDE, *names)
            if name in found["R@1"]
        ),
        percent=tuple(HEADS),
        best=tuple(HEADS),
        note=(
            f"Ours: {data.variant}. {SPREAD}. "
            "p: paired t-test of R@1 against row 8, Holm-corrected. Published: a fine-tuned "
            "BN-Inception on full frames."
        ),
    )


def graph(rows: Rows) -> Table:
    """What the k-NN graph of a training batch is like after training, and the controls' R@1."""
    names = [*ROWS, *CONTROLS]
    found = {head: final_monitor(rows, key) for head, key in GRAPH.items()}
    cosine = final_monitor(rows, "proxy_cosine")
    recall = scores(rows, "recall@1")
    return Table(
        title="The graph behind each row, and what mends row 1",
        columns=("row", "R@1", *GRAPH, "cosine of kin proxies"),
        rows=tuple(
            (
                name,
                mean(recall.get(name)),
                *(mean(found[head].get(name)) for head in GRAPH),
                average(cosine.get(name)),
            )
            for name in names
            if name in recall
        ),
        percent=("R@1", *GRAPH),
        best=("R@1",),
        note=(
            "Of one training batch, at the end of training: the share of the proxies of a sample's "
            "class that it is joined to; of samples joined to none of them; of proxies joined to "
            "no sample; and the mean cosine between two proxies of a class."
        ),
    )


def summary(shared: Rows, own: Rows) -> list[str]:
    """How deep row 1 falls, whether settings of its own lift it, and which rows keep up."""
    recall, tuned = (scores(rows, "recall@1") for rows in (shared, own))
    if FULL not in recall or NONE not in recall:
        return ["The rows with none and with all modules have not both finished."]
    full, none = mean(recall[FULL]), mean(recall[NONE])
    assert full
    assert none
    lines = [
        f"Without its three modules ProxyGML falls from {percent(full.mean)} R@1 to "
        f"{percent(none.mean)}."
        if none.mean < full.mean
        else f"Without its three modules ProxyGML has {percent(none.mean)} R@1, with them "
        f"{percent(full.mean)}."
    ]
    lone = mean(tuned.get(NONE))
    if lone and FULL in tuned:
        lines.append(f"Under settings of its own what is left has {percent(lone.mean)}.")
    best = tuned if FULL in tuned else recall
    differ = against(FULL, {name: best[name] for name in ROWS if name in best})
    if differ:
        lines.append(sentences.versus(differ, "all three together"))
    return lines


def findings(shared: Rows, own: Rows) -> list[Finding]:
    """How deep row 1 falls, whether tuning or a control lifts it, and what was never chosen."""
    recall, tuned = (scores(rows, "recall@1") for rows in (shared, own))
    if FULL not in recall or NONE not in recall:
        return []
    fall = paired(recall[FULL], recall[NONE])
    found = [
        Finding(
            f"All three modules together change R@1 by {difference_words(fall)} from row 1; the "
            "poster has +38.2 points on Cars196.",
            *sentences.strength([fall]),
        )
    ]
    eight = {name: recall[name] for name in ROWS if name in recall}
    found += sentences.differences_found(against(FULL, eight), "row 8", place=f"under the {SHARED}")
    if FULL in tuned:
        found += sentences.differences_found(
            against(FULL, controls.ranked(tuned)), "row 8", place=f"under {OWN}"
        )
    lifts = {
        name: paired(recall[name], recall[NONE])
        for name in CONTROLS
        if name in recall and name.startswith("1,")
    }
    parts = [
        f"{name}, {difference_words(lift)}{of_gap(lift.estimate.mean, fall.estimate.mean)}"
        for name, lift in lifts.items()
    ]
    if parts:
        text = f"With one thing changed, row 1 moves in R@1: {'; '.join(parts)}."
        found.append(Finding(text, *sentences.strength(lifts.values())))
    chosen = mean(final_monitor(shared, "own_chosen").get(NONE))
    missing = mean(final_monitor(shared, "class_missing").get(NONE))
    if chosen and missing:
        found.append(
            Finding(
                f"In row 1 a sample is joined to {interval_words(chosen)} of its own class's "
                f"proxies, and {interval_words(missing)} of the samples to none."
            )
        )
    return found


def of_gap(part: float, gap: float) -> str:
    """A lift as a share of the whole gap; nothing where there is no gap to close.

    >>> of_gap(-0.166, 0.234), of_gap(0.055, 0.234), of_gap(0.1, 0.0)
    (', −71 % of the gap', ', 24 % of the gap', '')
    """
    return f", {percent(part / gap, 0)} of the gap" if gap > 0 and part else ""


def interval_words(share: Estimate) -> str:
    """A share with its interval, or alone where seeds give none."""
    if share.points:
        return percent(share.mean, 0)
    return f"{percent(share.mean, 0)} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


DEMO = {"data": "mnist-5k", "seeds": 2, "epochs": 2, "tune": False}
STUDY = Study(TITLE, QUESTION, answer, recipes, search, demo=DEMO)
