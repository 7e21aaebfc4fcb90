"""One run over several processes: what the way itself costs, and what two of them bring.

The first row is a step in a process group of one, which gathers, cuts and sums with nobody, beside
the step of a process that is in no group; both in one process, in turns. The second is images a
second of two processes on two cores beside one process with one thread, as whole epochs have them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
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
RECIPE = Recipe(
    data="noise",
    backbone="lite0",
    backbone_options={"weights": "none"},
    dim=64,
    loss="proxy-anchor",
    augment="crop-flip",
    size=96,
    epochs=1,
    steps=1000,
)


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
    one, two = [], []
    for _ in range(turns):
        one.append(in_processes(1, steps, 1)[0][0])
        two.append(max(found[1] for found in in_processes(2, steps, 1)))
    gain = median(a / b for a, b in zip(one, two, strict=True))
    best = min(one) / min(two)
    yield Row(
        "a step of 128 images by two processes of one thread",
        min(two),
        "one process of one thread",
        min(one),
        goal=1 / 1.7,
        note=f"images/s: {best:.2f} x, the fastest of {turns} each; median {gain:.2f} x; "
        f"load {os.getloadavg()[0]:.1f}",
    )


def pictures() -> Splits:
    """96 x 96 pictures of noise: 40 classes of 10."""
    x = torch.randint(0, 256, (400, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    y, names = torch.arange(400) // 10, tuple(f"{c}" for c in range(40))
    train = Split(x.to(torch.uint8), y, names)
    test = Split(train.inputs, y, tuple(f"new {c}" for c in range(40)))
    return Splits("noise", train, test, test)


def in_processes(count: int, steps: int, turns: int) -> list[tuple[float, float]]:
    """Seconds a step in each of `count` processes: alone (of one process), and in their group."""
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Pool(count) as pool:
        given = [(rank, count, f"file://{folder}/meet", steps, turns) for rank in range(count)]
        return pool.starmap(measure, given, chunksize=1)


def measure(rank: int, count: int, meet: str, steps: int, turns: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    keep_freed_memory()
    if Path("/sys/class/net/lo").exists():
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=count)
    splits = pictures()
    ways: dict[str, Any] = {"among": train(Run(RECIPE, splits, "cpu", ranks=current()))}
    if count == 1:
        ways["alone"] = train(Run(RECIPE, splits, "cpu", ranks=ALONE))
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
