"""A page is one file that needs nothing else, says what its rows say, and escapes every name."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from nearkin.answers import Answer, Finding, Gallery, Maps, Table
from nearkin.report import pictures, standard, views, write_markdown, write_page
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Measurement, Row
from nearkin.studies.study import Case
from reported import BARS, CLASSES, EVIL, FILE, HALF, LINES, MATRIX, make_row, make_rows


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def rows(store) -> dict[Case, Row]:
    return make_rows(store)


@pytest.fixture(scope="module")
def answer(rows) -> Answer:
    table = Table("Scores", ("method", "R@1"), ((EVIL, HALF),), percent=("R@1",))
    one, other, third, last = [*rows.values()][::3]
    maps = Maps("Maps", ((EVIL, one), ("n-pair", other), ("5-D", third), ("no", last)))
    gallery = Gallery("Neighbours", one)
    return Answer(
        f"Title {EVIL}",
        f"Question {EVIL}?",
        (Finding(f"Finding {EVIL}."),),
        (table,),
        (LINES, BARS, MATRIX, maps, gallery),
    )


@pytest.fixture(scope="module")
def page(answer, rows, store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_page(
        answer, rows, folder, store, name="demo", command="nearkin study demo --x '<'"
    )


class Reader(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        last = self.tags[-1][0] if self.tags else ""
        if last == "script":
            self.scripts[-1] += data
        elif last != "style":
            self.text += data

    def all(self, tag: str, cls: str = "") -> list[dict]:
        return [a for t, a in self.tags if t == tag and cls in (a.get("class") or "").split(" ")]

    def data(self) -> dict:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def read(page) -> Reader:
    return Reader(page)


def test_a_page_needs_no_other_file(read, page):
    addresses = [
        value
        for _, attributes in read.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
    ]
    assert addresses
    assert all(re.match(r"data:|#", address) for address in addresses)
    assert not read.all("link")
    assert "@import" not in page.read_text()
    assert not re.search(r"url\((?!#|\$\{set\.sheet\})", page.read_text())
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(", page.read_text())


def test_names_never_become_markup(read):
    assert [s.strip()[:1] for s in read.scripts] == ["{", "/"]  # the data and our own script
    allowed = {"name", "content", "charset", "class", "lang", "scope", "id", "type", "role", "src"}
    assert not [name for _, a in read.tags for name in a if name.startswith("on")]
    assert "onerror" not in {name for _, a in read.tags for name in a} | allowed
    for wanted in (f"Title {EVIL}", f"Question {EVIL}?", f"Finding {EVIL}.", "a <fast> one"):
        assert wanted in read.text
    assert read.data()["sets"][0]["classes"] == list(CLASSES)
    assert read.data()["sets"][0]["titles"][1] == f"2 {FILE}"


def test_every_figure_is_there(read):
    assert len(read.all("svg")) == 4  # lines, bars, matrix, and the curves of every page
    assert len(read.all("canvas")) == 3
    assert "The embeddings of this run are not kept here." in read.text
    tiles = read.all("div", "tile")
    assert len(read.all("div", "asked")) * 6 == len(tiles)
    assert read.all("div", "right")
    assert read.all("div", "wrong")
    assert all(a["src"].startswith("data:image/png") for a in read.all("img"))
    assert len(read.all("img")) == len(tiles)


def test_the_runs_are_all_there_with_recipe_command_machine_and_versions(read, rows):
    for row in rows.values():
        assert row.hash in read.text
        assert standard.command(row.recipe) in read.text
    for text in ("28 px, grey, 4,000 train images", "torch 2.9", "10 runs, 2 min 5 s in all"):
        assert text in read.text
    assert "nearkin study demo --x '<'" in read.text
    diverged = read.text[read.text.index("Diverged") :]
    assert [*rows.values()][-1].hash in diverged[:200]


def test_writing_twice_gives_the_same_bytes(answer, rows, store, page, tmp_path):
    write_page(answer, rows, tmp_path, store, name="demo", command="nearkin study demo --x '<'")
    first = {p.relative_to(page.parent): p for p in page.parent.rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path): p for p in tmp_path.rglob("*") if p.is_file()}
    assert first.keys() == second.keys()
    assert {str(p.suffix) for p in first} == {".html", ".md", ".svg", ".png"}
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes(), name


def test_a_page_is_written_without_rows_and_from_rows_that_are_no_runs(tmp_path):
    empty = Answer("Nothing", "What?")
    assert "Nothing" in write_page(empty, {}, tmp_path, tmp_path).read_text()
    measured = {Case(name): Measurement(name, {"seconds": 1.0}) for name in "ab"}
    written = write_page(empty, measured, tmp_path, tmp_path)
    for text in (written.read_text(), written.with_suffix(".md").read_text()):
        assert "What?" in text
        assert "how the epoch is chosen" not in text  # by no run: a table without rows


def test_markdown_holds_the_same_and_its_pictures_exist(page, rows):
    text = page.with_suffix(".md").read_text()
    pictured = re.findall(r"!\[.*\]\((\S+)\)", text)
    assert len(pictured) == 6
    for name in pictured:
        assert (page.parent / name).stat().st_size < 2_000_000
    assert all(row.hash in text for row in rows.values())
    assert "50.0 ± 1.0" in text
    assert "    nearkin study demo --x '<'" in text
    assert not re.search(r"<(?!/?details>|/?summary>)", text.replace("--x '<'", ""))


def test_links_to_pictures_may_have_blanks_and_brackets(answer, rows, store, tmp_path):
    path = write_markdown(answer, rows, tmp_path, store, name="my (two) sets")
    links = re.findall(r"!\[.*?\]\((\S+)\)$", path.read_text(), re.MULTILINE)
    assert links
    assert all((tmp_path / unquote(link)).is_file() for link in links)


def test_markdown_alone_can_be_written(answer, rows, store, tmp_path):
    path = write_markdown(answer, rows, tmp_path, store, name="alone")
    assert path == tmp_path / "alone.md"
    assert not list(tmp_path.glob("*.html"))


def test_pictures_of_an_earlier_longer_page_are_removed(answer, rows, store, tmp_path):
    write_markdown(answer, rows, tmp_path, store, name="page")
    (tmp_path / "page" / "figure-99.svg").write_text("old")
    before = sorted((tmp_path / "page").iterdir())
    write_markdown(answer, rows, tmp_path, store, name="page")
    assert sorted((tmp_path / "page").iterdir()) == [p for p in before if p.stem != "figure-99"]


def test_a_picture_stays_where_the_files_of_its_runs_are_gone(tmp_path):
    store, (one, other, late) = tmp_path / "out", (Recipe(dim=2, seed=s) for s in range(3))
    first, second = (make_row(recipe, store) for recipe in (one, other))
    rows = {Case("a"): first, Case("b"): second}
    figures = (Maps("all", (("a", first), ("b", second))), Gallery("near", first))

    def page(*figures) -> list[Path]:
        write_markdown(Answer("t", "q", figures=figures), rows, tmp_path, store, name="page")
        return sorted((tmp_path / "page").glob("*.png"))

    drawn = {path: path.read_bytes() for path in page(*figures)}
    assert len(drawn) == 2
    shutil.rmtree(store / "runs" / one.hash)  # of the maps one is left, of the gallery nothing
    turned = Maps("all", figures[0].rows[::-1]), figures[1]
    assert {path: path.read_bytes() for path in page(*turned)} == drawn
    shutil.rmtree(store / "runs" / other.hash)
    assert {path: path.read_bytes() for path in page(*figures)} == drawn
    moved = page(*figures[::-1])  # their numbers change, not what was drawn
    assert [path.read_bytes() for path in moved] == [*drawn.values()][::-1]
    assert page(Gallery("near", second)) == []  # a map is no gallery, though it is of the same run

    elsewhere = make_row(late, store, keep=False)  # nothing was ever drawn of this one
    assert page(Gallery("near", elsewhere)) == []
    assert "### near" not in (tmp_path / "page.md").read_text()


def test_what_is_here_is_drawn_where_no_picture_of_all_of_it_was(tmp_path):
    store = tmp_path / "out"
    here, gone = (make_row(Recipe(dim=2, seed=s), store, keep=not s) for s in range(2))
    maps = Maps("all", (("a", here), ("b", gone)))
    path = pictures.save(maps, tmp_path / "figure-1", store, {})
    assert path
    origin = f"Maps({' '.join(sorted((here['hash'], gone['hash'])))})"
    assert path.read_bytes() == pictures.png(maps, store, origin)


def test_classes_differ_by_more_than_colour(read):
    sets = read.data()["sets"][0]
    assert sets["tags"] == ["A", "B", "C"]  # as one name is long
    assert len(set(views.CLASS_COLOURS)) == 10
    for chart in read.data()["maps"]:
        assert [label for label, _, _ in chart["labels"]] == [0, 1, 2]


def test_maps_of_the_same_items_share_one_set(read):
    assert [m["set"] for m in read.data()["maps"]] == [0, 0, 0]
    assert len(read.data()["sets"]) == 1


@pytest.mark.parametrize(
    "data", ["mnist", "mnist-5k", "fashion-mnist", "omniglot", "folder:/my/cars-of-friends"]
)
def test_pictures_of_free_sets_and_own_folders_are_shown(data, tmp_path):
    row = make_row(Recipe(data=data, dim=2), tmp_path)
    path = write_page(page_of(row), {Case("a"): row}, tmp_path, tmp_path)
    assert path.read_text().count("data:image/png") > 10


@pytest.mark.parametrize(
    "data",
    [
        *("cub", "cars", "sop", "inshop", "folder:/x/CUB_200_2011/images"),
        *("folder:/x/CUB_200_2011_128px", "folder:stanford_cars_crops/train"),
    ],
)
def test_pictures_of_others_are_never_in_a_page(data, tmp_path):
    row = make_row(Recipe(data=data, dim=2), tmp_path)
    path = write_page(page_of(row), {Case("a"): row}, tmp_path, tmp_path)
    assert "data:image" not in path.read_text()
    assert "Its pictures are not ours to show." in path.read_text()


def test_features_have_no_pictures_to_show(tmp_path):
    row = make_row(Recipe(data="features:cub.npz", dim=2), tmp_path)
    text = write_page(page_of(row), {Case("a"): row}, tmp_path, tmp_path).read_text()
    assert "data:image" not in text
    assert "This run kept no pictures." in text


def page_of(row: Row) -> Answer:
    return Answer("t", "q", figures=(Maps("m", (("a", row),)), Gallery("g", row)))


@pytest.mark.parametrize("harm", ["cut", "no array", "labels beyond the classes", "rows that lack"])
def test_a_harmed_file_of_embeddings_is_named_and_the_page_goes_on(tmp_path, harm):
    row = make_row(Recipe(loss="contrastive", dim=2), tmp_path)
    path = tmp_path / row.files.folder / row.files.embeddings
    arrays = dict(np.load(path))
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:300])
    else:
        changed = {
            "no array": {name: arrays[name] for name in ("x", "classes", "names")},
            "labels beyond the classes": {**arrays, "y": arrays["y"] + 7},
            "rows that lack": {**arrays, "x": arrays["x"][:-3]},
        }
        np.savez(path, **changed[harm])
    answer = Answer("Title", "Question?", (), (), (Maps("Maps", (("one", row),)),))
    with pytest.warns(UserWarning, match="embeddings.npz.*; what it holds is not shown") as told:
        page = write_page(answer, {Case("one", 0): row}, tmp_path / "page", tmp_path, name="demo")
    assert len(told) == 1
    assert "Title" in page.read_text()
