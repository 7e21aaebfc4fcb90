"""From a recipe to what is trained: backbone, loss, optimiser, batches and learning rates."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from nearkin import losses, models
from nearkin.data import Splits, hold_out, subset
from nearkin.data.transforms import PHOTOGRAPH_SIDE
from nearkin.losses.protocol import groups_of
from nearkin.names import look_up
from nearkin.registry import OPTIMIZERS, SCHEDULES
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.start import load_start, whole_start


def choose_data(recipe: Recipe, splits: Splits) -> tuple[Splits, Splits | None]:
    """The splits that the recipe trains and tests on, and those that validate (or None)."""
    if splits.shared_classes and recipe.keep_classes < 1:
        raise ValueError(
            f"keep_classes wants a data set whose test classes are not those of training; "
            f"{splits.name} is tested on its training classes: take keep_images"
        )
    train = subset(splits.train, recipe.keep_images, recipe.keep_classes, recipe.seed)
    splits = replace(splits, train=train)
    if not recipe.validate:
        return splits, None
    held = hold_out(splits, fold=recipe.seed)
    return replace(splits, train=held.train), held


def make_backbone(recipe: Recipe, splits: Splits) -> nn.Module:
    """The recipe's backbone for inputs of these splits; its trunk as `start` has it, or frozen."""
    inputs = splits.train.inputs
    side = recipe.size or PHOTOGRAPH_SIDE
    shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else (3, side, side)
    if len(shape) == 3 and recipe.size:
        shape = (shape[0], side, side)
    anew = recipe.head_start != DEFAULTS["head_start"] or recipe.head_power != 1
    if recipe.start and not (recipe.epochs or recipe.steps or anew):
        # with the last layer of `start`: nothing is trained
        return whole_start(recipe.start, recipe.dim, vectors=len(shape) == 1)
    backbone = models.make(recipe.backbone, backbone_options(recipe), shape, recipe.dim)
    if recipe.start:
        load_start(backbone, recipe.start, vectors=len(shape) == 1)
    if recipe.freeze:
        backbone.trunk.requires_grad_(False)
    return backbone


def backbone_options(recipe: Recipe) -> dict[str, Any]:
    """The options of the recipe's backbone, among them the power of its features."""
    power = {"power": recipe.head_power} if recipe.head_power != 1 else {}
    return {**recipe.backbone_options, **power}


def make_loss(recipe: Recipe, splits: Splits) -> nn.Module:
    """The recipe's loss for the training classes, behind a memory of past batches if so asked."""
    classes = len(splits.train.classes)
    loss = losses.make(recipe.loss, recipe.loss_options, classes=classes, dim=recipe.dim)
    return losses.Memory(loss, recipe.memory) if recipe.memory else loss


def make_optimizer(recipe: Recipe, backbone: nn.Module, loss: Any) -> torch.optim.Optimizer:
    """One group for the head, one for the trunk, one for each rate that the loss asks for."""
    groups: dict[tuple[str, float], list[nn.Parameter]] = {("head", recipe.lr): []}
    for name, parameter in backbone.named_parameters():
        trunk = name.startswith("trunk.")
        rate = recipe.backbone_lr or recipe.lr if trunk else recipe.lr
        groups.setdefault(("trunk" if trunk else "head", rate), []).append(parameter)
    for rate, parameter in groups_of(loss, recipe.lr, recipe.loss_lr):
        groups.setdefault(("loss", rate), []).append(parameter)
    optimizer = look_up(recipe.optimizer, OPTIMIZERS, "optimizer")
    known = signature(optimizer).parameters
    settings = {k: v for k in ("eps", "momentum") if k in known and (v := getattr(recipe, k))}
    if "fused" in known:
        settings["fused"] = True
    return optimizer(
        [{"params": p, "lr": rate, "rate": rate} for (_, rate), p in groups.items()],
        weight_decay=recipe.weight_decay,
        **settings,  # without one of 0, which is torch's own
    )


def rate_factor(recipe: Recipe, step: int, total: int) -> float:
    """What the learning rates are multiplied with at a step (from 0) of a run of `total` steps."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return look_up(recipe.schedule, SCHEDULES, "schedule")(step / total)


def make_miner(recipe: Recipe) -> nn.Module | None:
    """The recipe's miner, or none."""
    if not recipe.miner:
        return None
    return losses.make_miner(recipe.miner)
