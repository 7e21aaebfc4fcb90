"""Rows of runs that were never run, for tests of what studies and pages make of rows."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Cost, Data, Epoch, Machine, Metrics, Row
from nearkin.studies.study import Case

SHARES = ("recall@1", "recall@2", "recall@4", "recall@8", "map@r", "nmi")


def finished(recipe: Recipe, recall: float, images: int = 5864, classes: int = 100) -> Row:
    """The row of this recipe with this share under every metric; 0.9 had test chosen the epoch."""
    last = {"epoch": recipe.epochs, **dict.fromkeys(SHARES, recall)}
    validation = {"recall@1": recall} if recipe.validate else None
    return Row(
        hash=recipe.hash,
        recipe=recipe,
        metrics=Metrics(last, best_on_test=last | {"recall@1": 0.9}),
        epochs=(Epoch(max(1, recipe.epochs), test=last, validation=validation),),
        cost=Cost(66.0, 60.0, peak_memory_mb=700, parameters=1_000_000, loss_parameters=2_000_000),
        data=Data(recipe.data, "as drawn", train_images=images, train_classes=classes),
        machine=Machine("abacus", cores=2),
    )


def with_last(row: Row, **values: float) -> Row:
    """The row with these metrics of its last epoch, too."""
    last = {**(row.metrics.last or {}), **values}
    return replace(row, metrics=replace(row.metrics, last=last))


def watched(row: Row, monitor: Mapping[str, float], epochs: tuple[int, ...] = ()) -> Row:
    """The row with this report of the loss on a batch, in its last epoch or in each of these."""
    (last,) = row.epochs
    found = [replace(last, epoch=e, monitor=monitor) for e in epochs or (last.epoch,)]
    return replace(row, epochs=tuple(found))


def validated(row: Row, shares: Mapping[int, float]) -> Row:
    """The row, had these epochs had these shares on validation classes."""
    found = [Epoch(e, validation={"recall@1": share}) for e, share in shares.items()]
    return replace(row, epochs=tuple(found))


def diverged(row: Row) -> Row:
    """The row, had its loss been no number in the first epoch."""
    gone = replace(row, status="diverged", metrics=Metrics(None), confusion=None)
    return replace(gone, epochs=(Epoch(1),))


def rows_of(recipes: Mapping[Case, Recipe], make: Callable[[Recipe], Row]) -> dict[Case, Row]:
    """The rows of the recipes under their cases, as make(recipe) gives them."""
    return {case: make(recipe) for case, recipe in recipes.items()}


def cells(table: Any, *heads: str) -> dict[str, Any]:
    """The row of a table that these cells begin, by column."""
    row = next(row for row in table.rows if row[: len(heads)] == heads)
    return dict(zip(table.columns, row, strict=True))


def figures(answer: Any) -> list[Any]:
    """Of whatever kind they are."""
    return list(answer.figures)
