"""Whether stored features, on which a method trains in seconds, tell how it will fine-tune."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from nearkin.answers import Answer, Bars, Table
from nearkin.measure.statistics import Estimate
from nearkin.runs.recipe import Recipe
from nearkin.studies.photographs import fine_tuning
from nearkin.studies.shared.methods import FEW, METHODS, under
from nearkin.studies.shared.reading import Scores, mean, scores, where
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import common, settle, trials
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "Stored features against fine-tuning"
QUESTION = (
    "A head on stored features trains in seconds, a network in an hour. How well does the ranking "
    "of methods on features predict their ranking after fine-tuning?"
)


def heads(features: str, methods: str) -> dict[str, Recipe]:
    """A linear head on features by every method, its settings not chosen yet."""
    return under(replace(common(features), dim=512), methods)


def search(data: str = "cub", features: str = CUB, methods: str = FEW, epochs: int = 0) -> Recipes:
    """The trials of fine-tuning, and those of every method on features."""
    found = fine_tuning.search(data=data, epochs=epochs, methods=methods)
    for name, recipe in heads(features, methods).items():
        found |= trials(name, recipe, on="features")
    return found


def recipes(
    data: str = "cub",
    features: str = CUB,
    seeds: int = 2,
    methods: str = FEW,
    epochs: int = 0,
    searched: Rows | None = None,
) -> Recipes:
    """The runs of the study fine-tuning, and as many heads on features of the same pictures.

    Args:
        data: the data set that is fine-tuned on.
        features: its stored features (`nearkin embed`).
        seeds: how many, from 0.
        methods: names separated by commas, or all.
        epochs: the most that a fine-tuning may take.
        searched: the rows of `search`.
    """
    found = fine_tuning.recipes(
        data=data, seeds=seeds, epochs=epochs, methods=methods, searched=searched
    )
    for name, recipe in heads(features, methods).items():
        settled = settle(recipe, searched, name, on="features")
        for seed in range(seeds):
            found[Case(name, seed, on="features")] = replace(settled, seed=seed)
    return found


def halves(rows: Rows) -> tuple[dict[str, Scores], dict[str, Scores]]:
    """R@1 on features and fine-tuned: method -> seed -> share, of the methods that have both."""
    on_features = scores(where(rows, on="features"), "recall@1")
    after = scores({case: row for case, row in rows.items() if "data" in case}, "recall@1")
    both = [name for name in METHODS if name in on_features and name in after]
    return {n: on_features[n] for n in both}, {n: after[n] for n in both}


def rank_correlation(a: dict[str, Scores], b: dict[str, Scores]) -> Estimate | None:
    """Spearman's rank correlation of the methods' means, with its 95 % interval.

        tanh(artanh(r) ± 1.96 √((1 + r²/2) / (n - 3)))    over n methods

    A perfect order of few methods does not prove one of all: its interval is that of an r half a
    swap of neighbours from it. None with fewer than four methods.
    Source: Bonett & Wright, Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations, Psychometrika 2000.
    """
    n = len(a)
    if n < 4:
        return None
    x, y = ([np.mean(list(values[name].values())) for name in a] for values in (a, b))
    r = float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    most = 1 - 6 / (n * (n * n - 1))
    near = min(max(r, -most), most)
    half = 1.96 * np.sqrt((1 + near**2 / 2) / (n - 3))
    low, high = np.tanh([np.arctanh(near) - half, np.arctanh(near) + half])
    return Estimate(r, min(r, float(low)), max(r, float(high)), n)


def answer(rows: Rows) -> Answer:
    """Both rankings side by side, and their correlation."""
    on_features, tuned = halves(rows)
    variants = {f"{row.data.name}: {row.data.variant}" for row in rows.values()}
    rank = rank_correlation(on_features, tuned)
    findings = []
    if rank:
        findings.append(
            f"Over {rank.n} methods the rank correlation is {rank.mean:.2f} (95 % interval "
            f"{rank.low:.2f} to {rank.high:.2f})."
        )
    series = {"on features": on_features, "fine-tuned": tuned}
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(findings),
        tables=(
            Table(
                title="R@1 on stored features and after fine-tuning",
                columns=("method", *series),
                rows=tuple((n, *(mean(v[n]) for v in series.values())) for n in on_features),
                percent=tuple(series),
                best=tuple(series),
                note="; ".join(sorted(variants)),
            ),
        ),
        figures=(
            Bars(
                title="R@1 on stored features and after fine-tuning",
                y="R@1",
                groups=tuple(on_features),
                series=tuple(series),
                values=tuple(tuple(mean(v[n]) for v in series.values()) for n in on_features),
                percent=True,
            ),
        ),
    )


STUDY = Study(TITLE, QUESTION, answer, recipes, search)
