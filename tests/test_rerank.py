"""Search puts the nearest in a better order by their neighbours, and groups what has no label."""

import csv

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from nearkin.app.main import main
from nearkin.search.exact import Opened
from nearkin.search.groups import groups, whispers
from nearkin.search.index import Index
from nearkin.search.rerank import NEIGHBOURS, POWER, reranked
from test_app_index import refused, shop  # noqa: F401 - a fixture
from test_index import COLOURS, folder, model, photograph  # noqa: F401 - a fixture


def opened(vectors: np.ndarray, labels: list[str | None]) -> Opened:
    """An index's items, without the index."""
    rows = [{"path": f"{i:03d}.jpg", "label": label} for i, label in enumerate(labels)]
    size = pa.list_(pa.float32(), vectors.shape[1])
    columns = {name: [row[name] for row in rows] for name in ("path", "label")}
    flat = pa.array(vectors.astype(np.float32).ravel())
    return Opened(
        pa.table({**columns, "vector": pa.FixedSizeListArray.from_arrays(flat, type=size)}),
        "cosine",
    )


def clouds(count: int = 12, classes: int = 6, spread: float = 0.8, seed: int = 0):
    """Points around directions, and which direction each is around."""
    random = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(classes), count)
    centres = random.normal(size=(classes, 16))
    return (centres[kinds] + spread * random.normal(size=(len(kinds), 16))).astype(
        np.float32
    ), kinds


def by_definition(query, places, items):
    """The formula, item by item."""

    def unit(x):
        return x / np.linalg.norm(x)

    def listening(x, without=None):
        cosines = [unit(x) @ unit(y) if j != without else -9 for j, y in enumerate(items)]
        near = np.argsort(-np.array(cosines), kind="stable")[:NEIGHBOURS]
        return unit(unit(x) + sum(max(0, cosines[j]) ** POWER * unit(items[j]) for j in near))

    scores = [listening(items[i], i) @ listening(query) for i in places]
    return sorted(range(len(places)), key=lambda i: -scores[i])


def test_the_new_order_is_that_of_the_formula():
    x, _ = clouds()
    items = opened(x[1:], [None] * (len(x) - 1))
    _, places = items.nearest(x[:1], 30)
    order = reranked(x[0], places[0], items)
    assert order.tolist() == by_definition(x[0].astype(np.float64), places[0], x[1:])
    assert order.tolist() != list(range(30))


def test_it_brings_kin_forward():
    x, kinds = clouds(spread=1.1)
    before, after = [], []
    for i in range(len(x)):
        rest = np.delete(np.arange(len(x)), i)
        items = opened(x[rest], [None] * len(rest))
        (places,) = items.nearest(x[i : i + 1], 40)[1]
        kin = kinds[rest][places] == kinds[i]
        before.append(kin[:11].mean())
        after.append(kin[reranked(x[i], places, items)][:11].mean())
    assert np.mean(after) > np.mean(before) + 0.03


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_items_are_no_fault(count):
    x, _ = clouds()
    items = opened(x[:count], [None] * count)
    order = reranked(x[9], items.nearest(x[9:10], 10)[1][0], items)
    assert sorted(order.tolist()) == list(range(count))


def test_an_index_answers_in_the_new_order(shop, tmp_path, capsys):  # noqa: F811
    index = Index(shop)
    photograph(tmp_path / "new.png", COLOURS["green"], 99)
    (plain,) = index.search([tmp_path / "new.png"], k=15)
    (answer,) = index.search([tmp_path / "new.png"], k=15, rerank=True)
    assert {hit.path: hit for hit in answer.hits} == {hit.path: hit for hit in plain.hits}
    assert answer.reranked
    assert not plain.reranked
    paths, _, vectors = index.vectors()
    query = np.asarray(index.embed([tmp_path / "new.png"]))[0]
    places = [paths.index(hit.path) for hit in plain.hits]
    order = by_definition(query.astype(np.float64), places, vectors)
    assert [hit.path for hit in answer.hits] == [plain.hits[i].path for i in order]
    main(["search", shop, str(tmp_path / "new.png"), "-k", "3", "--rerank"])
    assert "; re-ranked" in capsys.readouterr().out.splitlines()[0]


