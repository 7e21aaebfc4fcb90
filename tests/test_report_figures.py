"""Figures say their numbers, keep proportions, and draw what is kept, thinned and in its place."""

import base64
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from nearkin.answers import Dots, Gallery, Line, Lines, Maps, Matrix
from nearkin.report import canvas, items, pictures, plots, views
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from reported import BARS, EVIL, HALF, LINES, MATRIX, make_row, make_rows, write_embeddings


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def rows(store) -> list[Row]:
    return [*make_rows(store).values()]


@pytest.mark.parametrize("series", [("64-D",), ("settings of the full method", "of its own")])
def test_the_key_of_levels_lies_within_the_figure_and_tells_them_apart(series):
    names = ("no training, 56.7 %", "PCA-whitened, 53.8 %", "within-class whitened, 57.5 %")
    marks = tuple((name, 0.5) for name in names)
    shown = Dots("t", "y", ("a", "b"), series, ((HALF,) * len(series),) * 2, marks=marks)
    with canvas.drawing():
        drawn = plots.draw_dots(shown, canvas.Tips())
        drawn.draw_without_rendering()
        (key,) = drawn.legends
        box, strokes = (
            key.get_window_extent(),
            [str(vars(h)["_dash_pattern"]) for h in key.get_lines()],
        )
    assert box.x0 >= 0
    assert box.x1 <= drawn.bbox.x1
    assert len(set(strokes[-3:])) == 3


