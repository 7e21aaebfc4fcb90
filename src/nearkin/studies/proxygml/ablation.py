"""The seed's ablation of ProxyGML: its three modules, on and off; and what makes row 1 collapse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nearkin.answers import Answer, Bars, Table
from nearkin.measure.statistics import Estimate, estimate
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Data, Row
from nearkin.studies.shared.reading import Scores, against, last_said, mean, p_value, scores
from nearkin.studies.shared.sets import CUB, fitted, proxygml, settings_of_full
from nearkin.studies.shared.tuning import SETTLED, settle, trials, unsearched

TITLE = "ProxyGML's three modules"
QUESTION = (
    "What do the positive mask S^pos, the mask softmax M and the proxies' own term L^p each do? "
    "The seed reports R@1 47.3 with none of them and 85.5 with all on Cars196, from which a "
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
"""Row of the seed's table -> ProxyGML's options."""

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
"""NMI and R@1 on Cars196, in per cent: seed 1's poster (BN-Inception, 512-D, full frames)."""

HEADS = {"NMI": "nmi", "R@1": "recall@1", "MAP@R": "map@r"}
GRAPH = {
    "own proxies chosen": "own_chosen",
    "true class missing": "class_missing",
    "proxies idle": "proxies_idle",
}
DEMO = {"data": "mnist-5k", "seeds": 2, "epochs": 2, "tune": False}
"""The options of a short form that needs no data set."""


def search(data: str = CUB, epochs: int = 0, tune: bool = True) -> list[Recipe]:
    """The trials of every row."""
    rows = ROWS.values() if tune else ()
    return [trial for options in rows for trial in trials(proxygml(data, epochs, options))]


def recipes(
    data: str = CUB,
    seeds: int = 5,
    epochs: int = 0,
    tune: bool = True,
    searched: list[Row] | None = None,
) -> list[Recipe]:
    """Every seed and row, under the settings of the full method and under its own."""
    shared = settings_of_full(data, epochs, searched)
    everything = [proxygml(data, epochs, options) for options in (ROWS | CONTROLS).values()]
    chosen = [replace(r, **shared) for r in everything]
    chosen += [settle(r, searched or []) for r in everything[: len(ROWS)]]
    return [replace(r, seed=seed) for seed in range(seeds) for r in chosen]


def row_name(row: Row) -> str | None:
    """The name of a run's row, or control."""
    recipe, fit = row.recipe, fitted(row.recipe.data)
    named = (ROWS | CONTROLS).items()
    return next((name for name, o in named if recipe.loss_options == fit | o), None)


def settings(row: Row) -> tuple:
    """What the search chose for a run."""
    return tuple(getattr(row.recipe, name) for name in sorted(SETTLED))


def split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The rows under the settings of the full method; and those under their own, where these were
    searched and differ."""
    best = next((settings(row) for row in rows if row_name(row) == FULL), None)
    shared = [row for row in rows if settings(row) == best]
    apart = [row for row in rows if settings(row) != best]
    if not apart:
        return shared, []
    differ = {row_name(row) for row in apart}
    own = apart + [r for r in shared if row_name(r) in ROWS and row_name(r) not in differ]
    return shared, own


def answer(rows: list[Row]) -> Answer:
    """The seed's table twice, the graph behind it, the controls, and what follows."""
    shared, own = split(rows)
    tables = [table(shared, "Every row under the settings of the full method", ROWS)]
    tables += [table(own, "Every row under settings of its own", ROWS)] if own else []
    tables.append(graph(shared))
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=(*unsearched(rows), *findings(shared, own)),
        tables=tuple(tables),
        figures=(bars(shared, own),),
    )


def table(rows: list[Row], title: str, names: Iterable[str]) -> Table:
    """The eight rows, and whether each differs from the full method."""
    found = {head: scores(rows, row_name, metric) for head, metric in HEADS.items()}
    differ = against(FULL, found["R@1"])
    data = rows[0].data if rows else Data("")
    return Table(
        title=f"{title}, {data.name}",
        columns=("row", *HEADS, "p", "published NMI / R@1, Cars196"),
        rows=tuple(
            (
                name,
                *(mean(found[head].get(name)) for head in HEADS),
                p_value(differ.get(name)),
                PUBLISHED.get(name, ""),
            )
            for name in names
            if name in found["R@1"]
        ),
        percent=tuple(HEADS),
        best=tuple(HEADS),
        note=(
            f"Ours: {data.variant}. Mean ± half of the 95 % t-interval over seeds, last epoch. "
            "p: paired t-test of R@1 against row 8, Holm-corrected. Published: a fine-tuned "
            "BN-Inception on full frames."
        ),
    )


def graph(rows: list[Row]) -> Table:
    """What the k-NN graph of a training batch is like after training, and the controls' R@1."""
    names = [*ROWS, *CONTROLS]
    found = {head: last_said(rows, row_name, key) for head, key in GRAPH.items()}
    cosine = last_said(rows, row_name, "proxy_cosine")
    recall = scores(rows, row_name, "recall@1")
    return Table(
        title="The graph behind each row, and what mends row 1",
        columns=("row", "R@1", *GRAPH, "cosine of kin proxies"),
        rows=tuple(
            (
                name,
                mean(recall.get(name)),
                *(mean(found[head].get(name)) for head in GRAPH),
                mean(cosine.get(name)),
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


def bars(shared: list[Row], own: list[Row]) -> Bars:
    """R@1 of every row, under shared settings and, where there are any, under its own."""
    found = [scores(rows, row_name, "recall@1") for rows in (shared, own) if rows]
    names = [name for name in ROWS if name in found[0]]
    return Bars(
        title="R@1 by row of the ablation",
        y="R@1",
        groups=tuple(names),
        series=("settings of the full method", "settings of its own")[: len(found)],
        values=tuple(tuple(mean(f.get(name)) for f in found) for name in names),
        percent=True,
    )


def findings(shared: list[Row], own: list[Row]) -> list[str]:
    """How deep row 1 falls, whether tuning or a control lifts it, and what was never chosen."""
    recall = scores(shared, row_name, "recall@1")
    if FULL not in recall or NONE not in recall:
        return []
    fall = points(recall[FULL]) - points(recall[NONE])
    tuned = scores(own, row_name, "recall@1").get(NONE)
    said = [
        f"Row 1 has {points(recall[NONE]):.1f} % R@1, the full method {points(recall[FULL]):.1f} %:"
        f" {fall:.1f} points apart; the seed has 38.2 on Cars196."
    ]
    if tuned:
        said.append(f"Under settings of its own row 1 has {points(tuned):.1f} %.")
    for name in CONTROLS:
        if name in recall:
            back = (points(recall[name]) - points(recall[NONE])) / fall if fall > 0 else 0.0
            share = f", {100 * back:.0f} % of the gap" if name.startswith("1,") and back else ""
            said.append(f"{name}: {points(recall[name]):.1f} %{share}.")
    chosen = mean(last_said(shared, row_name, "own_chosen").get(NONE))
    missing = mean(last_said(shared, row_name, "class_missing").get(NONE))
    if chosen and missing:
        said.append(
            f"In row 1 a sample is joined to {percent(chosen)} of its own class's proxies, and "
            f"{percent(missing)} of the samples to none."
        )
    return said


def points(values: Scores) -> float:
    """The mean over seeds, in per cent."""
    return 100 * estimate(values.values()).mean


def percent(value: Estimate) -> str:
    """A mean in per cent."""
    return f"{100 * value.mean:.0f} %"
