"""ProxyGML over epochs: retrieval, and the loss on images that train and that are held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from nearkin.answers import Answer, Finding, Line, Lines
from nearkin.data import Split, Splits
from nearkin.measure import recalls
from nearkin.measure.statistics import FREE, SHARES, Bounds, Estimate, estimate, paired
from nearkin.runs.engine import Place, splits_of
from nearkin.runs.loop import train
from nearkin.runs.machine import machine
from nearkin.runs.outcome import described
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from nearkin.studies.shared.methods import BARE, CLOSED, UNTRAINED
from nearkin.studies.shared.sets import CUB, proxygml
from nearkin.studies.shared.tuning import ORTHOGONAL, WHITENED
from nearkin.studies.shared.words import difference_words, percent
from nearkin.studies.study import Case, Measured, Study, Task
from nearkin.tensors import place_in_class

TITLE = "ProxyGML over epochs"
QUESTION = (
    "How fast does ProxyGML converge, and does its loss tell when to stop? The poster shows R@1 "
    "over epochs on Cars196. Beside it here: the loss of the training images, and of a fifth of "
    "the images of each training class that are held back. New classes have no proxies, no loss."
)
EPOCHS = 30
CURVES = {"R@1, test classes": "recall@1", "R@1, held-back images": "held_recall@1"}
LOSSES = {"training images": "loss", "held-back images": "held_loss"}


def measure(
    data: str = CUB, seeds: int = 5, epochs: int = EPOCHS, start: str = WHITENED
) -> dict[Case, Task]:
    """For each seed R@1 and losses, epoch by epoch.

    Args:
        data: the data set.
        seeds: how many, from 0.
        epochs: of each run.
        start: how a linear head on features starts: whitened or orthogonal.
    """
    base = replace(proxygml(data, epochs, {}, start), lr=3e-4)
    found = {}
    for seed in range(seeds):
        recipe = replace(base, seed=seed)
        found[Case("ProxyGML", seed)] = Task(
            f"curve-{recipe.hash}", partial(followed, recipe), recipe
        )
    return found


def followed(recipe: Recipe, place: Place) -> dict[str, Any]:
    """One run, epoch by epoch."""
    whole = splits_of(recipe, place)
    splits, held = hold_back(whole)
    run = Run(recipe, splits, place.device)
    levels = levels_of(recipe, splits, place) if recipe.head_start != ORTHOGONAL else {}
    return {
        "epochs": follow(run, held),
        **({"beside": levels} if levels else {}),
        "machine": machine(run.device),
        "data": described(whole),
    }


def levels_of(recipe: Recipe, splits: Splits, place: Place) -> dict[str, float]:
    """R@1 on the test classes of what no gradient has trained; of closed forms of this dimension,
    with the power and the shrinkage that the head starts with."""
    found = {}
    bare = {**BARE, "head_start": ORTHOGONAL, "head_power": 1.0}
    for name, change in {UNTRAINED: bare, **CLOSED}.items():
        one = replace(recipe, loss_options={}, loss_start="random", **change)
        found[name] = recall(Run(one, splits, place.device), splits.query)
    return found


def hold_back(splits: Splits) -> tuple[Splits, Split]:
    """The splits without every fifth training image of each class; and those images."""
    order = splits.train.labels.argsort(stable=True)
    fifth = place_in_class(splits.train.labels)[order] % 5 == 4
    kept, held = order[~fifth], order[fifth]
    return replace(splits, train=splits.train.select(kept)), splits.train.select(held)


def follow(run: Run, held: Split) -> list[dict]:
    """Train, and note each epoch's R@1 and losses."""
    found: list[dict] = []
    for _ in train(run):
        if run.epoch_ends:
            steps = run.step - sum(entry["steps"] for entry in found)
            entry = {"epoch": run.epoch, "steps": steps, "loss": run.loss_sum.item() / steps}
            run.loss_sum.zero_()
            entry |= {"held_loss": held_loss(run, held), "held_recall@1": recall(run, held)}
            found.append(entry | {"recall@1": recall(run, run.splits.query)})
    return found


def recall(run: Run, split: Split) -> float:
    """R@1 of a split's images among themselves."""
    return recalls(run.embed(split), split.labels, ks=(1,))["recall@1"]