@pytest.mark.parametrize("figure", [LINES, BARS, MATRIX])
def test_an_svg_is_well_formed_and_says_its_numbers(figure):
    text = plots.svg(figure)
    root = ElementTree.fromstring(text)
    titles = [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("50.0 ± 1.0 %" in t or "20.0 % [10.0 %, 30.0 %]" in t for t in titles)
    assert any(EVIL in t for t in titles)
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert not [
        i for i in ids if re.match(r"figure|axes|text|tip", i or "")
    ]  # two can share a page
    assert "<script" not in text


def test_a_dollar_in_a_name_is_no_formula():
    bars = Dots("b", "price in $ or $", ("$x$",), ("s",), ((HALF,),))
    root = ElementTree.fromstring(plots.svg(bars))
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "$x$" in texts
    assert "price in $ or $" in texts


def test_figures_without_any_value_can_be_drawn():
    for figure in (
        Lines("l", "x", "y", ()),
        Lines("l", "x", "y", (Line("one point", (1,), (0.0,)),)),
        Dots("b", "y", ("a",), ("s",), ((None,),)),
        Matrix("m", ("a",), ("b",), ((None,),)),
    ):
        ElementTree.fromstring(plots.svg(figure))


def test_maps_keep_proportions_and_lie_inside_their_square(rows, store):
    panel = views.panels(Maps("m", (("a", rows[0]),)), store)[0]
    assert isinstance(panel, views.Panel)
    away = np.linalg.norm(panel.items.x[:, None] - panel.items.x, axis=-1)
    drawn = np.linalg.norm(panel.points[:, None] - panel.points, axis=-1)
    apart = away > 0
    np.testing.assert_allclose(drawn[apart] / away[apart], drawn.max() / away.max(), rtol=1e-4)
    assert panel.points.min() > 0
    assert panel.points.max() < 1
    length, share = panel.ruler
    np.testing.assert_allclose(share / float(length), drawn.max() / away.max(), rtol=1e-4)


def test_a_plane_is_that_of_scikit_learn_up_to_signs():
    x = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    flat, reference = items.plane(x), PCA(2).fit_transform(x)
    np.testing.assert_allclose(np.abs(flat), np.abs(reference), atol=1e-9)
    assert items.plane(x[:, :2]) is not None
    np.testing.assert_array_equal(items.plane(x[:, :2]), x[:, :2])
    assert items.plane(x[:, :1]).shape == (50, 2)


def test_labels_on_one_spot_part_and_stay_inside():
    points = np.full((10, 2), 0.5)
    places = np.array([(x, y) for _, x, y in views.class_labels(points, np.arange(10))])
    gaps = np.linalg.norm(places[:, None] - places, axis=-1)[~np.eye(10, dtype=bool)]
    assert gaps.min() > 0.05
    assert places.min() >= 0.05
    assert places.max() <= 0.95


def test_a_gallery_finds_what_brute_force_finds(rows, store):
    view = views.answers(Gallery("g", rows[0]), store)
    assert view is not None
    x, y = view.items.x.astype(float), view.items.labels
    away = ((x[:, None] - x) ** 2).sum(-1)
    np.fill_diagonal(away, np.inf)
    order = away.argsort(1)
    for question in view.wrong + view.right:
        assert list(question.found) == order[question.item, :5].tolist()
        assert list(question.right) == (y[list(question.found)] == y[question.item]).tolist()
    assert all(not q.right[0] for q in view.wrong)
    assert all(q.right[0] for q in view.right)
    assert (view.hits, view.queries) == (int((y[order[:, 0]] == y).sum()), len(y))


def test_the_classes_mistaken_most_often_are_those_of_a_loop():
    random = np.random.default_rng(0)
    labels, nearest = random.integers(0, 40, 500), random.integers(0, 40, 500)
    counts: dict[tuple[int, int], int] = {}
    for a, b in zip(labels.tolist(), nearest.tolist(), strict=True):
        if a != b:
            counts[a, b] = counts.get((a, b), 0) + 1
    names = [f"class {i}" for i in range(40)]
    found = views.confusions(labels, nearest, names)
    assert [count for _, _, count, _ in found] == sorted(counts.values(), reverse=True)[:10]
    for a, b, count, of in found:
        assert counts[names.index(a), names.index(b)] == count
        assert of == (labels == names.index(a)).sum()
    assert views.confusions(labels, labels, names) == ()


def test_only_the_items_that_have_pictures_are_drawn_with_them(rows, store):
    found = items.read(rows[0], store)
    assert found is not None
    assert found.places.tolist() == list(range(0, 30, 2))
    assert found.pictures is not None
    assert len(found.pictures) == 15


def test_large_sets_are_thinned(tmp_path):
    recipe = Recipe(data="features:x.npz", dim=2)
    write_embeddings(tmp_path / "runs" / recipe.hash / "embeddings.npz", recipe, n=5000)
    row = make_row(recipe, tmp_path, keep=False)
    found = items.read(row, tmp_path)
    assert found is not None
    assert len(found.x) == 1667
    assert found.places[-1] == 4998


def test_a_pickled_file_is_not_read(tmp_path):
    recipe = Recipe(dim=2)
    row = make_row(recipe, tmp_path)
    np.savez(tmp_path / "runs" / recipe.hash / "embeddings.npz", y=np.array([{}], dtype=object))
    with pytest.warns(UserWarning, match=r"embeddings.npz: y holds Python objects"):
        assert items.read(row, tmp_path) is None
    (tmp_path / "runs" / recipe.hash / "embeddings.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.warns(UserWarning, match="not a whole npz file"):
        assert items.read(row, tmp_path) is None


@pytest.mark.parametrize("shape", [(7, 8, 8), (7, 8, 8, 3), (7, 64, 40, 3)])
def test_a_sheet_holds_each_picture_in_its_place(shape):
    smooth = np.linspace(0, 200, int(np.prod(shape[1:]))).reshape(shape[1:])
    many = np.stack([smooth + 7 * i for i in range(7)]).astype(np.uint8)
    uri, across = items.sheet(many)
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))), float)
    side = whole.shape[1] // across
    for i, picture in enumerate(many):
        top, left = i // across * side, i % across * side
        tile = whole[top : top + side, left : left + side]
        assert abs(tile.mean() - picture.mean()) < 4
    assert not whole[-side:, -side:].mean() > 30  # an empty place


def test_static_pictures_are_pngs_of_modest_size(rows, store):
    for figure in (Maps("m", (("a", rows[0]),)), Gallery("g", rows[0]), Gallery("g", rows[-1])):
        content = pictures.png(figure, store)
        assert content.startswith(b"\x89PNG")
        assert len(content) < 200_000
