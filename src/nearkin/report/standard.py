"""What every page says, from rows alone: which runs, three numbers of each, what choosing costs.

last           the last epoch: the result
validated      the epoch that validation chose
best on test   the best epoch on test: what choosing the epoch there would have said
bias           best on test - last, of the same run: what that choice adds
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nearkin.answers import Line, Lines, Table
from nearkin.measure.statistics import Estimate, estimate
from nearkin.names import typed
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.row import Data, Machine, Row, Stored

MOST_CURVES = 14
FIRST_NAMED = ("loss", "loss_options", "miner", "backbone", "backbone_options", "dim", "data")


@dataclass(frozen=True)
class Metric:
    """A metric of rows: its key there, and its name here."""

    key: str
    name: str

    def of(self, row: Row, which: str = "last") -> float | None:
        """A row's number: last, validated or best_on_test; None where it has none."""
        return (getattr(row.metrics, which) or {}).get(self.key)


METRICS = (
    Metric("in_train.recall@1", "R@1 among training images"),
    Metric("knn_accuracy", "5-NN accuracy"),
    Metric("recall@1", "R@1"),
)


def headline(rows: Sequence[Row]) -> Metric:
    """The metric of the standard parts: the first that all finished runs have."""
    finished = [row for row in rows if row.metrics.last]
    found = (m for m in METRICS if finished and all(m.of(row) is not None for row in finished))
    return next(found, METRICS[-1])


def shared(rows: Sequence[Row]) -> dict:
    """The fields that all recipes have in common, with their values."""
    recipes = [row.recipe.plain() for row in rows]
    first = recipes[0] if recipes else {}
    return {k: v for k, v in first.items() if all(r[k] == v for r in recipes)}


def own(row: Row, common: Mapping) -> dict:
    """The fields of a row's recipe that are not those of all."""
    return {k: v for k, v in row.recipe.plain().items() if k not in common}


def key(recipe: Mapping, names: Sequence[str]) -> str:
    return json.dumps([recipe.get(name) for name in names], sort_keys=True)


