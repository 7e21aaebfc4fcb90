"""When to stop: the design, what is measured in a cell, and how the answer reads it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from finished import figures
from nearkin.closed import ClosedForm
from nearkin.data import load
from nearkin.data.splits import hold_out, subset
from nearkin.runs.engine import Place
from nearkin.runs.row import Data
from nearkin.studies.ask import ask
from nearkin.studies.heads import cells, starts, stop
from nearkin.studies.heads.cells import FORMS, LOSSES, REFERENCE
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.shared.tuning import common
from nearkin.studies.study import Case

CPU = Place(device="cpu", threads=1)
NOISE = {0: 0.002, 1: -0.001, 2: 0.0005}


def test_the_design_is_every_second_cell_and_all_corners():
    found = cells.cells("2,4,8,16,all", "10,30,all", "64,256")
    grid = {(n, c) for n, c, dim in found if dim == 64}
    corners = {("2", "10"), ("2", "all"), ("all", "10"), ("all", "all")}
    assert grid == corners | {("4", "30"), ("8", "10"), ("8", "all"), ("16", "30")}
    assert {(n, c) for n, c, dim in found if dim == 256} == corners
    asked = stop.measure(seeds=1)
    assert len({task.hash for task in asked.values()}) == 8 + 1
    batches = {
        (task.recipe.keep_images, task.recipe.keep_classes): task.recipe.batch
        for task in asked.values()
        if task.recipe
    }
    assert batches[2, 10] == 20
    assert batches[8, 10] == 40
    assert batches[1, 1] == 128
    with pytest.raises(ValueError, match=r"wanted numbers from 2 on, .* or all, got '1'"):
        stop.measure(images="1,all")


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> str:
    """24 classes of 6 points in 10 dimensions, of which four tell classes apart."""
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(24), 6)
    signal = random.gamma(1.0, size=(24, 10))[y] * (np.arange(10) < 4)
    x = signal + 0.4 * random.gamma(1.0, size=(144, 10)) * np.arange(1, 11) / 4
    path = tmp_path_factory.mktemp("features") / "points.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return f"features:{path}"


def nearest_is_kin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = x @ x.T
    np.fill_diagonal(near, -np.inf)
    return y[near.argmax(1)] == y


def mean_map_at_r(x: np.ndarray, y: np.ndarray) -> float:
    """By the formula, query by query."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = []
    for i in range(len(x)):
        others = np.delete(np.arange(len(x)), i)
        kin = y[others[np.argsort(-x[others] @ x[i], kind="stable")]] == y[i]
        r = kin.sum()
        found.append(sum(kin[: k + 1].mean() for k in range(r) if kin[k]) / r)
    return float(np.mean(found))


def test_a_cell_holds_what_its_own_images_lead_to(features, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "STEPS", 6)
    options = {"data": features, "dims": "3", "images": "4", "classes": "8", "seeds": 2}
    outcome = ask("stop", options, out=tmp_path, place=CPU)
    assert len(outcome.rows) == 1 + 1
    case = Case("all methods", images="4", classes="8", dim=3)
    values: Any = outcome.rows[case].values  # type: ignore[union-attr]
    assert (values["images"], values["classes"]) == (32, 8)
    whole = load(features)

    def fitted(part, shrinkage):
        form = ClosedForm("whitened", dim=3, power=0.5, shrinkage=shrinkage)
        return form.fit(part.tensor.double().numpy(), part.labels.numpy())

    judged = []
    for setting in FORMS[REFERENCE]:
        share = 0.0
        for fold in (0, 1):
            few = replace(whole, train=subset(whole.train, 4, 8, fold))
            held = hold_out(few, fold, 2)
            form = fitted(held.train, setting["head_shrinkage"])
            x = form.transform(held.query.tensor.double().numpy())
            share += mean_map_at_r(x, held.query.labels.numpy())
        judged.append(share)
    chosen = FORMS[REFERENCE][int(np.argmax(judged))]["head_shrinkage"]
    default = 1.0
    settings = values["settings"]
    assert settings[REFERENCE].get("head_shrinkage", default) == pytest.approx(chosen)
    for name in LOSSES:  # they start where the closed form ends
        assert settings[name].get("head_shrinkage", default) == pytest.approx(chosen)
        assert settings[name]["steps"] in (2, 6)
    for seed in (0, 1):
        form = fitted(subset(whole.train, 4, 8, seed), chosen)
        x = form.transform(whole.query.tensor.double().numpy())
        labels = whole.query.labels.numpy()
        shares = values["shares"][REFERENCE][seed]
        wanted = nearest_is_kin(x, labels).mean()
        assert cells.over_queries(shares, "recall@1") == pytest.approx(wanted, abs=1e-4)
        assert cells.over_queries(shares, "map@r") == pytest.approx(
            mean_map_at_r(x, labels), abs=1e-4
        )
    assert len(outcome.answer.tables) == 2


