"""The equal search: every method has as many trials, and validation classes judge them.

A trial is a run with every fifth training class held out; it also shows how many epochs are
enough. The runs that are reported then train on all training classes, for that many epochs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import product

from nearkin import losses
from nearkin.names import Plain
from nearkin.runs.recipe import Recipe
from nearkin.studies.study import Case, Recipes, Rows

RATES = (1e-4, 3e-4, 1e-3)
LOSS_RATES = (1e-3, 1e-2)
LONE_RATES = (3e-5, 1e-4, 2e-4, 4e-4, 1e-3, 3e-3)
"""Learning rates of the network, of a loss's own proxies, and of a network whose loss has none."""

SETTLED = ("lr", "loss_lr", "epochs")
"""What the search chooses."""


def learns(loss: str) -> bool:
    """Whether a loss has parameters, and so a learning rate, of its own.

    >>> learns("proxy-gml"), learns("triplet")
    (True, False)
    """
    return "rate" in losses.parameters(loss)


def trials(name: str, recipe: Recipe, folds: Iterable[int] = (0, 1), **axes: Plain) -> Recipes:
    """12 trials of a method: 6 settings, each judged by two folds of the training classes.

    One fold of 20 classes is not enough: its R@1 has a standard error of 0.7 points on CUB. The
    settings are 3 x 2 learning rates where the loss has one too, else 6. The fold is the seed.
    """
    rates = [(lr, 0.0) for lr in LONE_RATES]
    if learns(recipe.loss):
        rates = [(lr, loss_lr) for lr in RATES for loss_lr in LOSS_RATES]
    return {
        Case(name, fold, lr=lr, loss_lr=loss_lr, **axes): replace(
            recipe, lr=lr, loss_lr=loss_lr, validate=True, trial=True, seed=fold
        )
        for (lr, loss_lr), fold in product(rates, folds)
    }


def settle(
    recipe: Recipe, searched: Rows | None, names: str | Collection[str], **axes: Plain
) -> Recipe:
    """The recipe with the learning rates and epochs of the best trial of these methods, which have
    these axes; as it is without any.

    The best has the highest R@1 on the validation classes, in the mean over folds and methods. A
    setting under which a trial diverged is none.
    """
    names = {names} if isinstance(names, str) else names
    found: dict[tuple[float, float, int], list[float]] = {}
    for case, row in (searched or {}).items():
        for epoch in row.epochs if case.method in names and case.on(**axes) else ():
            if epoch.validation:
                setting = row.recipe.lr, row.recipe.loss_lr, epoch.epoch
                found.setdefault(setting, []).append(epoch.validation["recall@1"])
    if not found:
        return recipe
    most = max(map(len, found.values()))
    whole = {setting: sum(shares) for setting, shares in found.items() if len(shares) == most}
    lr, loss_lr, epochs = max(whole, key=whole.__getitem__)
    return replace(recipe, lr=lr, loss_lr=loss_lr, epochs=epochs)


def unsearched(rows: Rows) -> list[str]:
    """A finding that says so, where the settings of these rows were not chosen by trials."""
    recipes = [row.recipe for row in rows.values()]
    if not any(r.epochs and learns(r.loss) and not r.loss_lr for r in recipes):
        return []  # a trial gives every loss that learns a rate of its own
    return [
        "Settings were not searched here: all ran under one learning rate of the network and under "
        "what each paper asks for its proxies, so this ranks settings as much as methods."
    ]


def common(data: str, epochs: int = 0) -> Recipe:
    """What all methods of a table share: a linear head on features, else the Network builder's.

    Args:
        data: the data set; with "features:" the head is all that is trained.
        epochs: the most that a run may take; 0: 12 on features, 4 on pictures.
    """
    base = Recipe(data=data, sampler="classes", batch=128, per_class=4, evaluate_every=2)
    if data.startswith("features:"):
        return replace(base, backbone="linear", dim=128, epochs=epochs or 12)
    small = {"filters": "16,32", "units": "256"}  # a quarter of seed 2's network, so that many
    return replace(  # runs can be paid for
        base,
        backbone_options=small,
        size=28,
        augment="affine",
        dim=64,
        epochs=epochs or 4,
        precision="bf16",
    )
