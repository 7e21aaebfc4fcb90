"""Methods on one training set of a given size: closed forms, and training that starts as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch

from nearkin.data import Splits
from nearkin.runs.engine import Place, splits_of
from nearkin.runs.evaluate import class_means
from nearkin.runs.loop import train
from nearkin.runs.machine import machine
from nearkin.runs.outcome import described
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from nearkin.studies.shared.methods import CLOSED, METHODS, sizes
from nearkin.studies.shared.tuning import HALVES, WHITENED, common, started
from nearkin.tensors import usable

REFERENCE = "within-class whitened"
LOSSES = ("multi-similarity", "normalised cross-entropy")
"""One over pairs, one over a proxy for each class, which starts at its mean."""
ALL = "all"

FORMS: dict[str, list[dict[str, Any]]] = {
    "PCA-whitened": [{"head_power": power} for power in (0.3, 0.5, 0.7, 1.0)],
    REFERENCE: [{"head_shrinkage": shrinkage} for shrinkage in (0.3, 1.0, 3.0, 10.0)],
}
"""Closed form -> its four settings; without a power among them, after a square root."""
RATES = (1e-4, 3e-4)
STEPS, PARTS = 150, 3
"""Of training: three and a half epochs of CUB. A loss tries two learning rates, and the first part
of the steps beside all of them."""
FOLDS = (0, 1)
"""Halves of the classes that are left out, of the subsets of seeds 0 and 1."""

Cell = tuple[str, str, int]
"""Images of each class, classes, and dimension."""


def cells(images: str, classes: str, dims: str) -> list[Cell]:
    """Every second cell of images by classes at the first dimension, and the corners at each.

    >>> cells("2,4,all", "10,all", "64,256")[:4]
    [('2', '10', 64), ('2', '10', 256), ('2', 'all', 64), ('2', 'all', 256)]
    >>> [len(cells("2,4,8,16,all", "10,30,all", dims)) for dims in ("64", "64,256")]
    [8, 12]
    """
    many, kinds, first, *others = images.split(","), classes.split(","), *sizes(dims)
    found: list[Cell] = []
    for (i, n), (j, c) in product(enumerate(many), enumerate(kinds)):
        corner = i in (0, len(many) - 1) and j in (0, len(kinds) - 1)
        if corner or (i + j) % 2 == 0:
            found += [(n, c, dim) for dim in (first, *(others if corner else ()))]
    return found


def kept(word: str) -> float:
    """What keep_images and keep_classes are told of a number in words.

    >>> kept("all"), kept("16")
    (1.0, 16.0)
    """
    if word != ALL and not (word.isdecimal() and int(word) > 1):
        raise ValueError(f"wanted numbers from 2 on, separated by commas, or {ALL}, got {word!r}")
    return 1.0 if word == ALL else float(word)


def common_of(data: str, cell: Cell) -> Recipe:
    """What all methods share in a cell. A batch holds as many classes as there are, four images of
    each or as many as there are, and 128 images at most."""
    images, classes, dim = cell
    per_class = 4 if images == ALL else min(4, int(images))
    slots = 128 // per_class if classes == ALL else min(int(classes), 128 // per_class)
    return replace(
        common(data),
        dim=dim,
        keep_images=kept(images),
        keep_classes=kept(classes),
        per_class=per_class,
        batch=slots * per_class,
        head_power=0.5,
        steps=STEPS,
        epochs=PARTS,
    )


Shares = dict[str, list[float]]
"""queries, recall@1 and map@r of each test class."""


def untrained(recipe: Recipe, place: Place) -> dict[str, Any]:
    """The inputs as they are."""
    splits = splits_of(recipe, place)
    (found,) = shares(recipe, splits, place, test=True)
    of = machine(torch.device(usable(place.device)))
    return {"shares": found, "machine": of, "data": described(splits)}


def compared(recipe: Recipe, seeds: int, place: Place) -> dict[str, Any]:
    """All methods in one cell: method -> what each seed came to on the test classes, and the
    settings of each method, which the halves of the cell's own classes chose by MAP@R."""
    splits = splits_of(recipe, place)
    methods: dict[str, Recipe] = {}
    for name, settings in FORMS.items():
        plain = replace(recipe, **CLOSED[name], steps=0)
        methods[name] = judged([replace(plain, **setting) for setting in settings], splits, place)
    shrinkage = methods[REFERENCE].head_shrinkage
    for name in LOSSES:
        start = replace(started(replace(recipe, **METHODS[name]), WHITENED))
        start = replace(start, head_shrinkage=shrinkage)
        methods[name] = judged([replace(start, lr=lr) for lr in RATES], splits, place)
    found: dict[str, list[Shares]] = {}
    for seed, (name, chosen) in product(range(seeds), methods.items()):
        last = shares(replace(chosen, seed=seed), splits, place, test=True)[-1]
        found.setdefault(name, []).append(last)
    run = Run(replace(recipe, **CLOSED[REFERENCE], steps=0), splits, place.device)
    return {
        "shares": found,
        "settings": {name: chosen.changes() for name, chosen in methods.items()},
        "images": len(run.splits.train),
        "classes": len(run.splits.train.classes),
        "machine": machine(run.device),
        "data": described(splits),
    }


def judged(tries: Iterable[Recipe], splits: Splits, place: Place) -> Recipe:
    """The recipe, with its number of steps, that has the highest MAP@R on the half of the classes
    that is left out, in the mean over both halves."""
    found: dict[Recipe, float] = {}
    for one in tries:
        for fold in FOLDS:
            trial = replace(one, seed=fold, validate=True, validate_every=HALVES)
            looks = shares(trial, splits, place)
            for part, look in zip(parts_of(one), looks, strict=True):
                found[part] = found.get(part, 0.0) + over_queries(look, "map@r")
    return max(found, key=found.__getitem__)


def parts_of(recipe: Recipe) -> list[Recipe]:
    """The recipe after the first part of its steps, and after all of them; or itself."""
    if not recipe.steps:
        return [recipe]
    return [replace(recipe, steps=recipe.steps * part // PARTS, epochs=part) for part in (1, PARTS)]


def shares(recipe: Recipe, splits: Splits, place: Place, test: bool = False) -> list[Shares]:
    """R@1 and MAP@R by class, of the test or of the validation classes: at the start of a run that
    takes no steps; else after the first part of its steps and at its end."""
    run = Run(recipe, splits, place.device)
    looked = run.splits if test else run.validation
    assert looked is not None, "a trial validates"

    def look() -> Shares:
        found = class_means(run, run.embed(looked.query), looked)
        assert found, "there are kin among every two images of a class"
        return {name: [round(value, 5) for value in each] for name, each in found.items()}

    if not run.total:
        return [look()]
    ends = {run.total // PARTS, run.total} if run.recipe.epochs == PARTS else {run.total}
    return [look() for _ in train(run) if run.step in ends]


def over_queries(found: Mapping[str, Any], metric: str) -> float:
    """The mean over all queries."""
    return float(np.average(found[metric], weights=found["queries"]))
