"""One run over several processes: what the way itself costs, and what two of them bring.

The first row is a step in a process group of one, which gathers, cuts and sums with nobody, beside
the step of a process that is in no group; both in one process, in turns. The others are images a
second of two processes on two cores beside one process with one thread, as whole epochs have them:
of one run whose batch normalisation is frozen, as `nearkin train` fine-tunes photographs; and the
bound that the machine sets to it, two processes that know nothing of each other, and so gather, sum
and wait for nothing: caches and memory are all that they share. The last is one run whose batch
normalisation is live, for which the two must meet twice in each of 49 layers.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.timing import Row
from nearkin.data import Split, Splits
from nearkin.runs.loop import train
from nearkin.runs.machine import keep_freed_memory
from nearkin.runs.ranks import ALONE, current
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

TITLE = "One run over several processes: lite0 at 96 px"
TOGETHER: Any = None
"""Where two unrelated processes begin at once, in each of them."""
RECIPE = Recipe(
    data="noise",
    backbone="lite0",
    backbone_options={"weights": "none", "batch_norm": "frozen"},
    dim=64,
    loss="proxy-anchor",
    augment="crop-flip",
    size=96,
    epochs=1,
    steps=1000,
)
LIVE = replace(RECIPE, backbone_options={"weights": "none"})


def rows(quick: bool) -> Iterator[Row]:
    steps, turns = (1, 2) if quick else (4, 5)
    load = os.getloadavg()[0]
    alone, among = in_processes(1, steps, turns)[0]
    yield Row(
        "a step in a process group of one",
        among,
        "a step in no group",
        alone,
        goal=1.03,
        note=f"load {load:.1f}",
    )
    one, two, halves = [], [], []
    for _ in range(turns):
        one.append(in_processes(1, steps, 1)[0][0])
        two.append(max(found[1] for found in in_processes(2, steps, 1)))
        halves.append(unrelated(RECIPE.batch // 2, steps))
    yield gain_row("by two processes of one thread", one, two, goal=1 / 1.7)
    yield gain_row("by two unrelated processes in batches of 64", one, halves)
    one, two = [], []
    for _ in range(turns):
        one.append(in_processes(1, steps, 1, LIVE)[0][0])
        two.append(max(found[1] for found in in_processes(2, steps, 1, LIVE)))
    yield gain_row("by two processes, batch normalisation synchronised", one, two)


def gain_row(what: str, one: list[float], two: list[float], goal: float | None = None) -> Row:
    """Seconds of 128 images by two processes beside one: the fastest of each, and what they gain in
    images a second."""
    gain = median(a / b for a, b in zip(one, two, strict=True))
    return Row(
        f"128 images {what}",
        min(two),
        "one process of one thread",
        min(one),
        goal=goal,
        note=f"images/s: {min(one) / min(two):.2f} x, the fastest of {len(one)} each; "
        f"median {gain:.2f} x; load {os.getloadavg()[0]:.1f}",
    )


def pictures() -> Splits:
    """96 x 96 pictures of noise: 40 classes of 10."""
    x = torch.randint(0, 256, (400, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    y, names = torch.arange(400) // 10, tuple(f"{c}" for c in range(40))
    train = Split(x.to(torch.uint8), y, names)
    test = Split(train.inputs, y, tuple(f"new {c}" for c in range(40)))
    return Splits("noise", train, test, test)


def in_processes(
    count: int, steps: int, turns: int, recipe: Recipe = RECIPE
) -> list[tuple[float, float]]:
    """Seconds a step in each of `count` processes: alone (of one process), and in their group."""
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Pool(count) as pool:
        meet = f"file://{folder}/meet"
        given = [(rank, count, meet, steps, turns, recipe) for rank in range(count)]
        return pool.starmap(measure, given, chunksize=1)


def unrelated(batch: int, steps: int) -> float:
    """Seconds a step of the slower of two processes that train at once, each a run of its own; they
    begin together, and what one does after the other has ended does not count."""
    context = get_context("spawn")
    together = context.Barrier(2)
    with context.Pool(2, initializer=meet_at, initargs=(together,)) as pool:
        times = pool.starmap(step_times, [(batch, steps)] * 2, chunksize=1)
    return max(map(median, times))


def meet_at(barrier: Any) -> None:
    """Keep the place where a process of `unrelated` waits for the other one."""
    global TOGETHER
    TOGETHER = barrier


def step_times(batch: int, steps: int) -> list[float]:
    """Seconds of the steps of a run of one thread; one more at each end keeps the other company."""
    torch.set_num_threads(1)
    keep_freed_memory()
    steps_of = train(Run(replace(RECIPE, batch=batch), pictures(), "cpu", ranks=ALONE))
    next(steps_of)
    TOGETHER.wait()
    times = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        next(steps_of)
        times.append(time.perf_counter() - began)
    return times[1:-1]


def measure(
    rank: int, count: int, meet: str, steps: int, turns: int, recipe: Recipe
) -> tuple[float, float]:
    torch.set_num_threads(1)
    keep_freed_memory()
    if Path("/sys/class/net/lo").exists():
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=count)
    splits = pictures()
    ways: dict[str, Any] = {"among": train(Run(recipe, splits, "cpu", ranks=current()))}
    if count == 1:
        ways["alone"] = train(Run(recipe, splits, "cpu", ranks=ALONE))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for steps_of in ways.values():
        next(steps_of)  # the first step tries the network out
    for _ in range(turns):
        for name, steps_of in ways.items():
            for _ in range(steps):
                began = time.perf_counter()
                next(steps_of)
                times[name].append(time.perf_counter() - began)
    dist.destroy_process_group()
    return median(times.get("alone", [0.0])), median(times["among"])
