"""ProxyGML over epochs: retrieval, and the loss on images that train and that are held back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from nearkin.answers import Answer, Line, Lines
from nearkin.data import Split, Splits
from nearkin.measure import recalls
from nearkin.measure.statistics import estimate
from nearkin.runs.engine import Place, described, splits_of
from nearkin.runs.executors import Measurements
from nearkin.runs.loop import Run, train
from nearkin.runs.machine import machine
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Measurement
from nearkin.studies.shared.sets import CUB, proxygml
from nearkin.tensors import place_in_class

TITLE = "ProxyGML over epochs"
QUESTION = (
    "How fast does ProxyGML converge, and does its loss tell when to stop? The seed shows R@1 over "
    "epochs on Cars196. Beside it here: the loss of the training images, and of a fifth of the "
    "images of each training class that are held back. New classes have no proxies, and no loss."
)
EPOCHS = 30
CURVES = {"R@1, test classes": "recall@1", "R@1, held-back images": "held_recall@1"}
LOSSES = {"training images": "loss", "held-back images": "held_loss"}
DEMO = {"data": "mnist-5k", "seeds": 1, "epochs": 2}
"""The options of a short form that needs no data set."""


def measure(data: str = CUB, seeds: int = 5, epochs: int = EPOCHS) -> Measurements:
    """A row for each seed: R@1 and losses, epoch by epoch.

    Args:
        data: the data set.
        seeds: how many, from 0.
        epochs: of each run.
    """
    base = replace(proxygml(data, epochs, {}), lr=3e-4)
    recipes = [replace(base, seed=seed) for seed in range(seeds)]
    return {f"curve-{recipe.hash}": partial(row_of, recipe) for recipe in recipes}


def row_of(recipe: Recipe, place: Place) -> dict:
    """One run, followed."""
    splits, held = hold_back(splits_of(recipe, place))
    run = Run(recipe, splits, place.device)
    return {
        "recipe": recipe.plain(),
        "epochs": follow(run, held),
        "machine": machine(run.device),
        "data": described(splits),
    }


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


def answer(rows: list[Measurement]) -> Answer:
    """Two figures, and where each curve has its best epoch."""
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(findings(rows)),
        figures=(
            curves(rows, "R@1 over epochs", "R@1", CURVES, percent=True),
            curves(rows, "Loss over epochs", "loss", LOSSES),
        ),
    )


def over_epochs(rows: list[Measurement], key: str) -> list:
    """The estimate over seeds of each epoch."""
    return [
        estimate([entry[key] for entry in epoch])
        for epoch in zip(*(row.values["epochs"] for row in rows), strict=True)
    ]


def curves(
    rows: list[Measurement], title: str, y: str, keys: dict[str, str], percent: bool = False
) -> Lines:
    """One line for each of the keys."""
    lines = []
    for name, key in keys.items():
        values = over_epochs(rows, key)
        lines.append(Line.of(name, [entry["epoch"] for entry in rows[0].values["epochs"]], values))
    return Lines(title, "epoch", y, tuple(lines), percent=percent)


def findings(rows: list[Measurement]) -> list[str]:
    """Whether the loss of held-back images is lowest where test retrieval is best."""
    retrieval = [value.mean for value in over_epochs(rows, "recall@1")]
    loss = [value.mean for value in over_epochs(rows, "held_loss")]
    best = max(range(len(retrieval)), key=retrieval.__getitem__)
    lowest = min(range(len(loss)), key=loss.__getitem__)
    return [
        f"R@1 on the test classes is best after epoch {best + 1}, {100 * retrieval[best]:.1f} %, "
        f"and {100 * retrieval[-1]:.1f} % after the last, {len(retrieval)}.",
        f"The loss of the held-back images is lowest after epoch {lowest + 1}, where R@1 is "
        f"{100 * retrieval[lowest]:.1f} %.",
    ]
