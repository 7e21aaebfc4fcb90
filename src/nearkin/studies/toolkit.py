"""Seed 2's comparison in numbers: Siamese, triplet and n-tuple networks on handwriting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

from nearkin.measure.statistics import Estimate, estimate, holm, paired
from nearkin.runs.recipe import Recipe
from nearkin.studies.answer import Answer, Bars, Gallery, Line, Lines, Maps, Table

TITLE = "The toolkit: Siamese, triplet and n-tuple networks"
QUESTION = (
    "Which of the losses of the Siamese / triplet / n-tuple family embeds best, and is it true "
    "that the ratio over all classes (8) scatters better but separates worse than the triplet on "
    "a tuple? Does the n-pair loss (7) collapse, and does an L2 term mend it? The original report "
    "showed pictures only; here are the numbers, for the printed and for the right forms."
)

METHODS: dict[str, dict] = {
    "Siamese (1-3)": {"loss": "contrastive"},
    "triplet (4-6)": {"loss": "ratio-triplet"},
    "n-tuple (7)": {"loss": "n-pair"},
    "n-tuple (7) printed": {"loss": "n-pair", "loss_options": {"form": "printed"}},
    "n-tuple (7) + L2": {"loss": "n-pair", "loss_options": {"l2": 0.1}},
    "n-tuple (7) printed + L2": {"loss": "n-pair", "loss_options": {"form": "printed", "l2": 0.1}},
    "triplet on tuple": {"loss": "tuple-triplet"},
    "tuple ratio (8)": {"loss": "tuple-ratio"},
    "tuple ratio (8) printed": {"loss": "tuple-ratio", "loss_options": {"form": "printed"}},
    "combined": {"loss": "combined"},
}
"""Name in the table -> what differs from the common recipe."""

L2 = (0.0, 0.1, 0.5, 0.9, 1.1)
BASE = Recipe(batch=120, per_class=12, schedule="cosine", warmup=100, precision="bf16")
EPOCHS = {"mnist-5k": 12, "mnist": 8, "fashion-mnist": 8}


def recipes(
    data: str = "mnist-5k",
    seeds: int = 5,
    epochs: int = 0,
    dims: str = "2,64",
    augment: str = "shift",
    sweep: bool = True,
) -> list[Recipe]:
    """Every method, dimension and seed under one recipe; then n-pair (7) over its L2 weight.

    Args:
        data: the data set.
        seeds: how many, from 0.
        epochs: 0 takes 8, or 12 on the small mnist-5k.
        dims: embedding dimensions, separated by commas.
        augment: as in Recipe.
        sweep: whether to add the sweep over the L2 weight, in 2-D.
    """
    base = replace(BASE, data=data, epochs=epochs or EPOCHS.get(data, 8), augment=augment)
    base = replace(base, evaluate_every=max(1, base.epochs // 4))
    wanted = [int(dim) for dim in dims.split(",")]
    main = [
        replace(base, dim=dim, seed=seed, **change)
        for dim, change, seed in product(wanted, METHODS.values(), range(seeds))
    ]
    return main + (l2_sweep(base, range(seeds)) if sweep else [])


def l2_sweep(base: Recipe, seeds: Iterable[int]) -> list[Recipe]:
    """n-pair (7) in 2-D over the weight of its L2 term, in the right and in the printed form."""
    return [
        replace(base, dim=2, seed=seed, loss="n-pair", loss_options=options(form, l2))
        for form, l2, seed in product(("right", "printed"), L2, seeds)
    ]


def options(form: str, l2: float) -> dict:
    """The options of n-pair that differ from its defaults, so that equal runs are one run."""
    return ({"form": form} if form != "right" else {}) | ({"l2": l2} if l2 else {})
