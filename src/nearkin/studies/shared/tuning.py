"""The equal search: every method has as many trials, and validation classes judge them.

A trial is a run with every fifth training class held out; it also shows how many epochs are
enough. The runs that are reported then train on all training classes, for that many epochs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

from nearkin import losses
from nearkin.names import Plain, look_up, parameters_of
from nearkin.registry import FORMS
from nearkin.runs.build import MEANS
from nearkin.runs.head_start import ORTHOGONAL
from nearkin.runs.recipe import Recipe
from nearkin.studies.study import Case, Recipes, Rows

RATES = (1e-4, 3e-4, 1e-3)
LOSS_RATES = (1e-3, 1e-2)
LONE_RATES = (3e-5, 1e-4, 2e-4, 4e-4, 1e-3, 3e-3)
"""Learning rates of the network, of a loss's own proxies, and of a network whose loss has none."""

OPTIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "clustering": ("gamma", (1.0, 16.0)),
    "hdc": ("factor", (1.0, 10.0)),
}
"""The option of a loss that is tried in place of a learning rate of its own.

Clustering's gamma is 1 in its paper's code, and an eighth of a batch of 128, since its energy grows
with the batch. HDC's factor is 10 in its newer code, made for batches of 10 x 10, and 1 in the
older: with 32 x 4 there are 41 pairs of others to one of kin.
"""

STARTS: dict[str, dict[str, Any]] = {
    "whitened, 0.3": {"head_start": "whitened", "head_shrinkage": 0.3},
    "whitened, 1": {"head_start": "whitened", "head_shrinkage": 1.0},
    "half KISSME": {"head_start": "kissme", "head_options": {"contrast": 0.5}},
}
"""Closed forms that a head may start as, by the name of their axis; all after a square root."""
STARTED_RATES = (1e-4, 3e-4)
"""Learning rates of a head that starts as a closed form: at 1e-3 it leaves its start behind."""

HOLDS: dict[str, dict[str, float]] = {
    "free": {},
    "dropout": {"head_dropout": 0.5},
    "decay": {"start_decay": 100.0},
    "average": {"average": 0.99},
}
"""What holds a head that starts as a closed form near its start, by the name of its axis."""
POWERS = (0.3, 0.5, 0.7, 1.0)
SHRINKAGES = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
"""Of closed forms; one without shrinkage tries as many powers instead."""

HALVES = 2
"""Every second class validates: among as many classes as the test has, and with as few to learn
from as there can be. On CUB's and Cars's features, settings of closed forms that two folds of a
fifth chose were up to 3 points below others on new classes (LOG.md)."""

SETTLED = ("head_start", "head_options", "head_power", "head_shrinkage", "lr", "loss_lr")
SETTLED += ("head_dropout", "start_decay", "average", "epochs")
"""What the search chooses."""

WHITENED = "whitened"
HEADS = {WHITENED: True, ORTHOGONAL: False}
"""How a study lets linear heads on stored features start: as a closed form of those in STARTS, held
near it by one of HOLDS, with proxies at the means of their classes; or orthogonal, on raw features,
as all did before 2026-11-30. What is trained on pictures starts as ever."""


def whitens(data: str, start: str) -> bool:
    """Whether heads on this data set start as closed forms, where a study is asked for this start.

    >>> whitens("features:cub.npz", "whitened"), whitens("cub", "whitened")
    (True, False)
    """
    return look_up(start, HEADS, "start") and data.startswith("features:")


def started(recipe: Recipe, start: str) -> Recipe:
    """The recipe of a trained head with this start, its settings not chosen yet."""
    if not whitens(recipe.data, start):
        return recipe
    recipe = replace(recipe, head_start=WHITENED, head_power=0.5)
    return replace(recipe, loss_start=MEANS) if has_means(recipe) else recipe


@cache
def has_means(recipe: Recipe) -> bool:
    """Whether its loss has proxies or a classifier that can start at the means of classes."""
    loss = losses.make(recipe.loss, recipe.loss_options, classes=100, dim=recipe.dim, features=1)
    return hasattr(loss, "start_at")


def learns(loss: str) -> bool:
    """Whether a loss has parameters, and so a learning rate, of its own.

    >>> learns("proxy-gml"), learns("triplet")
    (True, False)
    """
    return "rate" in losses.parameters(loss)


def trials(
    name: str, recipe: Recipe, folds: Iterable[int] = (0, 1), every: int = 0, **axes: Plain
) -> Recipes:
    """The trials of a method: its settings, each judged by two folds of the training classes.

    One fold of 20 classes is not enough: its R@1 has a standard error of 0.7 points on CUB. The
    fold is the seed.

    every: one class in so many validates; 0: every second where the head starts as a closed form,
        else every fifth.
    """
    every = every or (5 if recipe.head_start == ORTHOGONAL else HALVES)
    return {
        Case(name, fold, **setting, **axes): replace(
            recipe, **fields, validate=True, validate_every=every, trial=True, seed=fold
        )
        for (setting, fields), fold in product(settings(recipe), folds)
    }


