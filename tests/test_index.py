"""An index holds each photograph once, embeds only what is new, and answers as neighbours does."""

import json
import os
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

import nearkin as nk
from nearkin.data.pictures import readable_endings
from nearkin.models.preprocess import photographs_at
from nearkin.search import exact, intake, photos
from nearkin.search import index as module
from nearkin.search.store import table_of
from nearkin.search.values import Hit, vote

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 230)}


def model(dim: int = 6, seed: int = 0, metric: str = "cosine") -> nk.Model:
    """A small Model of photographs with random weights."""
    torch.manual_seed(seed)
    options = {"filters": "4", "units": ""}
    backbone = nk.models.make("network", options, (3, 16, 16), dim)
    return nk.Model(backbone, photographs_at(16), metric)


def photograph(path, colour, seed):
    """A noisy picture of a colour."""
    noise = np.random.default_rng(seed).integers(0, 40, (24, 30, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) * 0.8 + noise).clip(0, 255).astype(np.uint8)).save(path)


def photographs(path):
    """Five photographs of each of three colours, in a folder each."""
    for name, colour in COLOURS.items():
        for i in range(5):
            photograph(path / name / f"{i}.png", colour, i)
    return path


@pytest.fixture
def folder(tmp_path):
    return photographs(tmp_path / "photos")


@pytest.fixture
def shop(folder, tmp_path):
    made = nk.Index.create(model(), tmp_path / "shop")
    changes = made.update(folder, labels="parent")
    assert (changes.added, changes.removed, str(changes)) == (15, 0, "15 added")
    return made


def test_its_vectors_are_the_models(shop):
    """Each photograph is cropped and resized once."""
    paths, _, vectors = shop.vectors()
    expected = np.asarray(shop.model.embed([photos.file_of(path) for path in paths]))
    assert np.abs(vectors - expected).max() < 1e-6


def test_it_answers_with_names_labels_and_similarities(shop, folder, tmp_path):
    photograph(tmp_path / "new.png", COLOURS["green"], 99)
    (answer,) = nk.Index(tmp_path / "shop").search([tmp_path / "new.png"], k=4)
    assert answer.query == str(tmp_path / "new.png")
    assert {hit.label for hit in answer.hits} == {"green"}
    assert (answer.label, answer.share, answer.known) == ("green", 1.0, None)
    paths, labels, vectors = shop.vectors()
    assert labels.count("blue") == 5
    query = shop.model.embed([tmp_path / "new.png"])
    found = nk.neighbours(query, 4, torch.from_numpy(vectors.copy()))
    assert [hit.path for hit in answer.hits] == [paths[i] for i in found.indices[0].tolist()]
    assert [hit.similarity for hit in answer.hits] == found.similarities[0].tolist()


def test_only_what_changed_is_embedded(shop, folder, monkeypatch):
    embedded = []
    plain = shop.model.embed_prepared
    counted = lambda x: (embedded.append(len(x)), plain(x))[1]  # noqa: E731
    monkeypatch.setattr(shop.model, "embed_prepared", counted)
    assert str(shop.update()) == "15 unchanged"
    photograph(folder / "red" / "0.png", COLOURS["blue"], 77)
    photograph(folder / "red" / "9.png", COLOURS["red"], 9)
    (folder / "green" / "1.png").rename(folder / "green" / "moved.png")
    (folder / "blue" / "2.png").unlink()
    changes = shop.update()
    assert (changes.changed, changes.added, changes.moved, changes.removed) == (1, 1, 1, 1)
    assert embedded == [2]
    assert len(shop) == 15
    assert str(shop.update()) == "15 unchanged"


def test_a_photograph_that_only_looks_new_keeps_its_vector(shop, folder):
    before = shop.vectors()[2].copy()
    os.utime(folder / "red" / "0.png", ns=(1, 1))
    changes = shop.update()
    assert str(changes) == "15 unchanged"
    assert np.array_equal(before, shop.vectors()[2])


def test_a_photograph_in_the_place_and_time_of_another_is_seen(shop, folder):
    path = folder / "red" / "0.png"
    before, content = path.stat(), bytearray((folder / "blue" / "3.png").read_bytes())
    content += b"0" * (before.st_size - len(content))
    path.write_bytes(content[: before.st_size])  # of the same size, where it is the larger one
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert shop.update().unchanged == 14


def test_a_photograph_that_can_no_longer_be_read_leaves(shop, folder):
    path = folder / "red" / "0.png"
    path.write_bytes(path.read_bytes()[:100])
    assert str(shop.update()) == "1 removed, 14 unchanged, 1 unreadable pictures left out"
    photograph(path, COLOURS["red"], 0)
    assert str(shop.update()) == "1 added, 14 unchanged"


