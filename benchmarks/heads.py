"""Linear heads on stored features: closed forms, and 24 heads in one batched product or one by one.

Features are random, as large as CUB's training set: 5,864 x 1,280 of 100 classes. A batched step
has 24 heads by normalised cross-entropy with a classifier each, as a search has settings: one
product of a batch of 128 with all heads, one loss, one backward pass, one step of Adam. The seconds
of closed forms are CPU time, which other work beside it changes less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Row, seconds
from nearkin.closed import Items, solve

TITLE = "Linear heads: closed forms, and many heads at once"
CLASSES, BATCH, HEADS = 100, 128, 24
SHRINKAGES = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)


def rows(quick: bool) -> Iterator[Row]:
    items, features = (600, 64) if quick else (5_864, 1_280)
    random = np.random.default_rng(0)
    y = np.arange(items) % CLASSES
    x = random.gamma(1.0, size=(items, features)).astype(np.float32)
    x += random.gamma(0.3, size=(CLASSES, features)).astype(np.float32)[y]
    yield from closed(x, y)
    for dim in (16,) if quick else (64, 512):
        yield batched(torch.from_numpy(x), torch.from_numpy(y), dim, repeats=2 if quick else 10)


def closed(x: np.ndarray, y: np.ndarray) -> Iterator[Row]:
    """Fits, and a search of shrinkages beside as many fits from the features."""
    size = f"{len(x):,} x {x.shape[1]:,}"
    for form in ("whitened", "lda"):
        whole = cpu_seconds(lambda form=form: fit(form, x, y, 1.0))
        yield Row(f"{form}, {size}, to 64-D", whole, budget=2.0)

        def search(form: str = form) -> None:
            shared = Items(x, y)
            for s in SHRINKAGES:
                solve(form, shared, 64, shrinkage=s)

        def apart(form: str = form) -> None:
            for s in SHRINKAGES:
                fit(form, x, y, s)

        found = seconds({"ours": search, "apart": apart}, repeats=2)
        peer = "each from the features"
        yield Row(f"{form}, {len(SHRINKAGES)} shrinkages", found["ours"], peer, found["apart"])


def cpu_seconds(function: Callable[[], None], repeats: int = 3) -> float:
    """Median CPU time of a call, over all threads."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return median(times)


def fit(form: str, x: np.ndarray, y: np.ndarray, shrinkage: float) -> None:
    solve(form, Items(x, y), 64, shrinkage=shrinkage)


def batched(x: Tensor, y: Tensor, dim: int, repeats: int) -> Row:
    """A step of all heads at once, beside as many steps one after the other."""
    apart = [make_step(x, y, dim, 1, head) for head in range(HEADS)]
    ways = {"at once": make_step(x, y, dim, HEADS, 0), "apart": lambda: [step() for step in apart]}
    found = seconds(ways, repeats)
    gap = difference(x, y, dim)
    return Row(
        f"a step of {HEADS} heads in one product, {dim}-D",
        found["at once"],
        "one by one",
        found["apart"],
        note=f"embeddings after 3 steps differ by {gap:.0e} of their length",
    )


def weights(features: int, dim: int, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Heads (K, D, F) and classifiers (K, C, D), each drawn from a seed of its own."""
    drawn = []
    for head in range(first, first + count):
        generator = torch.Generator().manual_seed(head)
        w = torch.randn(dim, features, generator=generator) * features**-0.5
        drawn.append((w, torch.randn(CLASSES, dim, generator=generator) * dim**-0.5))
    heads, classifiers = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    return heads.requires_grad_(), classifiers.requires_grad_()


def make_step(
    x: Tensor, y: Tensor, dim: int, count: int, first: int
) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that takes a step of `count` heads by the normalised cross-entropy of a batch, the
    same for all; it gives their weights."""
    heads, classifiers = weights(x.shape[1], dim, first, count)
    groups = [{"params": [heads], "lr": 1e-3}, {"params": [classifiers], "lr": 1e-2}]
    optimizer = torch.optim.Adam(groups, fused=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    taken = 0

    def step() -> tuple[Tensor, Tensor]:
        nonlocal taken
        chosen = order[torch.arange(taken, taken + BATCH) % len(x)]
        taken += BATCH
        z = x[chosen] @ heads.flatten(0, 1).T  # (B, K D)
        z = F.normalize(z.view(BATCH, count, dim), dim=2).transpose(0, 1)  # (K, B, D)
        logits = z @ F.normalize(classifiers, dim=2).transpose(1, 2) / 0.05  # (K, B, C)
        labels = y[chosen].expand(count, BATCH)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return heads.detach(), classifiers.detach()

    return step


def difference(x: Tensor, y: Tensor, dim: int) -> float:
    """The largest difference of embeddings after 3 steps at once and one by one, per length."""
    at_once, apart = make_step(x, y, dim, 3, 0), [make_step(x, y, dim, 1, k) for k in range(3)]
    for _ in range(3):
        together, one = at_once()[0], torch.cat([step()[0] for step in apart])
    z, wanted = (x[:BATCH] @ w.transpose(1, 2) for w in (together, one))
    return float((z - wanted).norm(dim=2).max() / wanted.norm(dim=2).mean())
