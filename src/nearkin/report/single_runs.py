"""The page of single runs: what `nearkin train` left in a folder, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nearkin.answers import SENTENCES, Answer, Figure, Gallery, Maps, Table
from nearkin.runs.outcome import AS_IT_STARTS, taught
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.row import Row
from nearkin.runs.store import Store
from nearkin.studies.ask import Outcome
from nearkin.studies.notes import Note
from nearkin.studies.shared import comparison, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import SMALL, UNTRAINED, without_training
from nearkin.studies.shared.reading import headline, mean, scores
from nearkin.studies.study import Case, Rows

QUESTION = "The runs of nearkin train in this folder; those that differ in the seed alone are one."
SHARES = {
    "R@1 in train": "in_train.recall@1",
    "R@1": "recall@1",
    "MAP@R": "map@r",
    "NMI": "nmi",
    "5-NN": "knn_accuracy",
}
BESIDE = "no-training"
"""The folder below OUT of what `nearkin train` puts beside its runs."""
MAPS = 8  # of embeddings, at most
FIRST_NAMED = ("loss", "loss_options", "miner", "backbone", "backbone_options", "dim", "data")


def outcome(rows: Sequence[Row]) -> Outcome:
    """The rows as those of a study that nobody asked: each under the name that its recipe gives."""
    cases: dict[Case, Row] = {}
    for name, group in methods(rows).items():
        for row in group:
            case = Case(name, row.recipe.seed)
            if case in cases:  # of other data under one name
                case = Case(name, row.recipe.seed, fingerprint=row.data.fingerprint)
            cases[case] = row
    return Outcome(answer, Note("runs", "", ""), cases)


def beside(folder: Path) -> list[Row]:
    """The rows of no training that stand beside the single runs of a folder, their files named as
    seen from there."""
    rows = Store(folder / BESIDE).rows()
    named = [replace(row.files, folder=f"{BESIDE}/{row.files.folder}") for row in rows]
    return [replace(row, files=files) for row, files in zip(rows, named, strict=True)]


def key(recipe: Mapping, names: Sequence[str]) -> str:
    return json.dumps([recipe.get(name) for name in names], sort_keys=True)


def methods(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that differ in the seed alone, under a name that tells them from all others.

    The name is the loss, or `untrained`, and as few other fields as will do; a run that starts from
    another one of these rows is named by that one's name. What stands beside the runs of
    `nearkin train` is named no training.
    """
    plain = [row for row in rows if is_untrained(row.recipe)]
    learnt = [row for row in rows if not is_untrained(row.recipe)]
    found = {
        UNTRAINED + name.removeprefix(AS_IT_STARTS): group
        for name, group in named_apart(plain).items()
    }
    return found | named_apart(learnt)


def is_untrained(recipe: Recipe) -> bool:
    """Whether a recipe stands for no training.

    >>> is_untrained(without_training(Recipe(backbone="lite0", epochs=9), side=224))
    True
    """
    return recipe in (without_training(recipe, side) for side in (0, SMALL + 1))


def named_apart(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The groups of rows that differ in the seed alone, by names."""
    starts = {row.recipe.start for row in rows}
    sources = named_apart([row for row in rows if row.hash in starts]) if starts - {""} else {}
    names = {row.hash: f"({name})" for name, group in sources.items() for row in group}
    recipes = [row.recipe.plain() for row in rows]
    recipes = [r | {"start": names.get(r["start"], r["start"]), "loss": taught(r)} for r in recipes]
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


def answer(rows: Rows) -> Answer:
    """Every method's metrics, its 2-D pictures, and the neighbours that the leading one finds."""
    found = {head: values for head, key in SHARES.items() if (values := scores(rows, key))}
    data = {case.method: row.data.name for case, row in rows.items()}
    table = Table(
        title="Every method",
        columns=("method", "data", *found),
        rows=tuple(
            (name, of, *(mean(found[head].get(name)) for head in found))
            for name, of in data.items()
        ),
        percent=tuple(found),
        note="The last epoch, on test. Means over seeds with 95 % t-intervals.",
    )
    finished = {case: row for case, row in rows.items() if row.status == "done"}
    figures: list[Figure] = []
    compared = [one for one in of_each_set(rows) if one.scores]
    if any(len(one.scores) > 1 for one in compared):
        figures.append(comparison.picture(compared, "Every method with its seeds"))
    first = {case.method: (case, row) for case, row in reversed(finished.items())}
    if first:
        pictures = tuple((f"{c.method}, seed {c.seed}", row) for c, row in first.values())
        figures.append(Maps("The embeddings", pictures[::-1][:MAPS]))
    if finished:
        metric = headline(finished.values())
        top = max(finished, key=lambda case: metric.of(finished[case]) or 0.0)
        figures.append(Gallery(f"Neighbours by {top.method}", finished[top]))
    return Answer(
        "Single runs",
        QUESTION,
        remarks=unknown_losses(rows),
        summary=sentences.summary(compared)
        if len(compared) < 2
        else tuple(sentences.lead(one) for one in compared)[:SENTENCES],
        findings=tuple(finding for one in compared for finding in sentences.findings(one)),
        tables=(comparison.standings(compared, "Who leads"), table),
        figures=tuple(figures),
    )


def of_each_set(rows: Rows) -> list[Comparison]:
    """For each data set what was trained on it, by the headline metric, beside what was not:
    recipes of no epochs. Scores on different data are never compared."""
    found = []
    sets = list(dict.fromkeys(row.data.name for row in rows.values()))
    for data in sets:
        own = {case: row for case, row in rows.items() if row.data.name == data}
        metric = headline(own.values())
        values = scores(own, metric.key)
        bare = {case.method for case, row in own.items() if not row.recipe.epochs}
        trained, beside = (
            {name: of for name, of in values.items() if (name in bare) == untrained}
            for untrained in (False, True)
        )
        place = data if len(sets) > 1 else ""
        found.append(Comparison(metric.name, trained, beside, place, place and f"on {place}"))
    return found


def unknown_losses(rows: Rows) -> tuple[str, ...]:
    """What a page must say of a method whose paper's own loss nobody knows."""
    recipes = [row.recipe for row in rows.values()]
    after = any(r.miner == "spanning-tree" or r.sampler == "streams" for r in recipes)
    if not after:
        return ()
    return (
        "Spanning-tree positives and two streams are what the abstract of DAMLRRM tells; "
        "its loss is not known to us.",
    )