def test_photographs_that_change_places_are_counted(shop, folder):
    a, b, away = folder / "red" / "0.png", folder / "blue" / "0.png", folder / "away.png"
    for old, new in ((a, away), (b, a), (away, b)):
        old.rename(new)
    vectors = dict(zip(*shop.vectors()[::2], strict=True))
    assert str(shop.update()) == "2 changed, 13 unchanged"
    found = dict(zip(*shop.vectors()[::2], strict=True))
    assert np.array_equal(found[str(a)], vectors[str(b)])
    assert np.array_equal(found[str(b)], vectors[str(a)])


def test_a_folder_that_was_renamed_leaves_nothing_behind(shop, folder, tmp_path):
    folder.rename(tmp_path / "shelf")
    with pytest.raises(ValueError, match=r"no such file or folder; where it was renamed, name"):
        shop.update()
    assert str(shop.update(tmp_path / "shelf", labels="parent")) == "15 moved"
    assert {hit.path for hit in shop.search([tmp_path / "shelf/red/0.png"], k=15)[0].hits} == {
        str(path) for path in (tmp_path / "shelf").rglob("*.png")
    }
    assert str(shop.update()) == "15 unchanged"  # and the folder of before is no longer asked for


def test_labels_follow_the_folders(shop, folder):
    (folder / "crimson").mkdir()
    (folder / "red" / "0.png").rename(folder / "crimson" / "0.png")
    shop.update()
    assert shop.labels() == {"crimson": 1, "red": 4, "green": 5, "blue": 5}


def test_adding_and_removing_by_label(shop, tmp_path):
    for i in range(3):
        photograph(tmp_path / "more" / f"{i}.png", (200, 200, 20), i)
    assert shop.add(tmp_path / "more", label="yellow").added == 3
    assert shop.labels()["yellow"] == 3
    assert shop.update().removed == 0  # what was added from elsewhere stays
    assert shop.remove(label="yellow") == 3
    assert shop.remove(path=shop.vectors()[0][0]) == 1
    assert len(shop) == 14
    with pytest.raises(ValueError, match="holds no photograph of label 'yellow'"):
        shop.remove(label="yellow")


def test_search_among_one_label(shop, folder):
    (answer,) = shop.search([folder / "red" / "0.png"], k=3, label="blue")
    assert {hit.label for hit in answer.hits} == {"blue"}
    with pytest.raises(ValueError, match="no photograph of label"):
        shop.search([folder / "red" / "0.png"], label="a' OR 1=1 --")


def test_labels_are_one_name_however_they_are_spelt(shop, folder, tmp_path):
    for i, form in enumerate(("NFC", "NFD")):
        name = unicodedata.normalize(form, "Café")
        photograph(tmp_path / f"{form}" / name / f"{i}.png", (9, 9, 9), i)
        shop.add(tmp_path / form, labels="parent")
    assert shop.labels()[unicodedata.normalize("NFC", "Café")] == 2


def test_names_that_are_no_utf_8_are_kept(shop, folder, tmp_path):
    odd = os.fsdecode(b"caf\xe9.png")
    (folder / "red" / "0.png").rename(folder / "red" / odd)
    changes = shop.update()
    assert (changes.moved, changes.removed, len(shop)) == (1, 0, 15)
    assert shop.update().unchanged == 15


def test_what_is_no_photograph_is_left_out_by_kind(shop, folder):
    (folder / "red" / ".hidden.png").write_bytes(b"x")
    (folder / "red" / "@eaDir").mkdir()
    (folder / "red" / "@eaDir" / "thumb.png").write_bytes(b"x")
    (folder / "red" / "notes.txt").write_text("x")
    (folder / "red" / "empty.png").touch()
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    os.mkfifo(folder / "red" / "pipe.png")
    changes = shop.update()
    assert changes.left_out == {
        "hidden files": 1,
        "hidden or system folders": 1,
        ".txt files": 1,
        "empty files": 1,
        "links to nothing and special files": 1,
        "unreadable pictures": 1,
    }
    assert len(shop) == 15


@pytest.mark.parametrize("ending", sorted(readable_endings()))
def test_what_the_reader_reads_is_a_photograph(tmp_path, ending):
    (tmp_path / f"a{ending.upper()}").write_bytes(b"x")
    assert len(photos.find([tmp_path]).photos) == 1


