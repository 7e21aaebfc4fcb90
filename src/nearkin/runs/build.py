"""From a recipe to what is trained: backbone, loss, optimiser, batches and learning rates."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from nearkin import losses, models
from nearkin.data import Splits, hold_out, subset
from nearkin.data.items import Items
from nearkin.data.samplers import refuse_batch, structure
from nearkin.data.transforms import PHOTOGRAPH_SIDE
from nearkin.losses.protocol import groups_of, metric_of, wants_of
from nearkin.names import look_up, unknown
from nearkin.registry import AUGMENTS, METRICS, OPTIMIZERS, PRECISIONS, SAMPLERS, SCHEDULES, SOURCES
from nearkin.runs import head_start
from nearkin.runs.manners import seeded
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.start import load_start, whole_start


def refuse_unknown(recipe: Recipe) -> None:
    """Refuse a name that stands in no registry."""
    for field, names in (
        ("sampler", SAMPLERS),
        ("augment", AUGMENTS),
        ("precision", PRECISIONS),
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("metric", ("", *METRICS)),
        ("refine", ("", *SOURCES)),
        ("loss_start", ("random", MEANS)),
    ):
        if getattr(recipe, field) not in names:
            raise unknown(getattr(recipe, field), filter(None, names), field)


def refuse_unfit(recipe: Recipe) -> None:
    """Refuse what can be known to fail before any data are read: names, options, their types."""
    refuse_unknown(recipe)
    refuse_batch(recipe.sampler, recipe.batch, recipe.per_class)
    head_start.refuse_unfit(recipe)
    models.check(recipe.backbone, backbone_options(recipe))
    if recipe.tail and recipe.backbone.partition(":")[0] not in ("lite0", "timm"):
        raise ValueError(
            f"tail={recipe.tail} wants a pretrained network, lite0 or timm:NAME, got backbone "
            f"{recipe.backbone!r}"
        )
    with seeded(0):
        sizes = {"classes": MANY, "dim": recipe.dim, "features": 1}
        loss = memorised(recipe, losses.make(recipe.loss, recipe.loss_options, **sizes))
        refuse_no_means(recipe, loss)
        refuse_no_refiner(recipe, loss)
        refuse_pieces(recipe, loss)
        make_miner(recipe, loss)
        refuse_unheard(recipe, loss)


@torch.no_grad()
def refuse_unheard(recipe: Recipe, loss: nn.Module) -> None:
    """Refuse a miner, or a sampler of pairs or triplets, for a loss that looks at whole batches,
    which says so of a triplet of noise."""
    trains = recipe.epochs or recipe.steps
    chosen = recipe.miner or structure(recipe.sampler, recipe.batch)
    if not (trains and chosen) or wants_of(loss) or recipe.dim > WIDE:
        return
    triplet = tuple(torch.tensor([place]) for place in range(3))
    loss.eval()(torch.randn(4, recipe.dim), torch.tensor([0, 0, 1, 1]), triplet)


def refuse_no_refiner(recipe: Recipe, loss: Any) -> None:
    """Refuse to refine test images by a loss that has no graph layers."""
    if recipe.refine and getattr(loss, "refiner", None) is None:
        raise ValueError(f"refine={recipe.refine!r} wants a loss with graph layers")


def refuse_pieces(recipe: Recipe, loss: Any) -> None:
    """Refuse batches in pieces for a loss that looks at the features of whole ones."""
    if recipe.chunk and "features" in wants_of(loss):
        name = type(loss).__name__
        raise ValueError(f"{name} looks at the features of whole batches: leave out chunk")


def refuse_no_means(recipe: Recipe, loss: Any) -> None:
    """Refuse a start at the means of classes for a loss that has no part for each class."""
    if recipe.loss_start == MEANS and not hasattr(loss, "start_at"):
        raise ValueError(
            f"loss_start={MEANS} wants a loss with proxies or a classifier that can start there, "
            f"got {recipe.loss!r}"
        )


MEANS = "means"
WIDE = 2**16  # dimensions, beyond which nothing is tried out before the run
MANY = 1000  # classes: enough for every loss, few enough to be built at once


def choose_data(recipe: Recipe, splits: Splits) -> tuple[Splits, Splits | None]:
    """The splits that the recipe trains and tests on, and those that validate (or None)."""
    if splits.shared_classes and recipe.keep_classes != 1:
        raise ValueError(
            f"keep_classes wants a data set whose test classes are not those of training; "
            f"{splits.name} is tested on its training classes: take keep_images"
        )
    train = subset(splits.train, recipe.keep_images, recipe.keep_classes, recipe.seed)
    splits = replace(splits, train=train)
    if not recipe.validate:
        return splits, None
    held = hold_out(splits, recipe.seed, recipe.validate_every)
    return replace(splits, train=held.train), held


def make_backbone(recipe: Recipe, splits: Splits) -> nn.Module:
    """The recipe's backbone for inputs of these splits; its trunk as `start` has it, or frozen."""
    inputs = splits.train.inputs
    side = recipe.size or PHOTOGRAPH_SIDE
    told = isinstance(inputs, Tensor | Items)
    shape = tuple(inputs.shape[1:]) if told else (3, side, side)
    if len(shape) == 3 and recipe.size and not isinstance(inputs, Items):
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


