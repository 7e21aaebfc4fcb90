"""Training the last stages of a network from stored feature maps, beside heads and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nearkin.answers import Answer, Finding, Table
from nearkin.measure.statistics import rank_correlation
from nearkin.runs.recipe import Recipe
from nearkin.studies.photographs import features_vs_fine_tuning as versus
from nearkin.studies.photographs import fine_tuning
from nearkin.studies.shared import comparison, controls, over_forms, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import CLOSED, UNTRAINED, under
from nearkin.studies.shared.reading import Scores, average, scores
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import ORTHOGONAL, settle
from nearkin.studies.shared.words import SPREAD, correlation_words
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "Training the tail of a network"
QUESTION = (
    "Feature maps before the last stages of a network are computed once, and the rest learns from "
    "them in minutes on a CPU. Which method learns the best metric so, and does the order of "
    "methods on stored features, or after fine-tuning a whole network on smaller pictures, tell "
    "it? All methods have the same network, crops, batches, learning rates and most epochs; how "
    "many of these they take is chosen on validation classes."
)
FIVE = "cross-entropy,multi-similarity,proxy-anchor,ProxyGML,intra-batch dot-product"
EPOCHS = 6
SHRINKAGES = (0.3, 1.0, 3.0)
"""Of the closed forms, tried on validation classes."""
ALONE = "these numbers are to be compared with each other alone"
SIDE = 128
"""Short side in pixels of the pictures of the data sets at hand; what is larger was enlarged."""


def base(data: str, epochs: int, tail: int, crops: int, size: int) -> Recipe:
    """What all methods share: the settings of fine-tuning, and which maps are stored."""
    common = fine_tuning.photographs(data, epochs or EPOCHS, size)
    return replace(common, tail=tail, tail_crops=crops)


def forms(shared: Recipe) -> dict[str, Recipe]:
    """The closed forms of the head on the features of the network as it is."""
    return {name: replace(shared, **change, head_power=0.5) for name, change in CLOSED.items()}


def search(
    data: str = "cub",
    features: str = CUB,
    methods: str = FIVE,
    epochs: int = 0,
    tail: int = 1,
    crops: int = 2,
    size: int = 224,
    start: str = ORTHOGONAL,
) -> Recipes:
    """One trial of every method, which shows how many epochs are enough; a few shrinkages of every
    closed form; and the trials of the heads and of fine-tuning that stand beside."""
    shared = base(data, epochs, tail, crops, size)
    found = {
        Case(name, tail=tail): replace(recipe, validate=True, trial=True)
        for name, recipe in under(shared, methods).items()
    }
    for name, recipe in forms(shared).items():
        for shrinkage in SHRINKAGES:
            tried = replace(recipe, head_shrinkage=shrinkage, validate=True, trial=True)
            found[Case(name, tail=tail, shrinkage=shrinkage)] = tried
    return found | versus.search(data, features, methods, start=start)


def recipes(
    data: str = "cub",
    features: str = CUB,
    seeds: int = 3,
    methods: str = FIVE,
    epochs: int = 0,
    tail: int = 1,
    crops: int = 2,
    size: int = 224,
    start: str = ORTHOGONAL,
    searched: Rows | None = None,
) -> Recipes:
    """No training, the closed forms, every method and seed; and the study of heads and fine-tuning.

    Args:
        data: the data set whose pictures are trained on.
        features: its stored features (`nearkin embed`).
        seeds: how many, from 0, of the tail.
        methods: names separated by commas, or all.
        epochs: the most that a run may take; by default 6.
        tail: stages that learn.
        crops: stored crops of each training picture.
        size: side of the pictures.
        start: how heads on features start: orthogonal, or whitened.
        searched: the rows of `search`.
    """
    shared = base(data, epochs, tail, crops, size)
    runs = {Case(UNTRAINED, tail=tail): fine_tuning.untrained(shared)}
    for name, recipe in forms(shared).items():
        runs[Case(name, tail=tail)] = settle(recipe, searched, name, tail=tail)
    for name, recipe in under(shared, methods).items():
        settled = settle(recipe, searched, name, tail=tail)
        for seed in range(seeds):
            runs[Case(name, seed, tail=tail)] = replace(settled, seed=seed)
    beside = {"methods": methods, "start": start, "searched": searched}
    return runs | versus.recipes(data, features, **beside)


def answer(rows: Rows) -> Answer:
    """Who leads, what training adds to the closed forms, and which order tells this one."""
    own = {case: row for case, row in rows.items() if "tail" in case}
    recall = scores(own, "recall@1")
    trained = controls.ranked(recall)
    compared = Comparison("R@1", trained, controls.beside(recall), "tail", "with its tail trained")
    others: dict[str, dict[str, Scores]] = dict(
        zip(OTHERS, versus.halves(without(rows, own)), strict=True)
    )
    title = "R@1 after training the last stages"
    note = f"{told(own)} {SPREAD}."
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=sentences.summary([compared]),
        findings=(
            *sentences.findings(compared),
            *over_forms.findings(own),
            *correlations(trained, others),
        ),
        tables=(
            comparison.standings([compared], title, note),
            *over_forms.tables(own),
            *orders(trained, others),
        ),
        figures=(comparison.picture([compared], title, note),),
    )


OTHERS = ("heads on stored features", "the whole network fine-tuned")


def without(rows: Rows, own: Rows) -> Rows:
    """The rows of the other studies."""
    return {case: row for case, row in rows.items() if case not in own}


def told(rows: Rows) -> str:
    """What the pictures were, and what of the network learnt."""
    sizes = sorted({row.recipe.size for row in rows.values()})
    variants = sorted({f"{row.data.spoken} ({row.data.variant})" for row in rows.values()})
    larger = any(size > SIDE for size in sizes)
    said = (
        f"Pictures of {', '.join(variants)} were {'enlarged' if larger else 'brought'} to "
        f"{', '.join(map(str, sizes))} px: {ALONE}."
    )
    stages = sorted({row.recipe.tail for row in rows.values()})
    crops = sorted({row.recipe.tail_crops for row in rows.values()})
    return (
        f"{said} Stages that learnt: {', '.join(map(str, stages))}, from "
        f"{', '.join(map(str, crops))} stored crops of each picture."
    )


def means(found: Mapping[str, Scores]) -> dict[str, float]:
    """Method -> its mean over seeds."""
    return {name: e.mean for name, values in found.items() if (e := average(values))}


def correlations(
    trained: Mapping[str, Scores], others: Mapping[str, Mapping[str, Scores]]
) -> list[Finding]:
    """How well each other order of the methods tells the one found here."""
    found = []
    for name, half in others.items():
        both = {method: value for method, value in means(trained).items() if method in half}
        rank = rank_correlation({m: v for m, v in means(half).items() if m in both}, both)
        if rank:
            found.append(
                Finding(
                    f"Over {rank.n} methods, the R@1 found here and that of {name} have a rank "
                    f"correlation of {correlation_words(rank)}."
                )
            )
    return found


def orders(
    trained: Mapping[str, Scores], others: Mapping[str, Mapping[str, Scores]]
) -> tuple[Table, ...]:
    """The places of the methods by their means, here and elsewhere; shares of other pictures are
    not put side by side."""
    columns = {"tail": means(trained)}
    columns |= {name: means(half) for name, half in others.items() if half}
    if len(columns) < 2 or not trained:
        return ()
    places = {
        head: {m: 1 + sum(other > value for other in found.values()) for m, value in found.items()}
        for head, found in columns.items()
    }
    return (
        Table(
            title="The order of the methods",
            columns=("method", *places),
            rows=tuple(
                (name, *(place.get(name) for place in places.values()))
                for name in sorted(places["tail"], key=places["tail"].__getitem__)
            ),
            note="Places by mean R@1, each among the methods of its own column.",
        ),
    )


STUDY = Study(TITLE, QUESTION, answer, recipes, search)
