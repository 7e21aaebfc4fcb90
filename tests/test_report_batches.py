"""A batch's graph is drawn from what its run kept: pictures as nodes, attention as edge widths."""

import re
from dataclasses import replace

import numpy as np
import pytest

from finished import finished
from nearkin.answers import BatchGraphs
from nearkin.data.terms import may_show
from nearkin.report import batch_graphs, pictures
from nearkin.runs.engine import Place, run
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Files, Row

RECIPE = Recipe(data="mnist-5k", loss="graph-refinement", dim=8, epochs=0, batch=32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def row(store) -> Row:
    return run(RECIPE, store, place=Place(device="cpu", threads=1)).row


def test_a_run_keeps_the_attention_of_six_classes_with_their_pictures(row, store):
    view = batch_graphs.read(row, store)
    assert view is not None
    assert len(np.unique(view.labels)) == 6
    assert (np.diff(view.labels) >= 0).all()
    assert view.attention.shape == (24, 24)
    assert view.pictures.shape == (24, 28, 28)
    assert (view.attention >= 0).all()
    assert (view.attention.sum(1) <= 1).all()  # the rest goes to the classes left out


def write(store, recipe: Recipe, attention: np.ndarray, labels: list[int]) -> Row:
    folder = store / "runs" / recipe.hash
    folder.mkdir(parents=True, exist_ok=True)
    shown = np.zeros((len(labels), 4, 4), np.uint8)
    np.savez(folder / "attention.npz", attention=attention, y=np.array(labels), pictures=shown)
    row = finished(recipe, 0.5)
    files = Files(f"runs/{recipe.hash}", attention="attention.npz")
    return replace(row, data=replace(row.data, showable=may_show(recipe.data)), files=files)


def test_edges_are_as_wide_as_attention_and_green_among_kin(tmp_path):
    attention = np.array([[0.5, 0.4, 0.0], [0.2, 0.5, 0.1], [0.0, 0.0, 0.9]])
    row = write(tmp_path, RECIPE, attention, [0, 0, 1])
    drawn = batch_graphs.svg(BatchGraphs("who", (("a", row),)), tmp_path)
    assert re.findall(r"<title>(.*?)</title>", drawn) == [
        "5.0 % of attention",  # (0.1 + 0) / 2, the weaker first
        "30.0 % of attention",  # (0.4 + 0.2) / 2
    ]
    strokes = re.findall(r"<title>.*?stroke: (#\w+)", drawn, flags=re.DOTALL)
    assert strokes == [batch_graphs.ACROSS_CLASSES.lower(), batch_graphs.RIGHT.lower()]
    width = r"<title>.*?stroke-width: ([\d.]+)"
    weak, strong = map(float, re.findall(width, drawn, flags=re.DOTALL))
    assert strong / weak == pytest.approx(6, rel=0.01)
    assert strong == pytest.approx(batch_graphs.WIDEST)
    assert drawn.count("<image") == 3


def test_where_all_listen_to_all_the_edges_are_a_web(tmp_path):
    row = write(tmp_path, RECIPE, np.full((24, 24), 1 / 24), [0] * 24)
    drawn = batch_graphs.svg(BatchGraphs("who", (("a", row),)), tmp_path)
    widths = re.findall(r"<title>.*?stroke-width: ([\d.]+)", drawn, flags=re.DOTALL)
    assert len(widths) == 24 * 23 / 2
    assert sum(map(float, widths)) == pytest.approx(batch_graphs.INK, rel=0.01)


def test_pictures_that_are_not_ours_to_show_are_not_drawn(tmp_path):
    cub = write(tmp_path, Recipe(data="cub", loss="graph-refinement"), np.eye(2), [0, 1])
    assert batch_graphs.read(cub, tmp_path) is None
    drawn = batch_graphs.svg(
        BatchGraphs("who", (("a", cub), ("b", finished(RECIPE, 0.5)))), tmp_path
    )
    assert "<image" not in drawn
    assert drawn.count("not kept here") == 2


def test_a_page_of_markdown_has_it_as_svg(row, store, tmp_path):
    path = pictures.save(BatchGraphs("who", (("a", row),)), tmp_path / "figure", store, {})
    assert path is not None
    assert path.suffix == ".svg"
    assert path.read_text().count("<image") == 24
    assert path.stat().st_size < 200_000
