"""The last stages of EfficientNet-lite0, trained from stored maps, beside all of it and heads.

All take steps of one batch of random pictures of 224 px, by multi-similarity into 512-D, with batch
norm frozen, in one process; times are CPU time of an image of a step, the median of a few. The
whole network also makes its crops in a step, and a head has stored features. What storing costs is
that of an image once, where an epoch needs it not again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmarks.timing import Row
from nearkin.data import Split, Splits
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

TITLE = "The tail of a network, trained from stored feature maps"
SIDE, FEATURES = 224, 1_280
RECIPE = Recipe(
    backbone="lite0",
    backbone_options={"batch_norm": "frozen"},
    dim=512,
    loss="multi-similarity",
    augment="crop-flip",
    epochs=100,
    optimizer="adamw",
)


def rows(quick: bool) -> Iterator[Row]:
    size, side, steps = (8, 64, 1) if quick else (16, SIDE, 3)
    recipe = replace(RECIPE, batch=size, per_class=2, size=side)
    head = replace(recipe, backbone="linear", backbone_options={}, augment="none", size=0)
    splits, notes = pictures(size, side), {}
    before = os.environ.get("NEARKIN_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEARKIN_CACHE"] = folder
        try:
            runs = {"all learns": Run(recipe, splits, "cpu")}
            for tail in (1,) if quick else (1, 2, 3):
                start, name = time.process_time(), f"tail={tail}"
                run = Run(replace(recipe, tail=tail, tail_crops=2), splits, "cpu")
                spent = (time.process_time() - start) / sum(map(len, maps_of(run)))
                runs[name], notes[name] = run, f"and {1e3 * spent:.0f} ms to store a map"
        finally:
            os.environ.pop("NEARKIN_CACHE")
            if before is not None:
                os.environ["NEARKIN_CACHE"] = before
    runs["a head on features"] = Run(head, vectors(size), "cpu")
    found = of_an_image(runs, steps)
    whole = found.pop("all learns")
    for name, ours in found.items():
        what = f"an image of a step, {name}"
        yield Row(what, ours, "all learns", whole, note=notes.get(name, ""))


def of_an_image(runs: dict[str, Run], steps: int) -> dict[str, float]:
    """Median CPU seconds of an image in a step of each run, which take turns, after one step that
    warms up."""
    going = {name: train(run) for name, run in runs.items()}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + steps):
        for name, each in going.items():
            start = time.process_time()
            next(each)
            spent[name].append((time.process_time() - start) / runs[name].recipe.batch)
    return {name: median(times[1:]) for name, times in spent.items()}


def maps_of(run: Run) -> list[Any]:
    """The stored tables of a run."""
    assert run.tail
    return [run.tail.centres, *run.tail.augmented]


def pictures(count: int, side: int) -> Splits:
    """So many random pictures train; four test."""
    random = torch.Generator().manual_seed(0)

    def split(items: int, name: str) -> Split:
        x = torch.randint(0, 256, (items, 3, side, side), dtype=torch.uint8, generator=random)
        y = torch.arange(items) // 2
        return Split(x, y, tuple(f"{name}{i}" for i in range(items // 2)))

    test = split(4, "test")
    return Splits("random pictures", split(count, "train"), test, test)


def vectors(count: int) -> Splits:
    """As many vectors in place of the pictures."""
    whole = pictures(count, 1)

    def split(part: Split) -> Split:
        random = torch.Generator().manual_seed(len(part))
        return replace(part, inputs=torch.rand(len(part), FEATURES, generator=random))

    test = split(whole.query)
    return Splits("random vectors", split(whole.train), test, test)
