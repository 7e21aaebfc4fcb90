"""A page is one file that needs nothing else, says what its rows say, and escapes every name."""

import base64
import io
import json
import re
import shlex
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from nearkin import cli
from nearkin.measure.statistics import Estimate, estimate
from nearkin.report import kept, pictures, plots, standard, views, write_markdown, write_page
from nearkin.runs.recipe import Recipe
from nearkin.studies.answer import Answer, Bars, Gallery, Line, Lines, Maps, Matrix, Table

EVIL = "<script>alert('1')</script> & \"$x$\" | *b*"
FILE = '"><img src=x onerror=alert(2)>.png'
CLASSES = ("0", "1", EVIL)


def make_row(recipe: Recipe, store: Path, *, status: str = "done", keep: bool = True) -> dict:
    """A row as the engine writes it, with its embeddings: 30 items of 3 classes around corners."""
    last = {"epoch": 3, "recall@1": 0.5 + 0.01 * recipe.seed, "map@r": 0.3}
    done = status == "done"
    epochs = [
        {"epoch": e, "loss": 1 / e, "test": {"recall@1": 0.3 + 0.07 * e + 0.01 * recipe.seed}}
        for e in (1, 2, 3)
    ]
    row = {
        "hash": recipe.hash,
        "study": "demo",
        "status": status,
        "recipe": asdict(recipe),
        "metric": "euclidean",
        "metrics": {
            "last": last if done else None,
            "validated": last | {"epoch": 2, "recall@1": 0.49} if done else None,
            "best_on_test": last | {"epoch": 1, "recall@1": last["recall@1"] + 0.02}
            if done
            else None,
        },
        "epochs": epochs,
        "cost": {"seconds": 12.5},
        "data": {"name": recipe.data, "variant": "28 px, grey", "train_images": 4000},
        "versions": {"nearkin": "0.1", "torch": "2.9"},
        "machine": {"cpu": "a <fast> one", "cores": 2, "gpu": None, "system": "Linux"},
        "files": {"folder": f"runs/{recipe.hash}", "embeddings": "embeddings.npz"},
    }
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


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def rows(store) -> list[dict]:
    recipes = [
        Recipe(loss=loss, dim=dim, seed=seed)
        for loss, dim in (("contrastive", 2), ("n-pair", 2), ("n-pair", 5))
        for seed in range(3)
    ]
    found = [make_row(r, store) for r in recipes]
    odd = Recipe(loss="n-pair", dim=5, seed=3)
    return [*found, make_row(odd, store, status="diverged", keep=False)]


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
BARS = Bars("Bars", "R@1", ("a", EVIL), ("2-D", "64-D"), ((HALF, None), (HALF, HALF)), percent=True)
MATRIX = Matrix("Matrix", ("a", EVIL), ("b", "c"), ((HALF, None), (HALF, HALF)), percent=True)


@pytest.fixture(scope="module")
def answer(rows) -> Answer:
    table = Table("Scores", ("method", "R@1"), ((EVIL, HALF),), percent=("R@1",))
    maps = Maps("Maps", ((EVIL, rows[0]), ("n-pair", rows[3]), ("5-D", rows[6]), ("no", rows[-1])))
    gallery = Gallery("Neighbours", rows[0])
    return Answer(
        f"Title {EVIL}",
        f"Question {EVIL}?",
        (f"Finding {EVIL}.",),
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


# ---- the page


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
    for row in rows:
        assert row["hash"] in read.text
        assert standard.command(row["recipe"]) in read.text
    for said in ("28 px, grey, 4,000 train images", "torch 2.9", "10 runs, 2 min 5 s in all"):
        assert said in read.text
    assert "nearkin study demo --x '<'" in read.text
    diverged = read.text[read.text.index("Diverged") :]
    assert rows[-1]["hash"] in diverged[:200]


def test_writing_twice_gives_the_same_bytes(answer, rows, store, page, tmp_path):
    write_page(answer, rows, tmp_path, store, name="demo", command="nearkin study demo --x '<'")
    first = {p.relative_to(page.parent): p for p in page.parent.rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path): p for p in tmp_path.rglob("*") if p.is_file()}
    assert first.keys() == second.keys()
    assert {str(p.suffix) for p in first} == {".html", ".md", ".tex", ".svg", ".png"}
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes(), name


def test_a_page_is_written_without_rows_and_from_rows_that_are_no_runs(tmp_path):
    empty = Answer("Nothing", "What?")
    assert "Nothing" in write_page(empty, [], tmp_path, tmp_path).read_text()
    measured = [{"hash": "a", "seconds": 1.0}, {"hash": "b", "seconds": 2.0}]
    assert "What?" in write_page(empty, measured, tmp_path, tmp_path).read_text()