@torch.no_grad()
def held_loss(run: Run, held: Split) -> float:
    """Mean loss of the held-back images, in batches of the training's size."""
    embeddings, labels = run.embed(held).to(run.device), held.labels.to(run.device)
    size = run.recipe.batch
    parts = zip(embeddings.split(size), labels.split(size), strict=True)
    values = [(run.loss(x, y).item(), len(y)) for x, y in parts]
    return sum(value * count for value, count in values) / len(labels)


def answer(found: Measured) -> Answer:
    """Two figures, and where each curve has its best epoch."""
    runs = [measured.values["epochs"] for measured in found.values()]
    beside = next((m.values["beside"] for m in found.values() if "beside" in m.values), {})
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(runs) if runs else ()),
        findings=tuple(findings(runs) if runs else ()),
        figures=(
            curves(runs, "R@1 over epochs", "R@1", CURVES, shares=True, beside=beside),
            curves(runs, "Loss over epochs", "loss", LOSSES),
        ),
    )


Followed = Sequence[Sequence[Mapping[str, float]]]
"""Seed by seed, epoch by epoch, what `follow` noted."""


def over_epochs(runs: Followed, value: str, within: Bounds = FREE) -> list[Estimate]:
    """The estimate over seeds of each epoch."""
    return [estimate([e[value] for e in epoch], within) for epoch in zip(*runs, strict=True)]


def curves(
    runs: Followed,
    title: str,
    y: str,
    values: dict[str, str],
    shares: bool = False,
    beside: Mapping[str, float] = {},
) -> Lines:
    """One line for each of the values, and a dashed one for each level that stands beside."""
    epochs = [entry["epoch"] for entry in runs[0]] if runs else []
    within = SHARES if shares else FREE
    lines = [Line.of(name, epochs, over_epochs(runs, v, within)) for name, v in values.items()]
    ends = (epochs[0], epochs[-1]) if epochs else ()
    lines += [Line(name, ends, (level, level), dashed=True) for name, level in beside.items()]
    return Lines(title, "epoch", y, tuple(lines) if runs else (), percent=shares)


def best_epochs(runs: Followed) -> tuple[int, int]:
    """Where R@1 on the test classes is highest, and the loss of held-back images lowest."""
    retrieval = [value.mean for value in over_epochs(runs, "recall@1")]
    loss = [value.mean for value in over_epochs(runs, "held_loss")]
    best = max(range(len(retrieval)), key=retrieval.__getitem__)
    return best, min(range(len(loss)), key=loss.__getitem__)


def summary(runs: Followed) -> list[str]:
    """When R@1 is highest, and whether the loss tells."""
    best, lowest = best_epochs(runs)
    last = len(runs[0])
    retrieval = [value.mean for value in over_epochs(runs, "recall@1")]
    near = retrieval[best] - retrieval[lowest] < 0.005
    return [
        f"R@1 on new classes is highest after epoch {best + 1} of {last}, with "
        f"{percent(retrieval[best])}.",
        f"The loss of images held back is lowest after epoch {lowest + 1}, so it "
        f"{'tells well enough' if near else 'does not tell'} when to stop: R@1 is "
        f"{percent(retrieval[lowest])} there.",
    ]


def findings(runs: Followed) -> list[Finding]:
    """Whether the loss of held-back images is lowest where test retrieval is highest."""
    best, lowest = best_epochs(runs)
    by_seed = [{s: run[at]["recall@1"] for s, run in enumerate(runs)} for at in (best, lowest, -1)]
    retrieval = [value.mean for value in over_epochs(runs, "recall@1")]
    found = []
    for other, words in ((by_seed[2], f"the last, {len(retrieval)}"), (by_seed[1], "")):
        change = paired(other, by_seed[0])
        words = words or f"epoch {lowest + 1}, where the loss of the held-back images is lowest"
        found.append(
            Finding(
                f"From its highest, {percent(retrieval[best])} after epoch {best + 1}, R@1 on the "
                f"test classes changes by {difference_words(change)} to {words}.",
                change.p,
                abs(change.estimate.mean),
            )
        )
    return found


DEMO = {"data": "mnist-5k", "seeds": 1, "epochs": 2}
STUDY = Study(TITLE, QUESTION, answer, measure=measure, demo=DEMO)
