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
from nearkin.runs.recipe import DEFAULTS

MOST_CURVES = 14
FIRST_NAMED = ("loss", "loss_options", "miner", "backbone", "backbone_options", "dim", "data")


@dataclass(frozen=True)
class Metric:
    """A metric of rows: its key there, and its name here."""

    key: str
    name: str

    def of(self, row: dict, which: str = "last") -> float | None:
        """A row's number: last, validated or best_on_test; None where it has none."""
        return (row.get("metrics", {}).get(which) or {}).get(self.key)


METRICS = (Metric("knn_accuracy", "5-NN accuracy"), Metric("recall@1", "R@1"))


def headline(rows: Sequence[dict]) -> Metric:
    """The metric of the standard parts: the first that all finished runs have."""
    finished = [row for row in rows if row.get("metrics", {}).get("last")]
    found = (m for m in METRICS if finished and all(m.of(row) is not None for row in finished))
    return next(found, METRICS[-1])


def shared(rows: Sequence[dict]) -> dict:
    """The fields that all recipes have in common, with their values."""
    recipes = [row.get("recipe", {}) for row in rows]
    first = recipes[0] if recipes else {}
    return {k: v for k, v in first.items() if all(k in r and r[k] == v for r in recipes)}


def own(row: dict, common: Mapping) -> dict:
    """The fields of a row's recipe that are not those of all."""
    return {k: v for k, v in row.get("recipe", {}).items() if k not in common}


def key(recipe: Mapping, names: Sequence[str]) -> str:
    return json.dumps([recipe.get(name) for name in names], sort_keys=True)


def methods(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """Rows that differ in the seed alone, under a name that tells them from all others.

    The name is the loss and as few other fields as will do; a run that starts from another one of
    these rows is named by that one's name.
    """
    recipes = [row.get("recipe", {}) for row in rows]
    starts = {recipe.get("start") for recipe in recipes}
    sources = methods([row for row in rows if row["hash"] in starts]) if starts - {None, ""} else {}
    names = {row["hash"]: f"({name})" for name, group in sources.items() for row in group}
    recipes = [r | {"start": names[r["start"]]} if r.get("start") in names else r for r in recipes]
    every = [name for name in dict.fromkeys([*FIRST_NAMED, *DEFAULTS]) if name != "seed"]

    def kinds(names: Sequence[str]) -> int:
        return len({key(recipe, names) for recipe in recipes})

    named = ["loss"]
    for name in every:
        if kinds(named) < kinds([*named, name]):
            named.append(name)
    groups: dict[str, list[dict]] = {}
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


def command(recipe: Mapping) -> str:
    """The command that does one run: the fields that differ from the defaults.

    >>> command({"loss": "n-pair", "loss_options": {"l2": 0.1}, "validate": True, "epochs": 4})
    'nearkin train --validate --loss n-pair --loss-options l2=0.1'
    """
    words = ["nearkin", "train"]
    for name, default in DEFAULTS.items():
        value = recipe.get(name, default)
        if value == default:
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, Mapping):
            words += [flag, *(f"{k}={typed(v)}" for k, v in value.items())]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def runs(rows: Sequence[dict], named: Mapping[str, Sequence[dict]]) -> Table:
    """One line a run, in the order of `named`."""
    metric = headline(rows)
    numbers = ("last", "validated", "best on test")
    return Table(
        title="Runs",
        columns=("method", "recipe", "seed", "status", *numbers, "seconds"),
        rows=tuple(
            (
                name,
                row["hash"],
                row.get("recipe", {}).get("seed"),
                row.get("status", ""),
                *(metric.of(row, which.replace(" ", "_")) for which in numbers),
                row.get("cost", {}).get("seconds"),
            )
            for name, group in named.items()
            for row in group
        ),
        note=f"{metric.name} of the last epoch, of the epoch that validation chose, and of the "
        "best epoch on test.",
        percent=numbers,
    )


def selection(rows: Sequence[dict], named: Mapping[str, Sequence[dict]]) -> Table:
    """Three numbers of every method, and how much choosing the epoch on test would add."""
    metric = headline(rows)

    def mean(values: Sequence[float | None]) -> Estimate | None:
        known = [v for v in values if v is not None]
        return estimate(known) if known else None

    def line(name: str, group: Sequence[dict]) -> tuple:
        finished = [row for row in group if row.get("status") != "diverged"]
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


def curves(rows: Sequence[dict], named: Mapping[str, Sequence[dict]]) -> Lines | None:
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


def curve(name: str, group: Sequence[dict], metric: Metric) -> Line | None:
    """One method's mean and interval at every epoch that was examined; None for fewer than two."""
    values: dict[float, list[float]] = {}
    for row in group:
        for epoch in row.get("epochs", []):
            if metric.key in (epoch.get("test") or {}):
                values.setdefault(epoch["epoch"], []).append(epoch["test"][metric.key])
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


def facts(rows: Sequence[dict]) -> list[tuple[str, list[str]]]:
    """What the numbers were measured on and with: data, machine, versions, time."""
    seconds = [row["cost"]["seconds"] for row in rows if row.get("cost", {}).get("seconds")]
    time = f", {duration(sum(seconds))} in all" if seconds else ""
    seeds = sorted({s for row in rows if (s := row.get("recipe", {}).get("seed")) is not None})
    return [
        ("data", counted(rows, "data", data_words)),
        ("seeds", [", ".join(map(str, seeds))] if seeds else []),
        ("machine", counted(rows, "machine", machine_words)),
        ("versions", counted(rows, "versions", lambda v: ", ".join(f"{k} {v[k]}" for k in v))),
        ("time", [f"{count(len(rows), 'run')}{time}"]),
    ]


def counted(rows: Sequence[dict], part: str, words) -> list[str]:
    """Every different value of a part of the rows in words, with how many runs had it."""
    found = Counter(words(row[part]) for row in rows if row.get(part))
    return [f"{text} ({count(n, 'run')})" if len(found) > 1 else text for text, n in found.items()]


def data_words(data: Mapping) -> str:
    kinds = "train_images", "train_classes", "query_images", "gallery_images", "test_classes"
    counts = [f"{data[k]:,} {k.replace('_', ' ')}" for k in kinds if data.get(k)]
    return ", ".join(filter(None, [data.get("name"), data.get("variant"), *counts]))


def machine_words(machine: Mapping) -> str:
    cores = machine.get("cores")
    parts = [machine.get("gpu"), machine.get("cpu"), count(cores, "core") if cores else None]
    return ", ".join(filter(None, [*parts, machine.get("system")]))
