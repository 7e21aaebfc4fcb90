"""Training the n-tuple report's network on digits: our loop beside a bare one and a peer's trainer.

The bare loop is given its batches as finished tensors and does nothing but forward, loss, backward
and step, in our precision. Both loops start from a fresh network, and the epoch alone is timed; in
it ours also picks, normalises and logs. The peer is pytorch-metric-learning's MetricLossOnly with
its DataLoader over PIL pictures, in float32, as its notebooks have it. Both get batches of ten
digits x 12 images, each by its own sampler, and the same augmentation, loss, optimiser and number
of images; accuracies are those of 5 nearest neighbours on the test digits, over seeds.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Row, seconds
from nearkin import models
from nearkin.data import Split, Splits, load, transforms
from nearkin.losses import RatioTriplet
from nearkin.measure import knn_accuracy
from nearkin.measure.statistics import estimate
from nearkin.runs.log import StepLog
from nearkin.runs.loop import train
from nearkin.runs.machine import keep_freed_memory
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

TITLE = "Training: the n-tuple report's network on mnist-5k"
Batches = list[tuple[Tensor, Tensor]]  # pictures as the network wants them, labels
RECIPE = Recipe(batch=120, per_class=12, precision="bf16", augment="shift", epochs=4)


def rows(quick: bool) -> Iterator[Row]:
    keep_freed_memory()
    splits = load("mnist-5k")
    epochs, seeds = (1, 2) if quick else (4, 5)
    recipe = replace(RECIPE, epochs=epochs)
    many = splits if quick else fifteen_times(splits)
    times = epoch_times(many, repeats=1 if quick else 3)
    yield Row(
        f"an epoch of {len(many.train):,} digits",
        times["ours"],
        "bare loop",
        times["bare"],
        goal=1.15,
    )
    accuracy: dict[str, list[float]] = {"ours": [], "PML": []}
    spent: dict[str, list[float]] = {"ours": [], "PML": []}
    for seed in range(seeds):
        for name, way in (("ours", ours), ("PML", metric_loss_only)):
            network, act = way(replace(recipe, seed=seed), splits)
            start = time.perf_counter()
            act()
            spent[name].append(time.perf_counter() - start)
            accuracy[name].append(score(network, splits))
    note = ", ".join(f"5-NN {name} {summary(values)}" for name, values in accuracy.items())
    yield Row(
        f"{epochs} epochs with shifts, {seeds} seeds",
        median(spent["ours"]),
        "PML MetricLossOnly, float32",
        median(spent["PML"]),
        goal=1 / 3,
        note=note,
    )


def epoch_times(splits: Splits, repeats: int) -> dict[str, float]:
    """Median seconds of one epoch without augmentation, our loop and the bare one in turns."""
    recipe = replace(RECIPE, epochs=1, augment="none")
    run = Run(recipe, splits, "cpu")
    batches = [(run.prepare(run.inputs, indices), run.labels[indices]) for indices in run.batches]
    turns = [one_turn(recipe, splits, batches) for _ in range(repeats)]
    return {name: median(turn[name] for turn in turns) for name in ("ours", "bare")}


def one_turn(recipe: Recipe, splits: Splits, batches: Batches) -> dict[str, float]:
    """Seconds of one epoch of each loop; network, optimiser and log are made before it."""
    torch.manual_seed(recipe.seed)
    network = small_network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), recipe.lr, fused=True)
    with tempfile.TemporaryDirectory() as folder:
        run, log = Run(recipe, splits, "cpu"), StepLog(Path(folder), 0)
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda: follow(run, log),
            "bare": lambda: bare(network, optimizer, batches),
        }
        times = seconds(ways, repeats=1, warm_up=False)
        log.close()
    return times


def fifteen_times(splits: Splits) -> Splits:
    """mnist-5k's 4,000 training digits as the 60,000 of full MNIST."""
    part = splits.train
    whole = replace(part, inputs=part.tensor.repeat(15, 1, 1, 1), labels=part.labels.repeat(15))
    return replace(splits, train=replace(whole, names=()))


Prepared = tuple[nn.Module, Callable[[], None]]
"""A network, and what trains it."""


def ours(recipe: Recipe, splits: Splits) -> Prepared:
    """Our loop and its logs."""
    run = Run(recipe, splits, "cpu")

    def act() -> None:
        with tempfile.TemporaryDirectory() as folder:
            log = StepLog(Path(folder), 0)
            follow(run, log)
            log.close()

    return run.backbone.module, act


def follow(run: Run, log: StepLog) -> None:
    """Our loop, to the end of the run."""
    for step in train(run):
        if step.watched:
            log.write(step, 0.0)


def bare(network: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
    """The same steps with nothing around them."""
    loss = RatioTriplet()
    for x, labels in batches:
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = network(x)
        loss(embeddings.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()


def metric_loss_only(recipe: Recipe, splits: Splits) -> Prepared:
    """pytorch-metric-learning's trainer, as its notebooks have it."""
    from pytorch_metric_learning.samplers import MPerClassSampler
    from pytorch_metric_learning.trainers import MetricLossOnly

    torch.manual_seed(recipe.seed)
    network = small_network()
    labels = splits.train.labels
    logging.getLogger("PML").setLevel(logging.WARNING)
    trainer = MetricLossOnly(
        models={"trunk": network},
        optimizers={"trunk_optimizer": torch.optim.Adam(network.parameters(), recipe.lr)},
        batch_size=recipe.batch,
        loss_funcs={"metric_loss": RatioTriplet()},
        dataset=PilPictures(splits.train),
        sampler=MPerClassSampler(labels, recipe.per_class, recipe.batch, len(labels)),
        dataloader_num_workers=2,
        data_device=torch.device("cpu"),
        dtype=torch.float32,
    )
    return network, lambda: trainer.train(num_epochs=recipe.epochs)


class PilPictures(torch.utils.data.Dataset):
    """One picture at a time through PIL and torchvision's transforms: the usual way."""

    def __init__(self, split: Split):
        from torchvision.transforms import v2

        self.pictures, self.labels = split.tensor[:, 0].numpy(), split.labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(28, padding=2),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.0], [1.0]),  # as the network wants them
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pictures[index])), self.labels[index]


def small_network() -> nn.Module:
    return models.make("network", {}, (1, 28, 28), RECIPE.dim)


def score(network: nn.Module, splits: Splits) -> float:
    """Accuracy of the 5 nearest training digits, embedded in float32."""
    network.eval()
    with torch.no_grad():
        query, train = (
            torch.cat([network(prepared(network, s, i)) for i in chunks(s)])
            for s in (splits.query, splits.train)
        )
    return knn_accuracy(
        query.contiguous(), splits.query.labels, train, splits.train.labels, metric="euclidean"
    )


def prepared(network: nn.Module, split: Split, indices: Tensor) -> Tensor:
    """Pictures as the network wants them."""
    made: Any = network
    return transforms.batch(split.inputs, indices, mean=made.mean, std=made.std)


def chunks(split: Split) -> tuple[Tensor, ...]:
    return torch.arange(len(split)).split(512)


def summary(values: list[float]) -> str:
    e = estimate(values)
    return f"{100 * e.mean:.2f} ± {100 * (e.high - e.mean):.2f} %"