def measured(images: int, classes: int, dim: int, gains: dict[str, float]) -> Any:
    """Shares of 5 test classes of 10 queries: whitening has 50 %, the losses their gains more."""
    base = [0.3, 0.4, 0.5, 0.6, 0.7]
    level = {"PCA-whitened": -0.05, REFERENCE: 0.0, **gains}
    shares = {
        name: [
            {
                "queries": [10] * 5,
                "recall@1": [b + more + (NOISE[s] if name in LOSSES else 0) for b in base],
                "map@r": [b / 2 for b in base],
            }
            for s in range(3)
        ]
        for name, more in level.items()
    }
    values = {"shares": shares, "images": images * classes, "classes": classes}
    return SimpleNamespace(values=values, data=Data("made", "as drawn"))


def test_the_trend_and_the_sure_cells_are_read(tmp_path):
    found: Any = {Case(UNTRAINED): measured(1, 1, 1, {})}
    found[Case(UNTRAINED)].values = {"shares": measured(1, 1, 1, {}).values["shares"][REFERENCE][0]}
    law = {}
    for n, c in ((2, 10), (2, 80), (8, 10), (8, 20), (32, 10), (32, 80)):
        gain = 0.01 + 0.004 * np.log2(n / 8) - 0.002 * np.log2(c / 20)
        law[n, c] = gain
        case = Case("all methods", images=str(n), classes=str(c), dim=64)
        found[case] = measured(n, c, 64, dict(zip(LOSSES, (gain, 0.0), strict=True)))
    values = {cell: m.values for case, m in found.items() if (cell := stop.cell_of(case))}
    fitted = stop.trend(values, LOSSES[0], "recall@1")
    assert fitted
    mean, images, classes = fitted
    assert mean.mean == pytest.approx(np.mean(list(law.values())) + np.mean(list(NOISE.values())))
    assert images.mean == pytest.approx(0.004)
    assert classes.mean == pytest.approx(-0.002)
    answer = stop.answer(found)
    table = answer.tables[0]
    (line,) = (line for line in table.rows if line[:3] == (64, "32", 10))
    row: Any = dict(zip(table.columns, line, strict=True))
    assert row[f"{LOSSES[0]}, points"].mean == pytest.approx(
        100 * (law[32, 10] + np.mean(list(NOISE.values())))
    )
    assert float(row[f"p, {LOSSES[0]}"]) < 0.05
    assert row[REFERENCE].mean == pytest.approx(0.5)
    assert "No training has 50.0 %" in table.note
    said = str(answer.findings[0])
    assert "32 images of 10 classes, 64-D" in said
    assert "2 images of 80 classes, 64-D" in said
    first, second, third = answer.summary
    assert first.endswith("; no training has 50.0 %.")
    assert second.startswith("In the mean over all sizes of the training set, training from there")
    assert f" adds +1.0 ± 0.4 points by {LOSSES[0]} and" in second
    more, few = third.split("; ")
    assert more.startswith(
        f"With twice the images of a class, training adds more: +0.4 ± 0.0 points by {LOSSES[0]}"
    )
    assert few.startswith(f"with twice the classes: −0.2 ± 0.0 points by {LOSSES[0]}")
    (first, *_) = figures(answer)
    assert [line.name for line in first.lines] == [
        "10 classes, 64-D",
        "80 classes, 64-D",
        "20 classes, 64-D",
        REFERENCE,
    ]
    assert first.lines[0].x == (2.0, 8.0, 32.0)
    assert stop.answer({}).tables == ()


def test_a_whole_network_is_followed_from_either_start_of_its_head(tmp_path, monkeypatch):
    """On pictures the trunk learns from the first step, and the page shows R@1 alone."""

    def network(data):
        pixels = {"backbone": "linear", "backbone_options": {}, "precision": "float32"}
        return replace(common(data), **pixels, augment="none")

    monkeypatch.setattr(starts, "photographs", network)
    monkeypatch.setattr(starts, "TRUNK_STEPS", 2)
    monkeypatch.setattr(starts, "TRUNK_LOOKS", 2)
    tasks = starts.measure(data="mnist-5k", seeds=1, dim=4, losses="multi-similarity")
    assert {task.recipe.head_start for task in tasks.values() if task.recipe} == {
        "orthogonal",
        "whitened",
    }
    assert {task.recipe.head_first for task in tasks.values() if task.recipe} == {0}
    options = {"data": "mnist-5k", "seeds": 1, "dim": 4, "losses": "multi-similarity"}
    outcome = ask("starts", options, out=tmp_path, place=CPU)
    (table,) = outcome.answer.tables
    assert len(table.rows) == 2
    assert table.columns == ("loss", "start", "R@1 at the start", "at its best", "at the end")
    assert [figure.title for figure in outcome.answer.figures] == [
        "R@1 over steps, multi-similarity"
    ]
    first, last = outcome.answer.summary
    assert "network learns for 2 steps by multi-similarity, R@1 goes from" in first
    assert last.startswith("At the end a whitened head has ")