def test_a_folder_that_cannot_be_read_now_takes_no_photograph_away(shop, folder, monkeypatch):
    listed = os.scandir

    def failing(path):
        if str(path).endswith("/red"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(PermissionError, match="Permission denied"):
        shop.update()
    monkeypatch.undo()
    assert len(shop) == 15


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_neither_file_nor_folder_is_refused(shop, tmp_path, make):
    make(tmp_path / "odd.png")
    with pytest.raises(ValueError, match=r"odd\.png: no such file or folder"):
        shop.add(tmp_path / "odd.png")


def test_a_folder_that_links_to_itself_ends(folder):
    (folder / "red" / "loop").symlink_to(folder, target_is_directory=True)
    assert len(photos.find([folder]).photos) == 15


@pytest.mark.parametrize(
    ("labels", "wanted"), [("none", None), ("parent", "b"), ("top", "a"), ("nested", "a/b")]
)
def test_labels_are_read_from_folders(tmp_path, labels, wanted):
    photograph(tmp_path / "a" / "b" / "1.png", (1, 2, 3), 0)
    assert photos.find([tmp_path], labels).photos[0].label == wanted


def test_duplicates_are_those_of_equal_bytes(shop, folder):
    copy = folder / "green" / "copy.png"
    copy.write_bytes((folder / "red" / "0.png").read_bytes())
    shop.update()
    assert shop.duplicates() == [sorted(map(str, (copy, folder / "red" / "0.png")))]


def test_an_index_refuses_vectors_and_models_of_others(shop, tmp_path):
    with pytest.raises(ValueError, match="holds embeddings of 6 numbers, got"):
        shop.search(np.ones((1, 7), dtype=np.float32))
    model(seed=1).save(tmp_path / "shop" / "model")
    with pytest.raises(ValueError, match=r"is an index of Model \w+, got one of identity"):
        nk.Index(tmp_path / "shop").search([tmp_path / "photos" / "red" / "0.png"])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "strange": 2}', "\x00"]
)
def test_a_broken_description_is_one_line(shop, tmp_path, text):
    (tmp_path / "shop" / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"is not (JSON|the description of an index)"):
        nk.Index(tmp_path / "shop")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dim": "6"}, "dim: wanted int, got '6'"),
        ({"dim": 0}, "dim: wanted 1 or more, got 0"),
        ({"metric": "cosin"}, "unknown metric 'cosin': did you mean 'cosine'"),
        ({"identity": 3}, "identity: wanted str, got 3"),
        ({"store": 3}, "store: wanted str, got 3"),
        ({"threshold": 3}, "not subscriptable"),
        ({"threshold": {"value": "high"}}, "threshold: wanted a number as its value, got 'high'"),
        ({"threshold": {"value": float("nan")}}, "a number as its value, got nan"),
        ({"threshold": {}}, "'value'"),
    ],
)
def test_a_description_of_other_types_is_one_line(shop, tmp_path, changed, said):
    card = tmp_path / "shop" / "index.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **changed}))
    with pytest.raises(ValueError, match="is not the description of an index") as error:
        nk.Index(tmp_path / "shop")
    assert said in str(error.value)


def test_a_newer_index_and_none_at_all_are_refused(shop, tmp_path):
    card = tmp_path / "shop" / "index.json"
    card.write_text(card.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match="written by a newer Nearkin"):
        nk.Index(tmp_path / "shop")
    with pytest.raises(ValueError, match="holds no index"):
        nk.Index(tmp_path)
    with pytest.raises(ValueError, match="exists: give the index a folder of its own"):
        nk.Index.create(model(), tmp_path / "shop")


def test_a_killed_create_is_no_hindrance(tmp_path):
    """The Model was saved, and the table was being made."""
    made = nk.Index.create(model(), tmp_path / "shop")
    (tmp_path / "shop" / "index.json").unlink()
    (table,) = (tmp_path / "shop").glob("*.lance")
    for path in table.rglob("*"):
        path.write_bytes(b"") if path.is_file() else None
    again = nk.Index.create(model(), tmp_path / "shop")
    assert len(again) == 0
    assert again.description == made.description
    (tmp_path / "shop" / "index.json").unlink()
    (tmp_path / "shop" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="exists: give the index a folder of its own"):
        nk.Index.create(model(), tmp_path / "shop")


def test_a_threshold_is_stored_and_tells_known_from_unknown(tmp_path):
    """Sixty labels of their own colour: a new colour is unknown, a new photograph of one is not."""
    made = nk.Index.create(model(), tmp_path / "shop")
    random = np.random.default_rng(0)
    kinds, rows = np.repeat([f"{i:02}" for i in range(60)], 4), random.standard_normal((60, 6))
    vectors = (np.repeat(rows, 4, 0) + 0.02 * random.standard_normal((240, 6))).astype(np.float32)
    items = [
        {"path": f"/{i:03}", "sha256": "", "size": 1, "mtime": 1, "label": k, "thumbnail": b""}
        for i, k in enumerate(kinds)
    ]
    made.store.put(table_of(items, vectors))
    found = made.calibrate(0.1)
    assert found.value is not None
    (known, unknown) = nk.Index(tmp_path / "shop").search(
        np.stack([vectors[0] * 2, np.cross(rows[0, :3], rows[1, :3]).repeat(2)]).astype(np.float32)
    )
    assert (known.known, known.label) == (True, "00")
    assert unknown.known == (unknown.hits[0].similarity >= found.value)
    few = made.calibrate(0.001)
    assert few.value is None
    assert "takes about" in str(few)
    assert made.search(vectors[:1])[0].known is None


