"""What ProxyGML costs: time and memory of its loss over N and r; and what N buys."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch

from nearkin.answers import Answer, Line, Lines, Table
from nearkin.losses import ProxyGML
from nearkin.runs.engine import Place, splits_of
from nearkin.runs.evaluate import watched_batch
from nearkin.runs.executors import Measurements
from nearkin.runs.loop import Run, train
from nearkin.runs.machine import Peak, machine
from nearkin.runs.row import Measurement
from nearkin.studies.shared.sets import CUB, proxygml

TITLE = "What ProxyGML costs"
QUESTION = (
    "The graph is sparse so that many classes stay cheap. What do a class's N proxies, and the "
    "share r of them that a sample is joined to, cost in time and memory? And does a class keep N "
    "different proxies for it, or do they fall together?"
)
BATCH, DIM, STEPS = 128, 512, 5
RATIOS = (0.05, 0.2, 1.0)
COUNTS = {100: (1, 2, 4, 8, 12, 16, 24), 11_318: (1, 2, 4)}
"""Training classes (of CUB-200-2011; of Stanford Online Products) -> proxies a class."""

VARIANTS: dict[str, dict] = {
    "as released": {},
    "without L^p": {"weight": 0.0},
    "without S^pos": {"positives": "none"},
}
"""Whose proxies are watched while they train: 12 a class."""

DEMO = {"data": "mnist-5k", "epochs": 2, "classes": 100}
"""The options of a short form that needs no data set."""


Values = Mapping[str, Any]
"""What one measurement gave."""


@dataclass(frozen=True)
class Setting:
    """One measurement of the loss: its sizes, and the weight of the proxies' own term."""

    classes: int
    proxies: int
    ratio: float
    weight: float = 0.0


def measure(data: str = CUB, epochs: int = 0, classes: int = 0) -> Measurements:
    """Time and memory of one step, each in a fresh process; then proxies that are watched.

    Args:
        data: on which proxies are watched.
        epochs: for so long; 0 takes the common number.
        classes: the class count to measure at; 0 takes both.
    """
    found: Measurements = {name_of(asdict(s)): partial(cost, s) for s in settings(classes)}
    for name in VARIANTS:
        asked = {"variant": name, "watched": data, "most_epochs": epochs}
        found[name_of(asked)] = partial(cosines, asked)
    return found


def settings(classes: int) -> list[Setting]:
    """Every N and r; with the own term too where classes are few."""
    found = []
    for many, counts in COUNTS.items():
        if classes in (0, many):
            weights = (0.0, 0.3) if many <= 1_000 else (0.0,)
            found += [Setting(many, n, r, w) for w in weights for r in RATIOS for n in counts]
    return found


def name_of(value: dict) -> str:
    """12 hex digits of what was measured."""
    return sha256(repr(sorted(value.items())).encode()).hexdigest()[:12]


def cost(setting: Setting, place: Place) -> dict:
    """What one setting takes, in a process of its own."""
    threads = (torch.get_num_threads(),)  # which a fresh process does not inherit
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, threads) as fresh:
        seconds, megabytes = fresh.submit(step_cost, setting).result()
    return {"setting": asdict(setting), "seconds": seconds, "megabytes": megabytes}


def step_cost(setting: Setting) -> tuple[float, float]:
    """Median seconds of a forward and backward, and the megabytes that they add to the process."""
    torch.manual_seed(0)
    loss = ProxyGML(dim=DIM, **asdict(setting))
    embeddings = torch.randn(BATCH, DIM, requires_grad=True)
    labels = torch.randint(setting.classes, (BATCH,))
    peak, times = Peak(torch.device("cpu")), []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        embeddings.grad = loss.proxies.grad = None
        loss(embeddings, labels).backward()
        times.append(time.perf_counter() - start)
    return median(times[1:]), float(peak.megabytes())


def cosines(asked: dict, place: Place) -> dict:
    """The mean cosine between two proxies of a class: at the start, and after each epoch."""
    recipe = proxygml(asked["watched"], asked["most_epochs"], VARIANTS[asked["variant"]])
    recipe = replace(recipe, lr=3e-4)
    run = Run(recipe, splits_of(recipe, place), place.device)
    found = [watched_batch(run)["proxy_cosine"]]
    for _ in train(run):
        if run.epoch_ends:
            found.append(watched_batch(run)["proxy_cosine"])
    return {**asked, "cosines": found, "machine": machine(run.device)}


def answer(rows: list[Measurement]) -> Answer:
    """Curves of time and memory over N, the cosines of kin proxies over epochs."""
    costs = [row.values for row in rows if "setting" in row.values]
    watched = [row.values for row in rows if "variant" in row.values]
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(findings(costs, watched)),
        tables=(table(costs),),
        figures=(
            over_counts(costs, "seconds", "Seconds a step over N"),
            over_counts(costs, "megabytes", "Megabytes a step over N"),
            Lines(
                "Do the proxies of a class stay apart?",
                "epoch",
                "mean cosine of two proxies of a class",
                tuple(
                    Line(row["variant"], tuple(map(float, range(len(c)))), tuple(c))
                    for row in watched
                    for c in [row["cosines"]]
                ),
            ),
        ),
    )


def table(rows: Sequence[Values]) -> Table:
    """Every setting with its cost."""
    return Table(
        title=f"One step, forward and backward: batch {BATCH}, {DIM}-D",
        columns=("classes", "N", "r", "own term", "ms", "MB"),
        rows=tuple(
            (
                row["setting"]["classes"],
                row["setting"]["proxies"],
                f"{row['setting']['ratio']:g}",
                "yes" if row["setting"]["weight"] else "no",
                round(1000 * row["seconds"], 1),
                round(row["megabytes"], 1),
            )
            for row in rows
        ),
        note="Medians of 5 steps; memory: growth of a fresh process, gradients included.",
    )


def over_counts(rows: Sequence[Values], key: str, title: str) -> Lines:
    """A line for each class count, ratio, and with or without the own term."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        s = row["setting"]
        name = f"{s['classes']:,} classes, r = {s['ratio']:g}"
        name += ", own term" if s["weight"] else ""
        curves.setdefault(name, []).append((s["proxies"], row[key]))
    lines = tuple(
        Line(name, tuple(float(n) for n, _ in sorted(found)), tuple(y for _, y in sorted(found)))
        for name, found in curves.items()
    )
    return Lines(title, "proxies a class, N", key, lines, log_x=True, log_y=True)


def findings(costs: Sequence[Values], watched: Sequence[Values]) -> list[str]:
    """How cost grows with N and r, and how near kin proxies end."""
    said = []
    by_setting = {Setting(**row["setting"]): row["seconds"] for row in costs}
    for classes, counts in COUNTS.items():
        few, many = (by_setting.get(Setting(classes, n, 0.05)) for n in (counts[0], counts[-1]))
        whole = by_setting.get(Setting(classes, counts[-1], 1.0))
        if few and many and whole:
            said.append(
                f"{classes:,} classes: {counts[-1]} proxies a class instead of 1 take "
                f"{many / few:.1f} times as long at r = 0.05; r = 1 instead of 0.05 then takes "
                f"{whole / many:.1f} times as long."
            )
    said += [
        f"{row['variant']}: two proxies of a class have a cosine of {row['cosines'][0]:z.2f} at "
        f"the start and of {row['cosines'][-1]:z.2f} after {len(row['cosines']) - 1} epochs."
        for row in watched
    ]
    return said
