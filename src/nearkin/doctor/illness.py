"""Illnesses of runs and of data: the table of them, and a diagnosis of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

FATAL, SERIOUS, MILD = "fatal", "serious", "mild"
ORDER = (FATAL, SERIOUS, MILD)


class Illness(NamedTuple):
    """What one looks for, from where on it is one, and what cures it, in words."""

    severity: str
    sign: str
    cure: str


ILLNESSES: dict[str, Illness] = {
    "NaN": Illness(
        FATAL,
        "the loss is not a finite number",
        "a lower --lr, --clip 1; in a loss of one's own, no root or logarithm of 0",
    ),
    "collapse to a point": Illness(
        FATAL,
        "all embeddings are nearly one, and neighbours are of the class by chance",
        "no hard miner (--miner all), a lower --lr",
    ),
    "collapse to a line": Illness(
        FATAL,
        "one direction holds the variance, and the others tell nothing of the classes",
        "another form of the loss (--loss-options form=right), --weight-decay 0, a lower --lr",
    ),
    "collapse to a few directions": Illness(
        SERIOUS,
        "far fewer directions than classes and dimensions allow hold the variance, the others tell "
        "nothing of the classes, and neighbours are often of another class",
        "--weight-decay 0, a wider last layer but one, a lower --lr",
    ),
    "loss stuck at its margin": Illness(
        FATAL,
        "the loss stays at one value, and kin are no nearer than others, or all distances are far "
        "below the margin",
        "no hard miner (--miner all), a margin of the size of distances (--loss-options margin=)",
    ),
    "no active pairs": Illness(
        FATAL,
        "the loss is 0, or no pair of others has a gradient, and yet neighbours are of other "
        "classes",
        "--sampler classes, a larger margin (--loss-options margin=)",
    ),
    "idle proxies": Illness(
        SERIOUS,
        "proxies that never move, or that no item of their class has for its nearest",
        "--loss-lr 0, which takes what the loss asks for; fewer proxies a class (--loss-options "
        "proxies=); in a loop of one's own, nk.losses.param_groups",
    ),
    "one class swallows others": Illness(
        SERIOUS,
        "of the items of all other classes, most have one class for their nearest",
        "--sampler classes, which draws each class as often",
    ),
    "learning rate too high": Illness(
        FATAL,
        "the loss rises above its start, or steps are large beside the weights and the loss does "
        "not fall",
        "--lr a tenth or less, --warmup, --clip 1",
    ),
    "learning rate too low": Illness(
        SERIOUS,
        "neither the loss nor the weights have moved, and neighbours are still of other classes",
        "--lr thirty times as high",
    ),
    "training classes memorised": Illness(
        SERIOUS,
        "training items have their kin nearest, while R@1 on new items falls from its best, or is "
        "that of chance",
        "fewer --epochs, --start-decay, --head-dropout, --augment, --backbone linear on features",
    ),
    "batch norm fooled by the batch": Illness(
        SERIOUS,
        "one and the same batch is embedded well with its own statistics, and badly with the "
        "running ones, by which a Model embeds",
        "a larger --batch, --sampler random, --backbone-options batch_norm=frozen",
    ),
    "leak between splits": Illness(
        FATAL,
        "items of the test set that stand, whole or nearly, in the training set",
        "`nearkin doctor FILE.npz --cure HEALED.npz` leaves them out",
    ),
    "duplicates": Illness(
        MILD,
        "items much nearer to another than the dimension of the data explains",
        "`nearkin doctor FILE.npz --cure HEALED.npz` leaves them out",
    ),
    "labels that look wrong": Illness(
        SERIOUS,
        "items deep inside another class, whose items are otherwise told apart",
        "`nearkin doctor FILE.npz --cure HEALED.npz` leaves them out; of photographs `nearkin "
        "explore`, whose decisions `nearkin train` reads",
    ),
    "features badly scaled": Illness(
        SERIOUS,
        "a few directions hold nearly all variance, and neighbours are found far better once all "
        "have one variance",
        "--head-start whitened; `nearkin doctor FILE.npz --cure HEALED.npz` whitens",
    ),
    "dimension wasted": Illness(
        MILD,
        "a small part of the dimensions holds the variance, and finds neighbours as well as all",
        "a smaller --dim",
    ),
}
"""By name."""


@dataclass(frozen=True)
class Diagnosis:
    """An illness that was found.

    name: of `ILLNESSES`.
    evidence: in words, with the number and its limit.
    cure: in words, with the flag of `nearkin train` that cures it.
    severity: fatal (the numbers of this run are worth nothing), serious or mild (it only costs).
    value, limit: the number on which it rests, and from where on that is an illness.
    flags: the cure as fields of a recipe, where it can be said so.
    items: the items that ail, where it is an illness of single ones; the most telling first.
    """

    name: str
    evidence: str
    cure: str
    severity: str
    value: float
    limit: float
    flags: Mapping[str, Any] = field(default_factory=dict)
    items: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}; cure: {self.cure}"


def diagnosis(
    name: str,
    evidence: str,
    value: float,
    limit: float,
    *,
    cure: str = "",
    flags: Mapping[str, Any] | None = None,
    items: tuple[int, ...] = (),
) -> Diagnosis:
    """A diagnosis of this illness; its cure is that of the table where none is named."""
    illness = ILLNESSES[name]
    said = cure or illness.cure
    if flags and not cure:
        said = " ".join(f"--{key.replace('_', '-')} {words(value)}" for key, value in flags.items())
    return Diagnosis(name, evidence, said, illness.severity, value, limit, flags or {}, items)


def words(value: Any) -> str:
    """The value of a flag, as it is typed."""
    if isinstance(value, Mapping):
        return " ".join(f"{k}={words(v)}" for k, v in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value) or "''"


def sorted_by_severity(found: list[Diagnosis]) -> list[Diagnosis]:
    """The gravest first, in the order of the table."""
    names = list(ILLNESSES)
    return sorted(found, key=lambda d: (ORDER.index(d.severity), names.index(d.name)))
