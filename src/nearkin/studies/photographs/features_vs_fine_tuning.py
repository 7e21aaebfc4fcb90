"""Whether stored features, on which a method trains in seconds, tell how it will fine-tune."""

from __future__ import annotations

from dataclasses import replace

from nearkin.answers import Answer, Finding
from nearkin.measure.statistics import rank_correlation
from nearkin.runs.recipe import Recipe
from nearkin.studies.photographs import fine_tuning
from nearkin.studies.shared import baselines, comparison, controls, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import FEW, METHODS, under
from nearkin.studies.shared.reading import Scores, average, scores, where
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import WHITENED, common, settle, started, trials
from nearkin.studies.shared.words import SPREAD, correlation_words
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "Stored features against fine-tuning"
QUESTION = (
    "A head on stored features trains in seconds, a network in an hour. How well does the ranking "
    "of methods on features predict their ranking after fine-tuning?"
)


DIM = 512


def heads(features: str, methods: str, start: str) -> dict[str, Recipe]:
    """A linear head on features by every method, its settings not chosen yet."""
    base = replace(common(features, start=start), dim=DIM)
    return {name: started(one, start) for name, one in under(base, methods).items()}


def search(
    data: str = "cub",
    features: str = CUB,
    methods: str = FEW,
    epochs: int = 0,
    start: str = WHITENED,
) -> Recipes:
    """The trials of fine-tuning, and those of every method on features."""
    found = fine_tuning.search(data=data, epochs=epochs, methods=methods)
    found |= controls.search(features, start, DIM)
    for name, recipe in heads(features, methods, start).items():
        found |= trials(name, recipe, on="features")
    return found


def recipes(
    data: str = "cub",
    features: str = CUB,
    seeds: int = 2,
    methods: str = FEW,
    epochs: int = 0,
    start: str = WHITENED,
    searched: Rows | None = None,
) -> Recipes:
    """The runs of the study fine-tuning, and as many heads on features of the same pictures.

    Args:
        data: the data set that is fine-tuned on.
        features: its stored features (`nearkin embed`).
        seeds: how many, from 0.
        methods: names separated by commas, or all.
        epochs: the most that a fine-tuning may take.
        start: how heads on features start: whitened or orthogonal.
        searched: the rows of `search`.
    """
    found = fine_tuning.recipes(
        data=data, seeds=seeds, epochs=epochs, methods=methods, searched=searched
    )
    found |= controls.recipes(features, start, searched, DIM, {"on": "features"})
    for name, recipe in heads(features, methods, start).items():
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


def answer(rows: Rows) -> Answer:
    """Both rankings side by side, and their correlation."""
    on_features, tuned = halves(rows)
    beside = controls.beside(scores(where(rows, on="features"), "recall@1"))
    variants = {f"{row.data.spoken}: {row.data.variant}" for row in rows.values()}
    compared = [
        Comparison("R@1", on_features, beside, "features", "on features"),
        Comparison("R@1", tuned, place="fine-tuned", spoken="after fine-tuning"),
    ]
    about = "; ".join(sorted(variants))
    title = "R@1 on stored features and after fine-tuning"
    means = [
        {name: e.mean for name, values in half.items() if (e := average(values))}
        for half in (on_features, tuned)
    ]
    rank = rank_correlation(*means)
    found, summary = [], []
    if rank:
        found.append(
            Finding(
                f"Over {rank.n} methods, R@1 on features and R@1 after fine-tuning have a rank "
                f"correlation of {correlation_words(rank)}."
            )
        )
        knows = "tells" if rank.low > 0 else "does not tell"
        summary.append(
            f"The order of {rank.n} methods on stored features {knows} how they stand after "
            "fine-tuning."
        )
    if tuned:
        summary += [sentences.lead(one) for one in compared]
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary),
        findings=(
            *found,
            *(f for one in compared for f in sentences.findings(one)),
            *baselines.findings(where(rows, on="features"), "on features"),
        ),
        tables=(
            comparison.standings(compared, title, f"{about}. {SPREAD}."),
            *baselines.tables(where(rows, on="features"), "on features"),
        ),
        figures=(comparison.picture(compared, title),),
    )


STUDY = Study(TITLE, QUESTION, answer, recipes, search)
