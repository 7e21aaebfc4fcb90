"""What `nearkin train` does with a pretrained network where a person does not say otherwise.

A recipe's own defaults are those of a small network from scratch, and never change, since stored
rows are found by them. What is chosen here stands in the recipe, and so in the row.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from nearkin.data import Splits
from nearkin.models.pretrained import side_of
from nearkin.runs.recipe import Recipe

FINE_TUNING: dict[str, Any] = {
    "loss": "normalised-cross-entropy",
    "dim": 512,
    "augment": "crop-flip",
    "batch": 112,
    "epochs": 8,
    "head_first": 1,
    "optimizer": "adamw",
    "lr": 1e-3,
    "backbone_lr": 1e-4,
    "weight_decay": 1e-4,
}
"""The settings of the study fine-tuning, by its leading loss."""
VALIDATED = {"validate": True, "patience": 3}
"""Where there are enough classes to hold some out: the epoch that they choose is the Model."""
ENOUGH = 5  # training classes, or images of a class where classes are shared


def fine_tuned(recipe: Recipe, typed: Collection[str], splits: Splits | None = None) -> Recipe:
    """The recipe with the defaults of fine-tuning in place of those of its fields that nobody has
    typed: batch norm frozen, pictures of the side that the network was pretrained on, the head
    first, rates of its own, and early stopping by validation where these splits allow it."""
    choices: dict[str, Any] = {"size": side_of(recipe.backbone)}
    if recipe.epochs or "epochs" not in typed:  # else nothing is learnt
        choices |= FINE_TUNING | (VALIDATED if splits and can_validate(splits) else {})
    free = {name: value for name, value in choices.items() if name not in typed}
    if not free.get("validate", recipe.validate):
        free.pop("patience", None)
    options = {"batch_norm": "frozen", **recipe.backbone_options}
    return replace(recipe, **free, backbone_options=options)


def can_validate(splits: Splits) -> bool:
    """Whether a part of the training set can tell which epoch is best."""
    train = splits.train
    if splits.shared_classes:
        return int(train.labels.bincount().min()) >= ENOUGH
    return len(train.classes) >= ENOUGH
