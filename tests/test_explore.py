"""A map of an index: its arithmetic, its file, and what a person can do with it in a browser."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import nearkin as nk
from browser import chromium  # noqa: F401 - a fixture
from nearkin.app.main import main
from nearkin.search import explore as module
from nearkin.search.explore import Points, contents, explore, laid, points_of_index, write_atlas
from nearkin.search.worklist import worklist
from test_index import folder, shop  # noqa: F401 - fixtures


def points(n: int = 90, kinds: int = 3, hostile: bool = False) -> Points:
    """Three clouds, two pairs of twins, and one item with the label of another cloud."""
    random = np.random.default_rng(0)
    y = np.arange(n) % kinds
    x = random.normal(size=(kinds, 12))[y] + 0.2 * random.normal(size=(n, 12))
    x[7] = x[4]
    labels = [f"kind {k}" for k in y]
    labels[10] = "kind 0"  # it lies among those of kind 1
    names = [f"/photos/{'train' if i % 4 else 'test'}/a {i}.png" for i in range(n)]
    if hostile:
        labels[0], names[0] = "<script>bad()</script>", '/photos/x/</script><b>,"q".png'
    splits = ["train" if i % 4 else "test" for i in range(n)]
    return Points("shop", names, labels, x.astype(np.float32), "cosine", splits)


def test_neighbours_are_exact_and_truth_is_a_share():
    made = laid(points())
    expected = nk.neighbours(torch.from_numpy(points().vectors), k=10)
    assert (made.indices == expected.indices.numpy()).all()
    assert (made.similar == expected.similarities.numpy()).all()
    assert ((made.true >= 0) & (made.true <= 1)).all()
    assert made.true.mean() > 0.5


def test_the_worklist_names_what_was_planted():
    made = laid(points())
    facts, _ = contents(made, [])
    assert [entry["items"] for entry in facts["worklist"]["mislabelled"]] == [(10,)]
    assert facts["worklist"]["mislabelled"][0]["label"] == "kind 1"
    assert facts["worklist"]["duplicates"][0]["items"] == (4, 7)
    assert facts["worklist"]["leaks"][0]["items"] == (4, 7)
    assert "test and train" in facts["worklist"]["leaks"][0]["why"]


def test_hard_and_confused_classes_by_hand():
    labels = ["a", "a", "b", "b", None]
    indices = np.array([[2, 1], [2, 0], [3, 0], [2, 1], [0, 1]])
    found = worklist(indices, np.ones((5, 2)), labels)
    assert [(e.items, e.label) for e in found.hard] == [((0, 1), "a")]
    assert "of 2 items 2 are" in found.hard[0].why
    assert [(e.items, e.label) for e in found.confused] == [((0, 1), "b")]
    assert not found.duplicates


def test_equal_bytes_are_duplicates_wherever_they_lie():
    indices = np.array([[1], [0], [1], [1]])
    found = worklist(indices, np.ones((4, 1)), [None] * 4, digests=["x", "y", "z", "x"])
    assert [(e.items, e.why) for e in found.duplicates] == [((0, 3), "the same bytes")]


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path, shop):  # noqa: F811
    made = explore(points_of_index(shop), tmp_path / "shop.html")
    text = made.read_text()
    assert "http:" not in text.replace("http://www.w3.org", "")
    assert "https:" not in text
    assert "src=" not in text.split("<script")[0]
    again = explore(points_of_index(shop), tmp_path / "again.html")
    assert again.read_text() == text


def test_many_thumbnails_stand_beside_the_page(tmp_path, shop, monkeypatch):  # noqa: F811
    monkeypatch.setattr(module, "INSIDE", 10)
    explore(points_of_index(shop), tmp_path / "shop.html")
    assert [path.name for path in (tmp_path / "shop-pictures").iterdir()] == ["0.jpg"]
    assert len((tmp_path / "shop.html").read_text()) < 60_000


def test_embeddings_files_are_shown_too(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(12) % 2, classes=np.array(["a", "b"]))
    main(["explore", "x.npz"])
    assert capsys.readouterr().out.strip().endswith("x.html: 12 items")
    made = module.points_of_file(tmp_path / "x.npz")
    assert made.labels[:2] == ["a", "b"]


def test_bytes_of_a_file_are_text(tmp_path):
    given = {"y": [b"caf\xc3\xa9", b"b"], "names": [b"a.jpg", b"b.jpg"], "metric": b"euclidean"}
    np.savez(tmp_path / "x.npz", x=X4[:2], **given)
    made = module.points_of_file(tmp_path / "x.npz")
    assert (made.labels, made.names) == (["café", "b"], ["a.jpg", "b.jpg"])
    assert made.metric == "euclidean"


X4 = np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": np.zeros((3, 2))}, "wanted an array x"),
        ({"x": np.zeros(3)}, r"wanted x as \(N, D\)"),
        ({"x": np.ones((3, 2)), "y": np.zeros(2)}, "wanted 3 labels"),
        ({"x": np.ones((2, 2))}, "three items or more"),
        ({"x": np.full((4, 2), np.nan)}, "NaN"),
        ({"x": np.ones((4, 2)) + 1j}, "wanted numbers as x, got complex128"),
        ({"x": np.ones((4, 2)).astype(str)}, "wanted numbers as x, got <U32"),
        ({"x": np.ones((4, 2), "M8[s]")}, "wanted numbers as x, got datetime64"),
        ({"x": np.ones((4, 0))}, "it holds no vectors"),
        ({"x": X4, "y": [[0], [1], [0], [1]]}, r"y must be 4 integers or texts, got \(4, 1\)"),
        ({"x": X4, "y": [0, np.nan, 0, 1]}, "y must be 4 integers or texts, got nan"),
        ({"x": X4, "y": [0, 1, 0, -1], "classes": ["a", "b"]}, r"y must be in 0\.\.1, .* got -1"),
        ({"x": X4, "y": [0, 1, 0, 2], "classes": ["a", "b"]}, r"there are 2 classes, got 0\.\.2"),
        ({"x": X4, "names": ["a", "b"]}, "wanted 4 names, got 2"),
        ({"x": X4, "metric": "cosin"}, "cosin"),
    ],
)
def test_bad_files_are_one_line(tmp_path, capsys, arrays, said):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(SystemExit) as left:
        main(["explore", str(tmp_path / "x.npz")])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error)
    assert not (tmp_path / "x.html").exists()


def test_atlas_files_hold_places_and_neighbours(tmp_path):
    from pyarrow import parquet

    made = write_atlas(points(), tmp_path / "atlas")
    table = parquet.read_table(made / "dataset.parquet")
    assert table.num_rows == 90
    assert set(table.column_names) >= {"id", "x", "y", "path", "class", "neighbors", "true"}
    expected = nk.neighbours(torch.from_numpy(points().vectors), k=10).indices[3].tolist()
    assert table["neighbors"][3].as_py()["ids"] == expected
    assert (made / "metadata.json").is_file()


# ---- decisions


def test_decisions_are_carried_out_and_outlive_updates(shop, tmp_path, folder):  # noqa: F811
    paths, _, before = shop.vectors()
    lines = [f"{paths[0]},violet,relabel", f'"{paths[1]}",x,drop', f"{paths[2]},x,keep"]
    (tmp_path / "decisions.csv").write_text("path,class,action\n" + "\n".join(lines) + "\n")
    changes = shop.decide(tmp_path / "decisions.csv")
    assert (changes.relabelled, changes.removed, changes.unchanged) == (1, 1, 1)

    def holds(index: nk.Index) -> None:
        found, labels, vectors = index.vectors()
        assert found == [paths[0], *paths[2:]]
        assert labels[0] == "violet"
        assert (vectors[0] == before[0]).all()

    holds(shop)
    assert shop.update().left_out == {"dropped by decision": 1}
    holds(nk.Index(shop.path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "wanted a line of column names"),
        ("path,class\na,b\n", "wanted a column action"),
        ("path,class,action\na,b,burn\n", "line 2: wanted a path and keep, relabel or drop"),
        ("path,class,action\n,b,keep\n", "line 2: wanted a path"),
        ("path,class,action\na,,relabel\n", "line 2: relabel wants a class"),
        ("path,class,action\na,b,keep\na,b,drop\n", "line 3: a has two decisions"),
        ("path,class,action\nnowhere.png,b,drop\n", "1 are not in"),
    ],
)
def test_bad_decisions_change_nothing(shop, tmp_path, text, said):  # noqa: F811
    (tmp_path / "decisions.csv").write_text(text)
    before = shop.vectors()[:2]
    with pytest.raises(ValueError, match=said):
        shop.decide(tmp_path / "decisions.csv")
    assert shop.vectors()[:2] == before
    assert not (shop.path / "decisions.json").exists()


# ---- in a browser


@pytest.fixture
def opened(chromium, tmp_path):  # noqa: F811
    """Opens the page of some points from the disk, and fails on any error in it."""
    pages, wrong = [], []

    def opened(shown: Points, plain: bool = False, **settings):
        made = explore(shown, tmp_path / "shop.html")
        page = chromium.new_page(viewport={"width": 1200, "height": 800}, **settings)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: wrong.append(r.url) if r.url.startswith("http") else None)
        if plain:
            page.add_init_script(
                "const get = HTMLCanvasElement.prototype.getContext;"
                "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
                "return kind === 'webgl2' ? null : get.call(this, kind, ...rest); }"
            )
        page.goto(made.as_uri())
        page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not wrong


def place(page, item: int) -> tuple[float, float]:
    x, y = page.evaluate(f"nearkin.where({item})")
    box = page.locator("#over").bounding_box()
    return box["x"] + x, box["y"] + y


def test_hover_names_and_click_shows_exact_neighbours(opened):
    shown = points()
    page = opened(shown)
    page.mouse.move(*place(page, 5))
    assert "a 5.png" in page.inner_text("#tip")
    page.mouse.click(*place(page, 5))
    expected = nk.neighbours(torch.from_numpy(shown.vectors), k=10)
    rows = page.locator("#item > ul").nth(1).locator("li").all_inner_texts()
    assert len(rows) == 10
    for row, i, s in zip(rows, expected.indices[5], expected.similarities[5], strict=True):
        assert f"a {int(i)}.png" in row
        assert f"cosine {float(s):.4f}" in row


def test_a_lasso_gives_paths(opened, tmp_path):
    page = opened(points())
    page.click("#lasso")
    box = page.locator("#over").bounding_box()
    left, top, right, bottom = (
        box["x"] + 2,
        box["y"] + 2,
        box["x"] + box["width"] - 2,
        box["y"] + box["height"] - 2,
    )
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y)
    page.mouse.up()
    assert "90 selected" in page.inner_text("#chosen")
    with page.expect_download() as download:
        page.click("#chosen button:has-text('Save CSV')")
    download.value.save_as(tmp_path / "selection.csv")
    with (tmp_path / "selection.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == points().names


def test_search_colours_classes_and_pictures(opened, shop):  # noqa: F811
    page = opened(points_of_index(shop))
    page.fill("#find", "green")
    page.keyboard.press("Enter")
    assert "5 selected" in page.inner_text("#chosen")
    for by in ("truth", "folder", "class"):
        page.select_option("#by", by)
        assert page.inner_text("#legend")
    page.check("#pictures")
    page.click("[data-tab=classes]")
    page.click("#classes li:has-text('red')")
    assert page.inner_text("#legend").strip() == "red"


def test_decisions_are_saved_and_read_by_the_index(opened, shop, tmp_path):  # noqa: F811
    paths = shop.vectors()[0]
    twin = paths[0].replace("0.png", "twin.png")
    shutil.copy(paths[0], twin)
    shop.update()
    page = opened(points_of_index(shop))
    page.click("[data-tab=work]")
    page.click("#work summary:has-text('Near-duplicates')")
    page.locator("#work li:has-text('twin.png') button:has-text('drop')").first.click()
    assert "1 dropped" in page.inner_text("#decided")
    with page.expect_download() as download:
        page.click("#save-decisions")
    download.value.save_as(tmp_path / "decisions.csv")
    assert shop.decide(tmp_path / "decisions.csv").removed == 1
    assert twin not in shop.vectors()[0]
    with page.expect_download() as download:
        page.click("#save-images")
    download.value.save_as(tmp_path / "images.csv")
    splits = nk.load(f"csv:{tmp_path / 'images.csv'}")
    held = len(splits.train) + len(splits.query)
    assert held == 15


def test_it_works_without_webgl_and_keeps_hostile_names_as_text(opened):
    page = opened(points(hostile=True), plain=True)
    page.mouse.click(*place(page, 0))
    assert "<script>bad()</script>" in page.inner_text("#item")
    assert page.locator("#item script").count() == 0


def test_keys_move_and_zoom(opened):
    page = opened(points())
    before = page.evaluate("nearkin.where(0)")
    page.focus("#over")
    page.keyboard.press("ArrowRight")
    moved = page.evaluate("nearkin.where(0)")
    assert moved[0] == pytest.approx(before[0] - 60)
    page.keyboard.press("+")
    assert page.evaluate("nearkin.where(0)") != moved
    page.click("#whole")
    assert page.evaluate("nearkin.where(0)") == pytest.approx(before)


def test_nothing_is_cut_off_on_a_phone(opened):
    page = opened(points())
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_page_s_program_has_every_file_of_its_folder_once_and_none_is_long():
    source = Path(module.__file__).parent / "page" / "explore"
    texts = {path.stem: path.read_text() for path in source.iterdir()}
    assert sorted(module.PROGRAM) == sorted(texts)
    assert all(module.program().count(text) == 1 for text in texts.values())
    assert max(text.count("\n") for text in texts.values()) < 400
