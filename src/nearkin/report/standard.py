"""What every page says, from rows alone: which runs, three numbers of each, what choosing costs.

last           the last epoch: the result
validated      the epoch that validation chose
best on test   the best epoch on test: what choosing the epoch there would report
bias           best on test - last, of the same run: what that choice adds
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nearkin.answers import Line, Lines, Table
from nearkin.measure.statistics import FREE, SHARES, Bounds, Estimate, estimate
from nearkin.names import typed
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Data, Machine, Row, Stored
from nearkin.studies.shared.reading import Metric, headline
from nearkin.studies.study import Case

MOST_CURVES = 14


def shared(rows: Sequence[Row]) -> dict:
    """The fields that all recipes have in common, with their values."""
    recipes = [row.recipe.plain() for row in rows]
    first = recipes[0] if recipes else {}
    return {k: v for k, v in first.items() if all(r[k] == v for r in recipes)}


def own(row: Row, common: Mapping) -> dict:
    """The fields of a row's recipe that are not those of all."""
    return {k: v for k, v in row.recipe.plain().items() if k not in common}


def labelled(rows: Mapping[Case, Stored]) -> dict[str, list[Row]]:
    """Label -> runs, one a seed; a run of several cases under the first of them."""
    found: dict[str, list[Row]] = {}
    seen = set()
    for case, row in rows.items():
        if isinstance(row, Row) and id(row) not in seen:
            seen.add(id(row))
            found.setdefault(case.label, []).append(row)
    return found


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

    def mean(values: Sequence[float | None], within: Bounds = SHARES) -> Estimate | None:
        known = [v for v in values if v is not None]
        return estimate(known, within) if known else None

    def line(name: str, group: Sequence[Row]) -> tuple:
        finished = [row for row in group if row.status != "diverged"]
        last, validated, best = (
            [metric.of(row, which) for row in finished]
            for which in ("last", "validated", "best_on_test")
        )
        pairs = [(a, b) for a, b in zip(best, last, strict=True) if a is not None and b is not None]
        bias = mean([a - b for a, b in pairs], FREE)
        diverged = len(group) - len(finished)
        return name, len(group), diverged, mean(last), mean(validated), mean(best), bias

    return Table(
        title=f"{metric.name} by how the epoch is chosen",
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
        "add to it, in points. Means over seeds with 95 % t-intervals; two seeds as two numbers.",
        percent=("last epoch", "validated epoch", "best on test"),
        points=("bias",),
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
        note="Means over seeds; bands are 95 % t-intervals, dots are two seeds.",
        percent=True,
    )


def curve(name: str, group: Sequence[Row], metric: Metric) -> Line | None:
    """One method's mean and interval at every epoch examined; None for fewer than three."""
    values: dict[float, list[float]] = {}
    for row in group:
        for epoch in row.epochs:
            if epoch.test and metric.key in epoch.test:
                values.setdefault(epoch.epoch, []).append(epoch.test[metric.key])
    if len(values) < 3:
        return None
    x = sorted(values)
    return Line.of(name, x, [estimate(values[epoch], within=SHARES) for epoch in x])


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


def facts(rows: Iterable[Stored]) -> list[tuple[str, list[str]]]:
    """What the numbers were measured on and with: data, machine, versions, time."""
    rows = list({id(row): row for row in rows}.values())  # some have several cases
    seconds = [row.cost.seconds for row in rows if row.cost.seconds]
    time = f", {duration(sum(seconds))} in all" if seconds else ""
    seeds = sorted({row.recipe.seed for row in rows if isinstance(row, Row)})
    kind = "run" if seeds or not rows else "measurement"
    machines = [machine_words(row.machine) for row in rows]
    versions = [", ".join(f"{k} {v}" for k, v in row.versions.items()) for row in rows]
    return [
        ("data", data_words([row.data for row in rows if row.data])),
        ("seeds", [", ".join(map(str, seeds))] if seeds else []),
        ("machine", counted(machines, kind)),
        ("versions", counted(versions, kind)),
        ("time", [f"{count(len(rows), kind)}{time}"]),
    ]


def counted(texts: Sequence[str], kind: str) -> list[str]:
    """Every different text, with how many runs had it; none of those that are empty."""
    found = Counter(filter(None, texts))
    return [f"{text} ({count(n, kind)})" if len(found) > 1 else text for text, n in found.items()]


COUNTS = ("train_images", "train_classes", "query_images", "gallery_images", "test_classes")


def data_words(sets: Sequence[Data]) -> list[str]:
    """Every data set in words: its name, what its inputs are, the least and the most of its counts.

    >>> data_words([Data("x", train_images=5), Data("x", "grey"), Data("x", train_images=10)])
    ['x, 5 to 10 train images', 'x, grey']
    """
    found = []
    for name, variant in dict.fromkeys((data.name, data.variant) for data in sets):
        same = [data for data in sets if (data.name, data.variant) == (name, variant)]
        parts = [name, variant]
        for kind in COUNTS:
            numbers = sorted({getattr(data, kind) for data in same} - {0})
            if numbers:
                span = " to ".join(f"{n:,}" for n in dict.fromkeys((numbers[0], numbers[-1])))
                parts.append(f"{span} {kind.replace('_', ' ')}")
        found.append(", ".join(filter(None, parts)))
    return found


def machine_words(machine: Machine) -> str:
    """A machine in words: graphics card, processor, cores, system."""
    cores = count(machine.cores, "core") if machine.cores else None
    return ", ".join(filter(None, [machine.gpu, machine.cpu, cores, machine.system]))
