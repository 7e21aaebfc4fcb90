"""A page shows a person's own photographs, of many sizes; those of others a run never keeps."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nearkin.answers import Answer, BatchGraphs, Gallery, Maps
from nearkin.data.terms import may_show
from nearkin.report import batch_graphs, items, views, write_page
from nearkin.runs import evaluate
from nearkin.runs.engine import Place, run
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.study import Case
from reported import make_row

CPU = Place(device="cpu", threads=1)
COLOURS = ("red", "gold", "green", "blue")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A disc on white, of one colour a class: eight pictures each, no two of one size."""
    root = tmp_path_factory.mktemp("own") / "discs"
    for colour in COLOURS:
        (root / colour).mkdir(parents=True)
        for i in range(8):
            width, height = 120 + 7 * i, 150 - 5 * i
            picture = Image.new("RGB", (width, height), "white")
            middle = (width // 2, height // 2)
            ImageDraw.Draw(picture).circle(middle, 30, fill=colour)
            picture.save(root / colour / f"{i}.png")
    return root


def embedded(data: str, store: Path, place: Place = CPU, **changes) -> Row:
    """The row of a run that only embeds these pictures, untrained."""
    recipe = Recipe(data=data, dim=4, size=32, batch=16, per_class=8, epochs=0, **changes)
    return run(recipe, store, place=place).row


def page_of(row: Row, folder: Path, store: Path) -> str:
    answer = Answer("t", "q", figures=(Maps("m", (("a", row),)), Gallery("g", row)))
    return write_page(answer, {Case("a"): row}, folder, store).read_text()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def row(photographs, store) -> Row:
    return embedded(f"folder:{photographs}", store, loss="graph-refinement")


def test_a_run_keeps_small_squares_of_photographs_in_their_colours(row, store):
    found = items.read(row, store)
    assert found is not None
    assert found.pictures is not None
    assert found.classes == ("green", "red")  # the second half, which tests
    assert found.pictures.shape == (16, evaluate.SIDE, evaluate.SIDE, 3)
    assert found.pictures.dtype == np.uint8
    middles = found.pictures[:, evaluate.SIDE // 2, evaluate.SIDE // 2]
    for label, colour in enumerate([(0, 128, 0), (255, 0, 0)]):
        assert (middles[found.labels == label] == colour).all()
    assert (found.pictures[:, 0, 0] == 255).all()


def test_a_page_shows_photographs_in_its_gallery_and_under_the_pointer(row, store, tmp_path):
    page = page_of(row, tmp_path, store)
    assert page.count('<img src="data:image/jpeg') > 10
    assert page.count('"sheet": "data:image/jpeg') == 1
    assert "pictures are not ours" not in page
    assert "kept no pictures" not in page


def test_a_batch_graph_of_photographs_is_drawn_with_them(row, store):
    view = batch_graphs.read(row, store)
    assert view is not None
    assert view.pictures.shape == (16, evaluate.SIDE, evaluate.SIDE, 3)
    drawn = batch_graphs.svg(BatchGraphs("who", (("a", row),)), store)
    assert drawn.count("<image") == 16


@pytest.mark.parametrize("count", [5, 8, 16])
def test_no_more_pictures_are_kept_than_a_page_draws(photographs, tmp_path, monkeypatch, count):
    monkeypatch.setattr(evaluate, "PICTURES", count)
    row = embedded(f"folder:{photographs}", tmp_path)
    found = items.read(row, tmp_path)
    assert found is not None
    assert found.pictures is not None
    assert len(found.pictures) == len(found.places) <= count
    assert len(set(np.diff(found.places))) == 1


def test_large_pictures_of_one_size_are_kept_small_and_small_ones_as_they_are(tmp_path):
    for side in (20, 100):
        for kind in "abcd":
            (tmp_path / f"{side}" / kind).mkdir(parents=True)
            for i in range(2):
                picture = Image.new("L", (side, side), 60 * i)
                picture.save(tmp_path / f"{side}" / kind / f"{i}.png")
        row = run(Recipe(data=f"folder:{tmp_path / str(side)}", epochs=0), tmp_path, place=CPU).row
        found = items.read(row, tmp_path)
        assert found is not None
        assert found.pictures is not None
        assert found.pictures.shape == (4, *2 * (min(side, evaluate.SIDE),))
        assert found.pictures[:, 3, 3].tolist() == [0, 60, 0, 60]


def test_pictures_of_others_are_never_kept(photographs, tmp_path):
    theirs = tmp_path / "CUB_200_2011" / "images"
    shutil.copytree(photographs, theirs)
    (theirs.parent / "image_class_labels.txt").write_text("1 1")  # as only CUB has it
    (tmp_path / "birds").symlink_to(theirs)
    below = Place(root=str(theirs.parent), device="cpu", threads=1)
    for data, place in ((theirs, CPU), (tmp_path / "birds", CPU), ("images", below)):
        row = embedded(f"folder:{data}", tmp_path / "out", place, loss="graph-refinement")
        folder = tmp_path / "out" / row.files.folder
        with np.load(folder / "embeddings.npz") as arrays:
            assert "pictures" not in arrays
        assert not (folder / "attention.npz").exists()
        page = page_of(row, tmp_path / "page", tmp_path / "out")
        assert "data:image" not in page
        assert "Its pictures are not ours to show." in page


def test_terms_are_told_from_a_run_that_kept_no_pictures(tmp_path):
    said = {}
    for data in ("folder:/own", "features:own.npz", "sop"):
        row = make_row(Recipe(data=data, dim=2), tmp_path)
        path = items.file_of(row, tmp_path, "embeddings")
        assert path is not None
        with np.load(path) as arrays:
            np.savez(path, **{k: v for k, v in arrays.items() if not k.startswith("picture")})
        view = views.answers(Gallery("g", row), tmp_path)
        assert view is not None
        said[data] = view.summary().partition(".")[2].strip()
        assert view.summary() in page_of(row, tmp_path / "page", tmp_path)
    assert said == {
        "folder:/own": "This run kept no pictures.",
        "features:own.npz": "This run kept no pictures.",
        "sop": "Its pictures are not ours to show.",
    }


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        *(("mnist", True), ("omniglot", True), ("cub", False), ("features:x.npz", False)),
        *(("folder:/my/cars-of-friends", True), ("folder:/x/Cars/train", False)),
        *(("folder:/x/In-shop/img", False), ("folder:cub_200_2011_crops", False)),
    ],
)
def test_whose_pictures_may_be_shown(data, shown):
    assert may_show(data) == shown