def settings(recipe: Recipe) -> list[tuple[dict[str, Plain], dict[str, Any]]]:
    """The settings that a method tries, each by its name on the axes of a case and as fields.

    What is not trained: 24 powers and shrinkages of its closed form. A head that starts as one: 24
    of 3 such starts, 2 learning rates and 4 ways to hold it near its start; where the loss has an
    option to be tried, 2 of these ways and 2 values of it. Any other: 6 learning rates, 3 x 2 where
    the loss has one too, or an option to be tried.
    """
    if not (recipe.epochs or recipe.steps):
        return [
            ({"power": f["head_power"], "shrinkage": f.get("head_shrinkage", 0.0)}, f)
            for f in closed_settings(recipe.head_start)
        ]
    if recipe.head_start != ORTHOGONAL:
        return started_settings(recipe)
    rates = [{"lr": lr, "loss_lr": 0.0} for lr in LONE_RATES]
    if learns(recipe.loss):
        rates = [{"lr": lr, "loss_lr": loss_lr} for lr in RATES for loss_lr in LOSS_RATES]
    tried: list[tuple[dict[str, Plain], dict[str, Any]]] = [(dict(rate), rate) for rate in rates]
    if recipe.loss in OPTIONS:
        option, values = OPTIONS[recipe.loss]
        tried = [
            (
                {"lr": lr, option: value},
                {"lr": lr, "loss_options": {**recipe.loss_options, option: value}},
            )
            for lr, value in product(RATES, values)
        ]
    return tried


def started_settings(recipe: Recipe) -> list[tuple[dict[str, Plain], dict[str, Any]]]:
    """The settings of a head that starts as a closed form.

    >>> base = Recipe(head_start="whitened")
    >>> [len(started_settings(replace(base, loss=loss))) for loss in ("triplet", "clustering")]
    [24, 24]
    """
    option, values = OPTIONS.get(recipe.loss, ("", (0.0,)))
    holds = list(HOLDS)[: 2 if option else None]
    found: list[tuple[dict[str, Plain], dict[str, Any]]] = []
    for start, lr, hold, value in product(STARTS, STARTED_RATES, holds, values):
        name: dict[str, Plain] = {"lr": lr, "start": start, "hold": hold}
        fields = {"lr": lr, **STARTS[start], **HOLDS[hold]}
        if option:
            name[option] = value
            fields["loss_options"] = {**recipe.loss_options, option: value}
        found.append((name, fields))
    return found


def closed_settings(form: str) -> list[dict[str, float]]:
    """24 powers and shrinkages of a closed form; of one without shrinkage, 24 powers.

    >>> len(closed_settings("lda")), len(closed_settings("pca"))
    (24, 24)
    """
    if form in FORMS and "shrinkage" in parameters_of(look_up(form, FORMS, "closed form")):
        return [
            {"head_power": power, "head_shrinkage": shrinkage}
            for power, shrinkage in product(POWERS, SHRINKAGES)
        ]
    count = len(POWERS) * len(SHRINKAGES)
    return [{"head_power": (place + 1) / count} for place in range(count)]


def settle(
    recipe: Recipe,
    searched: Rows | None,
    names: str | Collection[str],
    by: str = "recall@1",
    **axes: Plain,
) -> Recipe:
    """The recipe with the learning rates and epochs of the best trial of these methods, which have
    these axes; as it is without any.

    The best has the highest R@1 on the validation classes, in the mean over folds and methods. A
    setting under which a trial diverged is none.

    by: another metric, of those that a trial's last epoch has, which then is the only one to choose
        from. "map@r" looks at all kin of a query, and so has less luck in it than R@1.
    """
    names = {names} if isinstance(names, str) else names
    found: dict[tuple, list[float]] = {}
    for case, row in (searched or {}).items():
        for epoch in row.epochs if case.method in names and case.on(**axes) else ():
            if epoch.validation and by in epoch.validation:
                tried = replace(row.recipe, epochs=epoch.epoch)
                setting = tuple(getattr(tried, field) for field in SETTLED)
                setting += tuple(
                    (o, tried.loss_options[o]) for o in OPTIONS.get(tried.loss, ())[:1]
                )
                found.setdefault(setting, []).append(epoch.validation[by])
    if not found:
        return recipe
    most = max(map(len, found.values()))
    whole = {setting: sum(shares) for setting, shares in found.items() if len(shares) == most}
    best = max(whole, key=whole.__getitem__)
    settled, options = best[: len(SETTLED)], dict(best[len(SETTLED) :])
    changed = {"loss_options": {**recipe.loss_options, **options}} if options else {}
    return replace(recipe, **dict(zip(SETTLED, settled, strict=True)), **changed)


def unsearched(rows: Rows) -> list[str]:
    """The finding that settings were not searched, where these rows show none chosen by trials."""
    recipes = [row.recipe for row in rows.values()]
    fixed = [r for r in recipes if r.epochs and learns(r.loss) and not r.loss_lr]
    if all(r.head_start != ORTHOGONAL and r.lr in STARTED_RATES for r in fixed):
        return []  # other trials give every loss that learns a rate of its own
    return [
        "Settings were not searched here: all ran under one learning rate of the network and under "
        "what each paper asks for its proxies, so this ranks settings as much as methods."
    ]


def common(data: str, epochs: int = 0, start: str = ORTHOGONAL) -> Recipe:
    """What all methods of a table share: a linear head on features, else the Network builder's.

    Args:
        data: the data set; with "features:" the head is all that is trained.
        epochs: the most that a run may take; 0: 12 on features, 6 of heads that start as closed
            forms, and 4 on pictures.
        start: how heads on features are to start; `started` lets them.
    """
    base = Recipe(data=data, sampler="classes", batch=128, per_class=4, evaluate_every=2)
    if data.startswith("features:"):
        return replace(
            base, backbone="linear", dim=128, epochs=epochs or (6 if whitens(data, start) else 12)
        )
    # a quarter of the n-tuple report's network, so that many runs can be paid for
    small = {"filters": "16,32", "units": "256"}
    return replace(
        base,
        backbone_options=small,
        size=28,
        augment="affine",
        dim=64,
        epochs=epochs or 4,
        precision="bf16",
    )
