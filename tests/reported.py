"""Rows, embeddings and figures with names that mean harm: what the tests of the report share."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from finished import finished
from nearkin.answers import Dots, Line, Lines, Matrix
from nearkin.data.terms import may_show
from nearkin.measure.statistics import Estimate
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Cost, Data, Epoch, Files, Machine, Metrics, Row
from nearkin.studies.study import Case

EVIL = "<script>alert('1')</script> & \"$x$\" | *b*"
FILE = '"><img src=x onerror=alert(2)>.png'
CLASSES = ("0", "1", EVIL)


def make_row(recipe: Recipe, store: Path, *, status: str = "done", keep: bool = True) -> Row:
    """A row as the engine writes it, with its embeddings: 30 items of 3 classes around corners."""
    share = 0.5 + 0.01 * recipe.seed
    last = {"epoch": 3, "recall@1": share, "map@r": 0.3}
    metrics = Metrics(
        last,
        validated=last | {"epoch": 2, "recall@1": 0.49},
        best_on_test=last | {"epoch": 1, "recall@1": share + 0.02},
    )
    tests = {e: {"recall@1": 0.3 + 0.07 * e + 0.01 * recipe.seed} for e in (1, 2, 3)}
    row = replace(
        finished(recipe, share),
        study="demo",
        status=status,
        metric="euclidean",
        metrics=metrics if status == "done" else Metrics(None),
        epochs=tuple(Epoch(e, loss=1 / e, test=test) for e, test in tests.items()),
        cost=Cost(seconds=12.5),
        data=Data(recipe.data, "28 px, grey", showable=may_show(recipe.data), train_images=4000),
        versions={"nearkin": "0.1", "torch": "2.9"},
        machine=Machine("a <fast> one", cores=2, system="Linux"),
        files=Files(f"runs/{recipe.hash}", embeddings="embeddings.npz"),
    )
    if keep:
        write_embeddings(store / "runs" / recipe.hash / "embeddings.npz", recipe)
    return row


def write_embeddings(path: Path, recipe: Recipe, n: int = 30) -> None:
    random = np.random.default_rng(recipe.seed)
    y = np.arange(n) % 3
    corners = np.random.default_rng(0).normal(size=(3, recipe.dim)) * 2
    path.parent.mkdir(parents=True)
    np.savez(
        path,
        x=(corners[y] + random.normal(size=(n, recipe.dim))).astype(np.float32),
        y=y,
        classes=np.array(CLASSES),
        names=np.array([f"{i} {FILE}" for i in range(n)]),
        pictures=np.random.default_rng(1).integers(0, 255, (n // 2, 8, 8), dtype=np.uint8),
        picture_index=np.arange(0, n, 2),
    )


def make_rows(store: Path) -> dict[Case, Row]:
    """Three methods with three seeds each, and one that diverged."""
    recipes = [
        Recipe(loss=loss, dim=dim, seed=seed)
        for loss, dim in (("contrastive", 2), ("n-pair", 2), ("n-pair", 5))
        for seed in range(3)
    ]
    odd = Recipe(loss="n-pair", dim=5, seed=3)
    found = {case_of(r): make_row(r, store) for r in recipes}
    return found | {case_of(odd): make_row(odd, store, status="diverged", keep=False)}


def case_of(recipe: Recipe) -> Case:
    """Its loss as a method, in its dimension."""
    return Case(recipe.loss, recipe.seed, dim=recipe.dim)


LINES = Lines(
    "Curves",
    "share of images",
    "R@1",
    (
        Line("a", (1, 2, 4), (0.1, 0.2, 0.3), (0.05, 0.1, 0.2), (0.15, 0.3, 0.4)),
        Line(EVIL, (1, 2, 4), (0.3, 0.2, 0.1), dashed=True),
    ),
    log_x=True,
    percent=True,
)
HALF = Estimate(0.5, 0.49, 0.51, 5)
BARS = Dots("Dots", "R@1", ("a", EVIL), ("2-D", "64-D"), ((HALF, None), (HALF, HALF)), percent=True)
MATRIX = Matrix("Matrix", ("a", EVIL), ("b", "c"), ((HALF, None), (HALF, HALF)), percent=True)
