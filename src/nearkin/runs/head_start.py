"""How the head of a run starts: orthogonal, or as a closed form of its training images.

Dimensions: N items, F features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn

from nearkin.closed import Items, LinearMap, check_options, solve
from nearkin.models.heads import (
    before_last,
    drop_inputs,
    first_layer,
    first_of,
    is_still,
    last_layers,
    start_head,
    start_mlp,
)
from nearkin.runs.recipe import DEFAULTS, Options, Recipe

ORTHOGONAL = DEFAULTS["head_start"]
REMEMBERED = 6  # maps and sets that are kept for the next run: 26 MB and more, of 1,280 features
SMALL = 2**26  # bytes of whitened features that are kept for the next run
OF_A_SIZE = {"nca", "power"}
"""Forms whose map of D dimensions is not the first D rows of a larger one."""

Kept = TypeVar("Kept")

maps: OrderedDict[Hashable, list[LinearMap]] = OrderedDict()
sets: OrderedDict[Hashable, list[Items]] = OrderedDict()
seen: OrderedDict[Hashable, Tensor] = OrderedDict()


def refuse_unfit(recipe: Recipe) -> None:
    """Refuse a start that is none, and settings that it does not have."""
    if recipe.head_start != ORTHOGONAL:
        check_options(recipe.head_start, *settings(recipe))
    elif recipe.head_shrinkage != DEFAULTS["head_shrinkage"] or recipe.head_options:
        raise ValueError("head_shrinkage and head_options want a head_start that is a closed form")
    if "power" in recipe.backbone_options:
        raise ValueError("power is no option of the backbone: take head_power")


def settings(recipe: Recipe) -> tuple[float | str | None, dict[str, Any]]:
    """The shrinkage, None for the form's own, and the other options of the recipe's closed form."""
    options = dict(recipe.head_options)
    number = recipe.head_shrinkage
    shrinkage = None if number == DEFAULTS["head_shrinkage"] else number
    formula = options.pop("shrinkage", None)
    if formula is not None and (shrinkage is not None or not isinstance(formula, str)):
        raise ValueError(
            f"wanted one shrinkage: a number as head_shrinkage, or a formula among head_options; "
            f"got {number} and {formula!r}"
        )
    return shrinkage if formula is None else formula, options


def begin(
    recipe: Recipe,
    backbone: Any,
    labels: Tensor,
    read: Callable[[nn.Module], Tensor],
    fingerprint: Callable[[], str],
    *,
    remember: bool = True,
) -> Hashable:
    """Let the backbone's head, or all of mlp, start as the recipe has it.

    Returns:
        What decides the features that the head reads, where these can be remembered; else False.

    Args:
        labels: of the training images.
        read: what a part of the backbone makes of them, unaugmented: (N, F) on the CPU.
        fingerprint: of the data set.
        remember: whether features and forms of earlier runs of this process may be taken. One run
            over several processes must not: what one of them remembers and another does not
            would leave the other waiting, as they read in step.
    """
    if recipe.head_start == ORTHOGONAL:
        if recipe.head_dropout:
            drop_inputs(backbone, recipe.head_dropout)
        return False
    mlp = recipe.backbone == "mlp" and not recipe.start
    if mlp:
        part, layers = backbone.trunk[: first_layer(backbone)], [first_of(backbone)]
    else:
        part = before_last(backbone)
        layers = [getattr(owner, name) for owner, name in last_layers(backbone)]

    def items() -> list[Items]:
        levels = read(part).split([layer.in_features for layer in layers], 1)
        return [Items(features.numpy(), labels.numpy()) for features in levels]

    def fitted() -> list[LinearMap]:
        found = remembered(sets, of_set, items) if stored else items()
        return [
            form_of(recipe, level, layer, mlp) for level, layer in zip(found, layers, strict=True)
        ]

    still = all(is_still(layer) for layer in part.modules() if not list(layer.children()))
    stored = still and remember
    of_set = (*of_data(recipe), fingerprint(), mlp) if stored else ()
    key = (*of_form(recipe), of_set)
    found = remembered(maps, key, fitted) if stored else fitted()
    if mlp:
        start_mlp(backbone, found[0], recipe.head_dropout)
        return stored and (key, recipe.precision)
    sized = [
        replace(one, components=one.components[: layer.out_features])
        for one, layer in zip(found, layers, strict=True)
    ]
    start_head(backbone, sized, recipe.head_dropout)
    return stored and (key, recipe.precision)


def read_once(key: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """The features that a head reads: those of the last runs with this key, else made now."""
    if not key:
        return make()
    found = remembered(seen, key, make)
    if found.nbytes > SMALL:
        del seen[key]
    return found


def form_of(recipe: Recipe, items: Items, layer: nn.Linear, mlp: bool) -> LinearMap:
    """The map of a level's features that its layer starts from; it may have more rows than that."""
    rows = items.moments.features
    if mlp:
        rows = min(rows, layer.out_features // 2)
    elif recipe.head_start in OF_A_SIZE:
        rows = layer.out_features
    shrinkage, options = settings(recipe)
    return solve(recipe.head_start, items, rows, shrinkage=shrinkage, options=options)


def of_form(recipe: Recipe) -> tuple[Hashable, ...]:
    """What decides a map, but for the features that it is made of."""
    sized = recipe.head_start in OF_A_SIZE or recipe.backbone == "mlp"
    return (
        recipe.head_start,
        recipe.head_shrinkage,
        Options(recipe.head_options),
        recipe.dim if sized else None,
    )


def of_data(recipe: Recipe) -> tuple[Hashable, ...]:
    """What decides the features that a map is made of, but for the data set."""
    drawn = recipe.validate or recipe.keep_images != 1 or recipe.keep_classes != 1
    return (
        recipe.head_power,
        recipe.validate and recipe.validate_every,
        recipe.keep_images,
        recipe.keep_classes,
        recipe.seed if drawn else None,
        Options(recipe.backbone_options),
    )


def remembered(known: OrderedDict[Hashable, Kept], key: Hashable, make: Callable[[], Kept]) -> Kept:
    """What is known under this key, made where it is not: many runs of a study have one."""
    if key not in known:
        known[key] = make()
    known.move_to_end(key)
    while len(known) > REMEMBERED:
        known.popitem(last=False)
    return known[key]
