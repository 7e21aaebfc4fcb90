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

import torch

from nearkin.answers import Answer, Finding, Line, Lines, Table
from nearkin.losses import ProxyGML
from nearkin.runs.engine import Place, splits_of
from nearkin.runs.evaluate import watched_batch
from nearkin.runs.identity import named
from nearkin.runs.loop import train
from nearkin.runs.machine import Peak, machine
from nearkin.runs.outcome import described
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from nearkin.studies.shared.sentences import begun
from nearkin.studies.shared.sets import CUB, proxygml
from nearkin.studies.shared.words import signed
from nearkin.studies.study import Case, Measured, Study, Task

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


@dataclass(frozen=True)
class Setting:
    """One measurement of the loss: its sizes, and the weight of the proxies' own term."""

    classes: int
    proxies: int
    ratio: float
    weight: float = 0.0


def measure(data: str = CUB, epochs: int = 0, classes: int = 0) -> dict[Case, Task]:
    """Time and memory of one step, each in a fresh process; then proxies that are watched.

    Args:
        data: on which proxies are watched.
        epochs: for so long; 0 takes the common number.
        classes: the class count to measure at; 0 takes both.
    """
    found = {
        Case("cost", **asdict(s)): Task(name_of(asdict(s)), partial(cost, s))
        for s in settings(classes)
    }
    for name in VARIANTS:
        case = {"variant": name, "watched": data, "most_epochs": epochs}
        found[Case(name)] = Task(
            name_of({**case, "watched": named(data)}), partial(cosines, case), recipe_of(case)
        )
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
    return {"seconds": seconds, "megabytes": megabytes}


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


def recipe_of(case: dict) -> Recipe:
    """The run whose proxies are watched."""
    recipe = proxygml(case["watched"], case["most_epochs"], VARIANTS[case["variant"]])
    return replace(recipe, lr=3e-4)


def cosines(case: dict, place: Place) -> dict:
    """The mean cosine between two proxies of a class: at the start, and after each epoch."""
    recipe = recipe_of(case)
    run = Run(recipe, splits := splits_of(recipe, place), place.device)
    found = [watched_batch(run)["proxy_cosine"]]
    for _ in train(run):
        if run.epoch_ends:
            found.append(watched_batch(run)["proxy_cosine"])
    return {"cosines": found, "data": described(splits), "machine": machine(run.device)}


def answer(found: Measured) -> Answer:
    """Curves of time and memory over N, the cosines of kin proxies over epochs."""
    costs = {Setting(**dict(case.axes)): m.values for case, m in found.items() if case.axes}
    watched = {case.method: m.values["cosines"] for case, m in found.items() if not case.axes}
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(costs, watched)),
        findings=tuple(map(Finding, findings(costs, watched))),
        tables=(by_count(costs), table(costs)),
        figures=(
            over_counts(costs, "seconds", "Seconds a step over N"),
            over_counts(costs, "megabytes", "Megabytes a step over N"),
            Lines(
                "Do the proxies of a class stay apart?",
                "epoch",
                "mean cosine of two proxies of a class",
                tuple(
                    Line(name, tuple(map(float, range(len(cosines)))), tuple(cosines))
                    for name, cosines in watched.items()
                ),
            ),
        ),
    )


Costs = Mapping[Setting, Mapping[str, float]]


def by_count(costs: Costs) -> Table:
    """Milliseconds a step without the own term: N down, classes and r across."""
    plain = {s: values["seconds"] for s, values in costs.items() if not s.weight}
    kinds = list(dict.fromkeys((s.classes, s.ratio) for s in plain))
    counts = sorted({s.proxies for s in plain})

    def cell(n: int, kind: tuple[int, float]) -> float | None:
        seconds = plain.get(Setting(kind[0], n, kind[1]))
        return None if seconds is None else round(1000 * seconds, 1)

    return Table(
        title=f"Milliseconds a step: batch {BATCH}, {DIM}-D, without the own term",
        columns=("N", *(f"{classes:,} classes, r = {ratio:g}" for classes, ratio in kinds)),
        rows=tuple((str(n), *(cell(n, kind) for kind in kinds)) for n in counts),
        note="Forward and backward, medians of 5 steps.",
    )


def table(costs: Costs) -> Table:
    """Every setting with its cost."""
    return Table(
        title="Every setting: time and memory of one step",
        columns=("classes", "N", "r", "own term", "ms", "MB"),
        rows=tuple(
            (
                setting.classes,
                setting.proxies,
                f"{setting.ratio:g}",
                "yes" if setting.weight else "no",
                round(1000 * values["seconds"], 1),
                round(values["megabytes"], 1),
            )
            for setting, values in costs.items()
        ),
        note="Medians of 5 steps; memory: growth of a fresh process, gradients included.",
    )


def over_counts(costs: Costs, value: str, title: str) -> Lines:
    """A line for each class count, ratio, and with or without the own term."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for setting, values in costs.items():
        name = f"{setting.classes:,} classes, r = {setting.ratio:g}"
        name += ", own term" if setting.weight else ""
        curves.setdefault(name, []).append((setting.proxies, values[value]))
    lines = tuple(
        Line(name, tuple(float(n) for n, _ in sorted(found)), tuple(y for _, y in sorted(found)))
        for name, found in curves.items()
    )
    return Lines(title, "proxies a class, N", value, lines, log_x=True, log_y=True)


def summary(costs: Costs, watched: Mapping[str, Sequence[float]]) -> list[str]:
    """How cost grows with N and r at the most classes, and whether kin proxies fall together."""
    if not costs:
        return []
    classes = max(setting.classes for setting in costs)
    counts = [setting.proxies for setting in costs if setting.classes == classes]
    one, most = min(counts), max(counts)
    few, many, whole = (
        costs.get(Setting(classes, n, r)) for n, r in ((one, 0.05), (most, 0.05), (most, 1.0))
    )
    lines = []
    if few and many and whole:
        lines.append(
            f"With {classes:,} classes, {most} proxies a class cost "
            f"{many['seconds'] / few['seconds']:.1f} times the time of one, and joining every "
            f"sample to all of them {whole['seconds'] / many['seconds']:.1f} times that."
        )
    released = watched.get("as released")
    if released:
        apart = "fall together" if released[-1] > 0.9 else "stay apart"
        lines.append(
            f"The proxies of a class {apart} while they train: their cosine ends at "
            f"{signed(released[-1])}."
        )
    return lines


def findings(costs: Costs, watched: Mapping[str, Sequence[float]]) -> list[str]:
    """How cost grows with N and r, and how near kin proxies end."""
    found = []
    seconds = {setting: values["seconds"] for setting, values in costs.items()}
    for classes, counts in COUNTS.items():
        few, many = (seconds.get(Setting(classes, n, 0.05)) for n in (counts[0], counts[-1]))
        whole = seconds.get(Setting(classes, counts[-1], 1.0))
        if few and many and whole:
            found.append(
                f"With {classes:,} classes a step with {counts[-1]} proxies a class takes "
                f"{many / few:.1f} times as long as with one (r = 0.05); joining every sample to "
                f"all of them (r = 1) then takes {whole / many:.1f} times as long as r = 0.05."
            )
    found += [
        f"{begun(name)}, two proxies of a class have a cosine of {signed(cosines[0])} at the start "
        f"and of {signed(cosines[-1])} after {len(cosines) - 1} epochs."
        for name, cosines in watched.items()
    ]
    return found


DEMO = {"data": "mnist-5k", "epochs": 2, "classes": 100}
STUDY = Study(TITLE, QUESTION, answer, measure=measure, demo=DEMO)