def make_loss(
    recipe: Recipe, splits: Splits, backbone: nn.Module, own: nn.Module | None = None
) -> nn.Module:
    """The recipe's loss for the training classes (or one's own), behind a memory if so asked."""
    if own is None:
        sizes = {"classes": len(splits.train.classes), "dim": recipe.dim}
        if losses.wants_features(recipe.loss, recipe.loss_options):
            sizes["features"] = feature_count(recipe, backbone)
        own = losses.make(recipe.loss, recipe.loss_options, **sizes)
    return memorised(recipe, own)


@torch.no_grad()
def feature_count(recipe: Recipe, backbone: Any) -> int:
    """F, how many numbers the trunk gives: found by a look at an empty input."""
    if not hasattr(backbone, "made"):
        raise ValueError(
            f"{recipe.loss} is built for the features of a backbone that is named: beside an "
            "object of one's own, wanted the loss as an object too"
        )
    training = backbone.training
    found = backbone.eval().trunk(torch.zeros(1, *backbone.made["input_shape"])).flatten(1)
    backbone.train(training)
    return found.shape[1]


def memorised(recipe: Recipe, loss: nn.Module) -> nn.Module:
    """The loss, behind a memory of past batches where the recipe has one."""
    return losses.Memory(loss, recipe.memory) if recipe.memory else loss


def trunk_of(recipe: Recipe, backbone: Any, named: bool = True) -> nn.Module:
    """All of a backbone but its last layer: what can rest, or learn at a rate of its own.

    A backbone of one piece has none, and then the recipe must not ask for either; nor for a start
    of the last layer where the backbone is an object of one's own (`named` is False).
    """
    whole = is_whole(backbone)
    wrong = [] if named else ["start", "head_start", "head_power", "head_dropout", "tail"]
    wrong += [] if whole else ["freeze", "head_first", "backbone_lr"]
    for field in wrong:
        if getattr(recipe, field) != DEFAULTS[field]:
            wanted = (
                "with a `trunk` and a `head`" if field in wrong[-3:] and not whole else "by name"
            )
            raise ValueError(f"{field} wants a backbone {wanted}, got {type(backbone).__name__}")
    return backbone.trunk if whole else nn.Module()


def is_whole(backbone: Any) -> bool:
    """Whether a backbone falls into a trunk and a last layer."""
    return isinstance(getattr(backbone, "trunk", None), nn.Module) and hasattr(backbone, "head")


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


def make_miner(recipe: Recipe, loss: nn.Module) -> nn.Module | None:
    """The recipe's miner, or none."""
    if not recipe.miner:
        return None
    return losses.make_miner(recipe.miner, recipe.metric or metric_of(loss))