def test_what_is_known_is_told_by_the_nearest_before(shop, tmp_path):  # noqa: F811
    index = Index(shop)
    photograph(tmp_path / "new.png", COLOURS["green"], 99)
    (plain,) = index.search([tmp_path / "new.png"], k=1)
    index._describe(threshold={"value": plain.hits[0].similarity})
    for rerank in (False, True):
        assert index.search([tmp_path / "new.png"], k=5, rerank=rerank)[0].known is True


def test_other_metrics_are_refused(tmp_path, folder):  # noqa: F811
    index = Index.create(model(metric="euclidean"), tmp_path / "other")
    index.update(folder)
    with pytest.raises(ValueError, match="re-ranking wants an index by cosine, got euclidean"):
        index.search(np.ones((1, 6), np.float32), rerank=True)
    with pytest.raises(ValueError, match="groups want an index by cosine, got euclidean"):
        index.groups()


def test_groups_are_those_that_the_points_are_in():
    x, kinds = clouds(count=20, classes=8, spread=0.5)
    found = groups(opened(x, [None] * len(x)))
    assert found.alone == 0
    names = [found.by_path[f"{i:03d}.jpg"] for i in range(len(x))]
    assert adjusted_mutual_info_score(kinds, names) > 0.95
    sizes = [names.count(f"group {i}") for i in range(1, len(set(names)) + 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == len(x)
    assert groups(opened(x, [None] * len(x))) == found


def test_labels_stay_and_draw_others():
    x, kinds = clouds(count=20, classes=4, spread=0.3)
    labels = [None if i % 5 else f"class {kinds[i]}" for i in range(len(x))]
    labels[20:40] = [None] * 20
    found = groups(opened(x, labels))
    assert set(found.by_path) == {f"{i:03d}.jpg" for i, label in enumerate(labels) if label is None}
    for i, label in enumerate(labels):
        if label is None:
            wanted = "group 1" if kinds[i] == 1 else f"class {kinds[i]}"
            assert found.by_path[f"{i:03d}.jpg"] == wanted


def test_an_item_that_nobody_is_near_to_is_alone():
    x = np.concatenate([np.eye(4), np.eye(4)[:3] + 0.01, -np.eye(4)[:1]]).astype(np.float32)
    found = groups(opened(x, [None] * len(x)))
    assert found.alone >= 1
    assert "007.jpg" not in found.by_path
    assert "alone" in str(found)


def test_whispers_end_even_where_all_are_alike():
    near = [np.array([j for j in range(6) if j != i]) for i in range(6)]
    assert len(set(whispers(near, [np.ones(5)] * 6, [None] * 6, 0))) == 1


def test_the_way_from_a_folder_without_labels_to_classes(tmp_path, folder, capsys):  # noqa: F811
    index = Index.create(model(), tmp_path / "flat")
    index.update(folder)  # labels: none
    file = tmp_path / "groups.csv"
    main(["index", str(tmp_path / "flat"), "--cluster", str(file)])
    assert "groups, the largest of" in capsys.readouterr().out
    with open(file, newline="") as opened_file:
        rows = list(csv.DictReader(opened_file))
    assert {row["action"] for row in rows} == {"relabel"}
    assert Index(tmp_path / "flat").labels() == {None: 15}  # nothing is changed unasked
    main(["index", str(tmp_path / "flat"), "--decisions", str(file)])
    held = Index(tmp_path / "flat").labels()
    assert {row["class"] for row in rows} == set(held) - {None}


def test_where_all_have_labels_there_is_nothing_to_group(shop):  # noqa: F811
    with pytest.raises(ValueError, match="one of them without a label, got 15, 0 without"):
        Index(shop).groups()


def test_clustering_wants_an_index(tmp_path, capsys):
    said = refused(capsys, "index", "nowhere", "--cluster", str(tmp_path / "x.csv"))
    assert "holds no index" in said
    assert not (tmp_path / "x.csv").exists()