def test_markdown_holds_the_same_and_its_pictures_exist(page, rows):
    text = page.with_suffix(".md").read_text()
    pictured = re.findall(r"!\[.*\]\((\S+)\)", text)
    assert len(pictured) == 6
    for name in pictured:
        assert (page.parent / name).stat().st_size < 2_000_000
    assert all(row["hash"] in text for row in rows)
    assert "50.0 ± 1.0" in text
    assert "    nearkin study demo --x '<'" in text
    assert not re.search(r"<(?!/?details>|/?summary>)", text.replace("--x '<'", ""))
    assert r"\begin{tabular}{lr}" in page.with_suffix(".tex").read_text()


def test_markdown_alone_can_be_written(answer, rows, store, tmp_path):
    path = write_markdown(answer, rows, tmp_path, store, name="alone")
    assert path == tmp_path / "alone.md"
    assert not list(tmp_path.glob("*.html"))


# ---- figures


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
    bars = Bars("b", "price in $ or $", ("$x$",), ("s",), ((HALF,),))
    root = ElementTree.fromstring(plots.svg(bars))
    said = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "$x$" in said
    assert "price in $ or $" in said


def test_figures_without_any_value_can_be_drawn():
    for figure in (
        Lines("l", "x", "y", ()),
        Lines("l", "x", "y", (Line("one point", (1,), (0.0,)),)),
        Bars("b", "y", ("a",), ("s",), ((None,),)),
        Matrix("m", ("a",), ("b",), ((None,),)),
    ):
        ElementTree.fromstring(plots.svg(figure))


def test_classes_differ_by_more_than_colour(read):
    sets = read.data()["sets"][0]
    assert sets["tags"] == ["A", "B", "C"]  # as one name is long
    assert len(set(views.CLASS_COLOURS)) == 10
    for chart in read.data()["maps"]:
        assert [label for label, _, _ in chart["labels"]] == [0, 1, 2]


def test_maps_keep_proportions_and_lie_inside_their_square(rows, store):
    panel = views.panels(Maps("m", (("a", rows[0]),)), store)[0]
    assert isinstance(panel, views.Panel)
    away = np.linalg.norm(panel.kept.x[:, None] - panel.kept.x, axis=-1)
    drawn = np.linalg.norm(panel.points[:, None] - panel.points, axis=-1)
    apart = away > 0
    np.testing.assert_allclose(drawn[apart] / away[apart], drawn.max() / away.max(), rtol=1e-4)
    assert panel.points.min() > 0
    assert panel.points.max() < 1
    length, share = panel.ruler
    np.testing.assert_allclose(share / float(length), drawn.max() / away.max(), rtol=1e-4)


def test_maps_of_the_same_items_share_one_set(read):
    assert [m["set"] for m in read.data()["maps"]] == [0, 0, 0]
    assert len(read.data()["sets"]) == 1


def test_a_plane_is_that_of_scikit_learn_up_to_signs():
    x = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    flat, reference = kept.plane(x), PCA(2).fit_transform(x)
    np.testing.assert_allclose(np.abs(flat), np.abs(reference), atol=1e-9)
    assert kept.plane(x[:, :2]) is not None
    np.testing.assert_array_equal(kept.plane(x[:, :2]), x[:, :2])
    assert kept.plane(x[:, :1]).shape == (50, 2)


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
    x, y = view.kept.x.astype(float), view.kept.labels
    away = ((x[:, None] - x) ** 2).sum(-1)
    np.fill_diagonal(away, np.inf)
    order = away.argsort(1)
    for question in view.wrong + view.right:
        assert list(question.found) == order[question.item, :5].tolist()
        assert list(question.right) == (y[list(question.found)] == y[question.item]).tolist()
    assert all(not q.right[0] for q in view.wrong)
    assert all(q.right[0] for q in view.right)
    assert (view.hits, view.asked) == (int((y[order[:, 0]] == y).sum()), len(y))


# ---- what may be shown


@pytest.mark.parametrize(
    "data", ["mnist", "mnist-5k", "fashion-mnist", "omniglot", "folder:/my/own"]
)
def test_pictures_of_free_sets_and_own_folders_are_shown(data, tmp_path):
    row = make_row(Recipe(data=data, dim=2), tmp_path)
    path = write_page(page_of(row), [row], tmp_path, tmp_path)
    assert path.read_text().count("data:image/png") > 10