def test_a_killed_update_goes_on(shop, folder, monkeypatch):
    for i in range(6):
        photograph(folder / "red" / f"more{i}.png", COLOURS["red"], 50 + i)
    monkeypatch.setattr(intake, "AT_ONCE", 2)

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.update(progress=stop)
    again = nk.Index(shop.path)
    assert len(again) == 19
    assert again.update().added == 2


@pytest.mark.parametrize("metric", ["cosine", "inner", "euclidean"])
def test_numpy_alone_finds_the_same(metric):
    random = np.random.default_rng(0)
    x = random.standard_normal((400, 12)).astype(np.float32)
    x[200:] = x[:200]  # ties
    query = random.standard_normal((7, 12)).astype(np.float32)
    got = exact.similarities(exact.points(query, metric), exact.points(x, metric), metric)
    order = np.argsort(-got, axis=1, kind="stable")[:, :20]
    wanted = nk.neighbours(query, 20, x, metric=metric)
    assert np.array_equal(order, wanted.indices)
    assert np.array_equal(np.take_along_axis(got, order, 1), wanted.similarities)


def test_votes_go_to_the_most_and_ties_to_the_nearest():
    hits = [Hit(str(i), label, 1 - i / 10) for i, label in enumerate("ab" + "x" * 9)]
    assert vote(hits) == ("x", 0.6)
    assert vote([Hit("1", "a", 1), Hit("2", "b", 0.9)]) == ("a", 0.5)
    assert vote([Hit("1", None, 1)]) == (None, None)


def test_a_table_names_photographs_and_their_classes(folder, tmp_path):
    made = nk.Index.create(model(), tmp_path / "listed")
    lines = ["path,class", "photos/red/0.png,warm", "photos/blue/1.png,cold", ""]
    table = tmp_path / "images.csv"
    table.write_text("\n".join(lines))
    assert str(made.update(table)) == "2 added"
    assert made.labels() == {"warm": 1, "cold": 1}
    table.write_text("\n".join([*lines[:2], "photos/blue/1.png,icy", "photos/green/2.png,mild"]))
    changes = made.update()
    assert (changes.added, changes.relabelled, changes.unchanged) == (1, 1, 1)
    assert made.labels() == {"warm": 1, "icy": 1, "mild": 1}
    same = made.model.embed([folder / "red" / "0.png"])
    assert made.search(same.numpy(), 1)[0].hits[0].label == "warm"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path\nphotos/red/0.png\n", "wanted a column class"),
        ("path,class\nnowhere.png,x\n", "line 2: wanted a file and a class"),
        ("path,class\nphotos/red/0.png,\n", "line 2: wanted a file and a class"),
        ("path,class\nphotos/red/0.png,a\nphotos/red/0.png,b\n", "line 3: .* has two classes"),
        ("path,class\n\n\nnowhere.png,x\n", "line 4: wanted a file and a class"),
    ],
)
def test_a_table_that_is_none_adds_nothing(shop, folder, tmp_path, text, said):
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        shop.update(tmp_path / "images.csv")
    assert len(shop) == 15


def test_old_versions_are_forgotten_and_nothing_else(shop, folder, monkeypatch):
    for i in range(3):
        photograph(folder / "red" / f"more{i}.png", COLOURS["red"], 60 + i)
        shop.update()
    before = shop.vectors()
    assert len(shop.store.versions()) > 3
    assert shop.tidy() == 0  # all are younger than a week
    with pytest.warns(UserWarning, match="every version except the latest"):  # LanceDB's own word
        gone = shop.tidy(days=0)
    assert gone > 2
    assert len(shop.store.versions()) <= 2
    after = nk.Index(shop.path).vectors()
    assert after[:2] == before[:2]
    assert np.array_equal(after[2], before[2])
    with pytest.raises(ValueError, match="wanted days of 0 or more"):
        shop.tidy(days=-1)
    monkeypatch.setattr(module, "MANY", 1)
    monkeypatch.setattr(module, "KEPT_DAYS", 0.0)
    calls = []
    monkeypatch.setattr(shop, "tidy", lambda: calls.append(1))
    photograph(folder / "red" / "last.png", COLOURS["red"], 70)
    shop.update()
    assert calls