def methods(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that differ in the seed alone, under a name that tells them from all others.

    The name is the loss and as few other fields as will do; a run that starts from another one of
    these rows is named by that one's name.
    """
    starts = {row.recipe.start for row in rows}
    sources = methods([row for row in rows if row.hash in starts]) if starts - {""} else {}
    names = {row.hash: f"({name})" for name, group in sources.items() for row in group}
    recipes = [row.recipe.plain() for row in rows]
    recipes = [r | {"start": names.get(r["start"], r["start"])} for r in recipes]
    every = [name for name in dict.fromkeys([*FIRST_NAMED, *DEFAULTS]) if name != "seed"]

    def kinds(names: Sequence[str]) -> int:
        return len({key(recipe, names) for recipe in recipes})

    named = ["loss"]
    for name in every:
        if kinds(named) < kinds([*named, name]):
            named.append(name)
    groups: dict[str, list[Row]] = {}
    for row, recipe in zip(rows, recipes, strict=True):
        parts = [spell(name, recipe.get(name)) for name in named]
        groups.setdefault(", ".join(filter(None, parts)), []).append(row)
    return groups


def spell(name: str, value: object) -> str:
    """A field in the name of a method: the loss by itself, options as k=v, others after their name.

    >>> spell("loss", "n-pair"), spell("loss_options", {"l2": 0.1}), spell("dim", 2)
    ('n-pair', 'l2=0.1', 'dim 2')
    """
    if isinstance(value, Mapping):
        return " ".join(f"{k}={v}" for k, v in value.items())
    return (
        str(value) if name == "loss" else f"{name.replace('_', ' ')} {value}" if value != "" else ""
    )


def command(recipe: Recipe) -> str:
    """The command that does one run: the fields that differ from the defaults.

    >>> command(Recipe(loss="n-pair", loss_options={"l2": 0.1}, validate=True, epochs=4))
    'nearkin train --validate --loss n-pair --loss-options l2=0.1'
    """
    words = ["nearkin", "train"]
    for name, value in recipe.changes().items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, Mapping):
            words += [flag, *(f"{k}={typed(v)}" for k, v in value.items())]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def runs(rows: Sequence[Row], named: Mapping[str, Sequence[Row]]) -> Table:
    """One line a run, in the order of `named`."""
    metric = headline(rows)
    numbers = ("last", "validated", "best on test")
    return Table(
        title="Runs",
        columns=("method", "recipe", "seed", "status", *numbers, "seconds"),
        rows=tuple(
            (
                name,
                row.hash,
                row.recipe.seed,
                row.status,
                *(metric.of(row, which.replace(" ", "_")) for which in numbers),
                row.cost.seconds,
            )
            for name, group in named.items()
            for row in group
        ),
        note=f"{metric.name} of the last epoch, of the epoch that validation chose, and of the "
        "best epoch on test.",
        percent=numbers,
    )


def selection(rows: Sequence[Row], named: Mapping[str, Sequence[Row]]) -> Table:
    """Three numbers of every method, and how much choosing the epoch on test would add."""
    metric = headline(rows)

    def mean(values: Sequence[float | None]) -> Estimate | None:
        known = [v for v in values if v is not None]
        return estimate(known) if known else None

    def line(name: str, group: Sequence[Row]) -> tuple:
        finished = [row for row in group if row.status != "diverged"]
        last, validated, best = (
            [metric.of(row, which) for row in finished]
            for which in ("last", "validated", "best_on_test")
        )
        pairs = [(a, b) for a, b in zip(best, last, strict=True) if a is not None and b is not None]
        bias = mean([a - b for a, b in pairs])
        diverged = len(group) - len(finished)
        return name, len(group), diverged, mean(last), mean(validated), mean(best), bias

    return Table(
        title=f"{metric.name}: three numbers of every method",
        columns=(
            "method",
            "runs",
            "diverged",
            "last epoch",
            "validated epoch",
            "best on test",
            "bias",
        ),
        rows=tuple(line(name, group) for name, group in named.items()),
        note="The last epoch is the result. Bias is what choosing the epoch on the test set would "
        "add to it, in points. Means over seeds with 95 % t-intervals.",
        percent=("last epoch", "validated epoch", "best on test", "bias"),
    )


def curves(rows: Sequence[Row], named: Mapping[str, Sequence[Row]]) -> Lines | None:
    """The headline metric on test over the epochs of every method; None where that is no curve."""
    metric = headline(rows)
    lines = [line for name, group in named.items() if (line := curve(name, group, metric))]
    if not lines or len(named) > MOST_CURVES:
        return None
    return Lines(
        title=f"{metric.name} on test over training",
        x="epoch",
        y=metric.name,
        lines=tuple(lines),
        note="Means over seeds; the bands are 95 % t-intervals.",
        percent=True,
    )


def curve(name: str, group: Sequence[Row], metric: Metric) -> Line | None:
    """One method's mean and interval at every epoch that was examined; None for fewer than two."""
    values: dict[float, list[float]] = {}
    for row in group:
        for epoch in row.epochs:
            if epoch.test and metric.key in epoch.test:
                values.setdefault(epoch.epoch, []).append(epoch.test[metric.key])
    if len(values) < 2:
        return None
    x = sorted(values)
    return Line.of(name, x, [estimate(values[epoch]) for epoch in x])


def duration(seconds: float) -> str:
    """
    >>> duration(8), duration(754), duration(8000)
    ('8 s', '12 min 34 s', '2 h 13 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count(n: int, thing: str) -> str:
    """
    >>> count(1, "core"), count(2000, "run")
    ('1 core', '2,000 runs')
    """
    return f"{n:,} {thing}" + ("s" if n != 1 else "")


def facts(rows: Sequence[Stored]) -> list[tuple[str, list[str]]]:
    """What the numbers were measured on and with: data, machine, versions, time."""
    seconds = [row.cost.seconds for row in rows if row.cost.seconds]
    time = f", {duration(sum(seconds))} in all" if seconds else ""
    seeds = sorted({row.recipe.seed for row in rows if isinstance(row, Row)})
    kind = "run" if seeds or not rows else "measurement"
    machines = [machine_words(row.machine) for row in rows]
    versions = [", ".join(f"{k} {v}" for k, v in row.versions.items()) for row in rows]
    return [
        ("data", counted([data_words(row.data) for row in rows if row.data], kind)),
        ("seeds", [", ".join(map(str, seeds))] if seeds else []),
        ("machine", counted(machines, kind)),
        ("versions", counted(versions, kind)),
        ("time", [f"{count(len(rows), kind)}{time}"]),
    ]


def counted(texts: Sequence[str], kind: str) -> list[str]:
    """Every different text, with how many runs had it; none of those that are empty."""
    found = Counter(filter(None, texts))
    return [f"{text} ({count(n, kind)})" if len(found) > 1 else text for text, n in found.items()]


def data_words(data: Data) -> str:
    """A data set in words: its name, what its inputs are, its sizes."""
    kinds = "train_images", "train_classes", "query_images", "gallery_images", "test_classes"
    counts = [f"{n:,} {k.replace('_', ' ')}" for k in kinds if (n := getattr(data, k))]
    return ", ".join(filter(None, [data.name, data.variant, *counts]))


def machine_words(machine: Machine) -> str:
    """A machine in words: graphics card, processor, cores, system."""
    cores = count(machine.cores, "core") if machine.cores else None
    return ", ".join(filter(None, [machine.gpu, machine.cpu, cores, machine.system]))