@pytest.mark.parametrize(
    "data",
    ["cub", "cars", "sop", "inshop", "features:cub.npz", "folder:/x/CUB_200_2011/images"],
)
def test_pictures_of_others_are_never_in_a_page(data, tmp_path):
    row = make_row(Recipe(data=data, dim=2), tmp_path)
    path = write_page(page_of(row), [row], tmp_path, tmp_path)
    assert "data:image" not in path.read_text()
    assert "Its pictures are not ours to show." in path.read_text()


def page_of(row: dict) -> Answer:
    return Answer("t", "q", figures=(Maps("m", (("a", row),)), Gallery("g", row)))


def test_only_the_items_that_have_pictures_are_drawn_with_them(rows, store):
    found = kept.read(rows[0], store)
    assert found is not None
    assert found.items.tolist() == list(range(0, 30, 2))
    assert found.pictures is not None
    assert len(found.pictures) == 15


def test_large_sets_are_thinned(tmp_path):
    recipe = Recipe(data="features:x.npz", dim=2)
    write_embeddings(tmp_path / "runs" / recipe.hash / "embeddings.npz", recipe, n=5000)
    row = make_row(recipe, tmp_path, keep=False)
    found = kept.read(row, tmp_path)
    assert found is not None
    assert len(found.x) == 1667
    assert found.items[-1] == 4998


def test_a_pickled_file_is_refused(tmp_path):
    recipe = Recipe(dim=2)
    row = make_row(recipe, tmp_path)
    np.savez(tmp_path / "runs" / recipe.hash / "embeddings.npz", y=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        kept.read(row, tmp_path)


@pytest.mark.parametrize("shape", [(7, 8, 8), (7, 8, 8, 3), (7, 64, 40, 3)])
def test_a_sheet_holds_each_picture_in_its_place(shape):
    smooth = np.linspace(0, 200, int(np.prod(shape[1:]))).reshape(shape[1:])
    many = np.stack([smooth + 7 * i for i in range(7)]).astype(np.uint8)
    uri, across = kept.sheet(many)
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


# ---- the standard section


def test_methods_are_named_by_as_little_as_tells_them_apart(rows):
    named = standard.methods(rows)
    assert {name: len(group) for name, group in named.items()} == {
        "contrastive, dim 2": 3,
        "n-pair, dim 2": 3,
        "n-pair, dim 5": 4,
    }
    assert list(standard.methods(rows[:3])) == ["contrastive"]


def test_the_bias_is_best_on_test_less_the_last_epoch(rows):
    table = standard.selection(rows, standard.methods(rows))
    line = dict(zip(table.columns, table.rows[2], strict=True))
    assert (line["runs"], line["diverged"]) == (4, 1)
    assert line["last epoch"] == estimate([0.5, 0.51, 0.52])
    assert line["validated epoch"] == estimate([0.49] * 3)
    assert isinstance(line["bias"], Estimate)
    assert line["bias"].mean == pytest.approx(0.02)


def test_curves_are_means_over_seeds(rows):
    curves = standard.curves(rows, standard.methods(rows))
    assert curves is not None
    assert [line.name for line in curves.lines] == list(standard.methods(rows))
    assert curves.lines[0].x == (1, 2, 3)
    assert curves.lines[0].y == pytest.approx((0.38, 0.45, 0.52))
    assert all(low < y for low, y in zip(curves.lines[0].low, curves.lines[0].y, strict=True))


def test_a_study_that_draws_its_own_curves_gets_no_others(answer, rows, tmp_path):
    own = Lines("Own", "epoch", "R@1", (Line("a", (1, 2), (0.1, 0.2)),))
    path = write_markdown(Answer("t", "q", figures=(own,)), rows, tmp_path, tmp_path)
    assert path.read_text().count("![") == 1


def test_accuracy_speaks_where_every_run_has_it(rows):
    assert standard.headline(rows).name == "R@1"
    last = {"knn_accuracy": 0.9, "recall@1": 0.8}
    assert standard.headline([{"metrics": {"last": last}}]).name == "5-NN accuracy"


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(data="folder:/a b/c", loss="n-pair", loss_options={"l2": 0.1, "form": "printed"}),
        Recipe(validate=True, lr=3e-5, epochs=7, backbone_options={"live": True, "name": "1"}),
    ],
)
def test_the_command_of_a_row_asks_for_its_recipe(recipe):
    words = shlex.split(standard.command(asdict(recipe)))
    act = cli.parse(words[1:], Recipe())
    asked = [*act.args, *act.keywords.values()]  # type: ignore[attr-defined]
    assert recipe in asked
