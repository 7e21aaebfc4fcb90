"""Rows of runs that were never run, for tests of what studies read from rows."""

from dataclasses import asdict
from typing import Any

from nearkin.runs.recipe import Recipe

SHARES = ("recall@1", "recall@2", "recall@4", "recall@8", "map@r", "nmi")


def finished(recipe: Recipe, recall: float, images: int = 5864, classes: int = 100) -> dict:
    """The row of this recipe with this share under every metric; 0.9 had test chosen the epoch."""
    last = {"epoch": recipe.epochs, **dict.fromkeys(SHARES, recall)}
    epoch = {"epoch": max(1, recipe.epochs), "test": last}
    if recipe.validate:
        epoch["validation"] = {"recall@1": recall}
    return {
        "hash": recipe.hash,
        "study": "",
        "status": "done",
        "recipe": asdict(recipe),
        "metrics": {"last": last, "validated": None, "best_on_test": last | {"recall@1": 0.9}},
        "epochs": [epoch],
        "cost": {"seconds": 66.0, "train_seconds": 60.0},
        "data": {
            "name": recipe.data,
            "variant": "as drawn",
            "train_images": images,
            "train_classes": classes,
        },
        "machine": {"cpu": "abacus", "cores": 2, "gpu": None},
    }


def cells(table: Any, *heads: str) -> dict[str, Any]:
    """The row of a table that these cells begin, by column."""
    row = next(row for row in table.rows if row[: len(heads)] == heads)
    return dict(zip(table.columns, row, strict=True))


def figures(answer: Any) -> list[Any]:
    """Of whatever kind they are."""
    return list(answer.figures)
