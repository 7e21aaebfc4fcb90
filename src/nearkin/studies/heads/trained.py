"""Linear heads that start as a closed form, trained by the losses: is any better than its start?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nearkin.answers import Answer, Dots, Table
from nearkin.measure.statistics import estimate
from nearkin.names import look_up
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.heads import closed_forms
from nearkin.studies.heads.closed_forms import ALL, HEADS, by_dimension
from nearkin.studies.shared.methods import BARE, UNTRAINED, options, sizes
from nearkin.studies.shared.over_classes import over_classes
from nearkin.studies.shared.over_forms import findings, over_forms, sentence
from nearkin.studies.shared.reading import mean, scores, where
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import STARTS, WHITENED, common, settle, started, trials
from nearkin.studies.shared.words import p_cell
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "Heads that start as closed forms"
QUESTION = (
    "Does any loss make a linear head on stored features surely better than the closed forms, when "
    "it starts as one of them? Every loss tries 24 settings at every dimension (3 starts, 2 "
    "learning rates, 4 ways to hold the head near its start), and 3 numbers of steps; every closed "
    "form tries 24 powers and shrinkages. All learn from one half of the training classes, and are "
    "judged by the other."
)

FORMS = ("PCA-whitened", "within-class whitened", "LDA", "half KISSME")
LOSSES: dict[str, dict[str, Any]] = {
    "cross-entropy": {"loss": "cross-entropy"},
    "normalised cross-entropy": {"loss": "normalised-cross-entropy"},
    "multi-similarity": {"loss": "multi-similarity"},
    "margin": {"loss": "margin"},
    "Fisher NCA": {"loss": "fisher-nca", "metric": "cosine"},
    "ProxyGML": {"loss": "proxy-gml"},
    "proxy-anchor": {"loss": "proxy-anchor"},
    "proxy-anchor, random proxies": {"loss": "proxy-anchor", "loss_start": "random"},
    "ProxyGML, random proxies": {"loss": "proxy-gml", "loss_start": "random"},
}
"""Name in the tables -> what differs from the common recipe. Proxies and classifiers start at the
means of their classes, unless it is said otherwise."""

DIMS = "64,512"


def heads(data: str, dims: str, names: str, epochs: int) -> dict[tuple[str, int], Recipe]:
    """(name, dimension) -> recipe of a trained head, its settings not chosen yet."""
    wanted = list(LOSSES) if names == "all" else names.split(",")
    base, found = common(data, epochs, WHITENED), {}
    for name in wanted:
        change = look_up(name, LOSSES, "method")
        one = replace(base, **{"loss_options": options(change, data), **change})
        one = replace(started(one, WHITENED), **change)
        found |= {(name, dim): replace(one, dim=dim) for dim in sizes(dims)}
    return found


def forms(data: str, dims: str) -> dict[tuple[str, int], Recipe]:
    """(name, dimension) -> recipe of a closed form, its settings not chosen yet."""
    found = closed_forms.forms(data, dims, ",".join(FORMS))
    return {key: recipe for key, recipe in found.items() if key[1] != ALL}


def search(data: str = CUB, dims: str = DIMS, methods: str = "all", epochs: int = 0) -> Recipes:
    """The trials of the closed forms, and of every loss at every dimension."""
    found = closed_forms.search(data, dims, ",".join(FORMS))
    found = {case: recipe for case, recipe in found.items() if case["dim"] != ALL}
    for (name, dim), recipe in heads(data, dims, methods, epochs).items():
        found |= trials(name, recipe, dim=dim)
    return found


def recipes(
    data: str = CUB,
    seeds: int = 5,
    dims: str = DIMS,
    methods: str = "all",
    epochs: int = 0,
    searched: Rows | None = None,
) -> Recipes:
    """Every closed form once, and every loss by several seeds, under the settings that the trials
    chose, on all training classes.

    Args:
        data: the data set, of features.
        seeds: of every loss.
        dims: embedding dimensions, separated by commas.
        methods: names separated by commas, or all.
        epochs: the most that a head may train; 0 takes 6.
        searched: the rows of `search`.
    """
    found = {Case(UNTRAINED, dim=ALL): replace(common(data), **BARE)}
    for (name, dim), recipe in forms(data, dims).items():
        found[Case(name, dim=dim)] = settle(recipe, searched, name, by="map@r", dim=dim)
    for (name, dim), recipe in heads(data, dims, methods, epochs).items():
        best = settle(recipe, searched, name, dim=dim)
        found |= {Case(name, s, dim=dim): replace(best, seed=s) for s in range(seeds)}
    return found


def answer(rows: Rows) -> Answer:
    """A table for each dimension, and whether any loss surely improves on the closed forms."""
    dims = sorted({case["dim"] for case in rows} - {ALL})
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(
            filter(None, (sentence(where(rows, dim=d), f"at {d}-D", FORMS) for d in dims[:3]))
        ),
        findings=tuple(
            line for dim in dims for line in findings(where(rows, dim=dim), f"at {dim}-D", FORMS)
        ),
        tables=tuple(table(rows, dim) for dim in dims),
        figures=(dots(rows, dims),),
    )


def table(rows: Rows, dim: int) -> Table:
    """The inputs as they are, the closed forms, and every loss beside the best of these."""
    at, whole = where(rows, dim=dim), where(rows, dim=ALL)
    data = next(iter(rows.values())).data
    found = {head: scores(at, metric) for head, metric in HEADS.items()}
    gain = over_forms(at, "recall@1", FORMS)

    def fixed(name: str, row: Row, label: str) -> tuple:
        shrinkage = row.recipe.head_shrinkage if name in FORMS else None
        values = (over_classes(row, metric) for metric in HEADS.values())
        return label, *values, None, "", row.recipe.head_power, shrinkage, "", ""

    def of_loss(name: str) -> tuple:
        recipe = next(iter(where(at, method=name).values())).recipe
        over = estimate([100 * gain.size(name)]) if gain and name in gain.gains else None
        shown = p_cell(gain.p[name]) if gain and name in gain.p else ""
        values = (mean(found[head].get(name)) for head in HEADS)
        start = next((k for k, v in STARTS.items() if begins(recipe, v)), recipe.head_start)
        settings = recipe.head_power, recipe.head_shrinkage, start, training(recipe)
        return name, *values, over, shown, *settings

    return Table(
        title=f"{dim}-D embeddings, {data.spoken}",
        columns=("head", *HEADS, "points", "p", "power", "shrinkage", "start", "training"),
        rows=(
            *(fixed(c.method, row, f"{c.method}, all dimensions") for c, row in whole.items()),
            *(fixed(c.method, row, c.method) for c, row in at.items() if c.method in FORMS),
            *(of_loss(name) for name in LOSSES if name in found["R@1"]),
        ),
        percent=tuple(HEADS),
        best=tuple(HEADS),
        note=(
            f"{data.variant}. Closed forms: mean ± half of the 95 % interval over "
            f"{data.test_classes} test classes. Losses: mean ± half of the 95 % t-interval over "
            "seeds. Points: R@1 less that of the closed form which is highest in this table, and p "
            "of that difference: the larger of a t-test over seeds and of a bootstrap paired over "
            "test classes, Holm-corrected."
        ),
    )


def begins(recipe: Recipe, start: Mapping[str, Any]) -> bool:
    """Whether this is the recipe's start."""
    shrinkage = start.get("head_shrinkage", 1.0)
    asked = start["head_start"], shrinkage, dict(start.get("head_options", {}))
    return asked == (recipe.head_start, recipe.head_shrinkage, dict(recipe.head_options))


def training(recipe: Recipe) -> str:
    """How long, how fast, and held by what.

    >>> training(Recipe(epochs=4, lr=3e-4, head_dropout=0.5))
    '4 epochs at 0.0003, dropout 0.5'
    """
    held = [
        f"{word} {value:g}"
        for word, value in (
            ("dropout", recipe.head_dropout),
            ("decay", recipe.start_decay),
            ("average", recipe.average),
        )
        if value
    ]
    return ", ".join([f"{recipe.epochs} epochs at {recipe.lr:g}", *held])


def dots(rows: Rows, dims: list[int]) -> Dots:
    """R@1 of closed forms and losses, by dimension."""
    names = [name for name in (*FORMS, *LOSSES) if where(rows, method=name)]

    def share(name: str, dim: int) -> Any:
        there = where(rows, method=name, dim=dim)
        if name in FORMS:
            return next((over_classes(row, "recall@1") for row in there.values()), None)
        return mean(scores(there, "recall@1").get(name))

    return by_dimension("R@1 by head and dimension", names, dims, share)


STUDY = Study(TITLE, QUESTION, answer, recipes, search)
