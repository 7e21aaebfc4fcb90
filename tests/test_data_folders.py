"""Claim: class folders and Omniglot become class-disjoint splits, or one line says why not."""

import os
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from nearkin.data import load
from nearkin.data.photographs import Photographs
from nearkin.data.sets.catalogue import with_labels
from nearkin.data.soundness import check


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path_factory.mktemp("cache")))


def draw(path, shade, size=(12, 10), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade).save(path)


def folders(root, classes, count=3, **options):
    """Class c's pictures are all of shade 10 c."""
    for c, name in enumerate(classes):
        for i in range(count):
            draw(root / name / f"{i}.png", 10 * c, **options)
    return root


def test_the_first_half_of_the_sorted_classes_trains(tmp_path):
    folders(tmp_path, ["a", "b", "c", "d", "e"])
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    splits = load(f"folder:{tmp_path}")
    assert splits.train.classes == ("a", "b", "c")
    assert splits.query.classes == ("d", "e")
    assert splits.train.names[:4] == ("a/0.png", "a/1.png", "a/2.png", "b/0.png")
    assert isinstance(splits.train.inputs, torch.Tensor)
    assert splits.train.inputs.shape == (9, 1, 10, 12)
    assert splits.train.inputs[:, 0, 0, 0].tolist() == [0, 0, 0, 10, 10, 10, 20, 20, 20]
    assert splits.query.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.variant == "all 12 x 10 px"


def test_train_and_test_folders(tmp_path):
    for part in ("train", "test"):
        folders(tmp_path / part, ["a", "b"])
    shared = load(f"folder:{tmp_path}")
    assert shared.shared_classes
    assert len(shared.train) == len(shared.query) == 6

    folders(tmp_path / "train", ["c", "d"])
    known = load(f"folder:{tmp_path}")  # a class may be missing from the test
    assert known.shared_classes
    assert (len(known.train.classes), known.query.classes) == (4, ("a", "b"))

    folders(tmp_path / "test", ["new"])
    mixed = load(f"folder:{tmp_path}")
    assert mixed.mixed_classes
    assert not mixed.shared_classes
    assert mixed.variant.endswith("2 of 3 test classes are known")


def test_what_is_beside_the_class_folders_is_said_not_to_be_used(tmp_path):
    folders(tmp_path, ["a", "b"])
    draw(tmp_path / "alone.png", 3)
    with pytest.warns(UserWarning, match=r"only class folders are used, not 1 beside, such as al"):
        load(f"folder:{tmp_path}")
    for part in ("train", "test", "val"):
        folders(tmp_path / "parts" / part, ["a", "b"])
    with pytest.warns(UserWarning, match=r"only train/ and test/ are used, .* such as val"):
        splits = load(f"folder:{tmp_path / 'parts'}")
    assert splits.variant == "all 12 x 10 px, val/ not used"
    assert splits.query.names[0] == "test/a/0.png"


@pytest.mark.parametrize("part", ["val", "valid", "Validation"])
def test_a_validation_folder_without_test_is_tested_on(tmp_path, part):
    folders(tmp_path / "Train", ["a", "b"])
    folders(tmp_path / part, ["c", "d", "e"])
    splits = load(f"folder:{tmp_path}")
    assert (splits.train.classes, splits.query.classes) == (("a", "b"), ("c", "d", "e"))
    assert splits.variant == f"all 12 x 10 px, tested on {part}/"
    folders(tmp_path / "TEST", ["f", "g"])
    with pytest.warns(UserWarning, match=rf"only Train/ and TEST/ are used, .* such as {part}"):
        splits = load(f"folder:{tmp_path}")
    assert splits.query.classes == ("f", "g")
    assert splits.variant == f"all 12 x 10 px, {part}/ not used"


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        (["train"], "train/"),
        (["test", "valid"], "test/ and valid/"),
        (["train", "val", "valid"], "train/ and val/ and valid/"),
        (["train", "other"], "train/"),
    ],
)
def test_parts_that_are_no_split_are_not_taken_for_classes(tmp_path, parts, got):
    for part in parts:
        folders(tmp_path / part, ["a", "b"])
    wanted = r"wanted class folders, or train/ beside test/, val/, or query/ with gallery/"
    with pytest.raises(ValueError, match=rf"{wanted} .* with class folders, got {got}; "):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        (("bounding_box_train", "bounding_box_test", "query"), "bounding_box_test/ and bounding_b"),
        (("cars_train", "cars_test"), "cars_test/ and cars_train/"),
        (("Train-images", "val-images"), "Train-images/ and val-images/"),
    ],
)
@pytest.mark.parametrize("depth", [0, 1])
def test_parts_of_another_layout_are_not_taken_for_classes(tmp_path, parts, got, depth):
    for part in parts:
        for i in range(3):
            draw(tmp_path / part / (f"{i}" * depth) / f"{i:04}_c1s1_00015{i}_01.jpg", 3 * i)
    with pytest.raises(ValueError, match=f"{got}.* are parts, not classes: wanted class folders"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("reading", ["folder", "nested"])
@pytest.mark.parametrize("parts", [("train", "test"), ("Training", "query", "gallery")])
def test_the_parent_of_a_folder_with_train_and_test_is_refused_by_its_name(
    tmp_path, reading, parts
):
    for part in parts:
        folders(tmp_path / "data" / part, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"its only folder data/ holds .*: give data/ itself"):
        load(f"{reading}:{tmp_path}")
    assert len(load(f"{reading}:{tmp_path}/data").train.classes) == 3


def test_classes_may_have_the_names_of_parts_in_theirs(tmp_path):
    folders(tmp_path, ["test_tube", "train_engine", "train_track", "query"])
    assert len(load(f"folder:{tmp_path}").train.classes) == 2


def test_a_class_may_be_called_train_but_pictures_are_no_part(tmp_path):
    folders(tmp_path, ["car", "plane", "train"])
    draw(tmp_path / "train" / "steam" / "0.png", 3)
    assert load(f"folder:{tmp_path}").query.classes == ("train",)
    folders(tmp_path, ["val"])
    with pytest.raises(ValueError, match=r"no class folders with pictures in .*val$"):
        load(f"folder:{tmp_path}")


def test_large_or_uneven_pictures_become_photographs(tmp_path):
    folders(tmp_path, ["a", "b"], size=(140, 110), mode="RGB")
    draw(tmp_path / "b" / "tall.jpg", "red", (100, 300), "RGB")
    splits = load(f"folder:{tmp_path}")
    assert isinstance(splits.query.inputs, Photographs)
    assert splits.query.inputs.heights.tolist() == [110, 110, 110, 300]
    assert splits.variant == "many shapes, short side 100 to 110 px"


def test_colour_stays_and_a_size_is_kept(tmp_path):
    folders(tmp_path, ["a", "b"], mode="RGB")
    draw(tmp_path / "a" / "0.png", "red", mode="RGB")
    inputs = load(f"folder:{tmp_path}", size=8).train.inputs
    assert isinstance(inputs, torch.Tensor)
    assert inputs.shape == (3, 3, 8, 8)
    assert inputs[0, :, 0, 0].tolist() == [255, 0, 0]


def test_hidden_files_and_folders_are_no_pictures(tmp_path):
    folders(tmp_path, ["a", "b"])
    for hidden in ("a/.thumbnails/0.png", "a/._0.png", "b/deeper/.x/0.png", ".trash/0.png"):
        draw(tmp_path / hidden, "red", mode="RGB")
    draw(tmp_path / "b" / "deeper" / "9.png", "red", mode="RGB")
    splits = load(f"folder:{tmp_path}")
    assert splits.train.names == ("a/0.png", "a/1.png", "a/2.png")
    assert splits.query.names == ("b/0.png", "b/1.png", "b/2.png", "b/deeper/9.png")


def test_bad_pictures_stop_or_are_left_out(tmp_path):
    folders(tmp_path, ["a", "b"])
    (tmp_path / "a" / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1\.png: empty"):
        load(f"folder:{tmp_path}")
    with pytest.warns(UserWarning, match=r"bad pictures left out: 1, such as a/1\.png"):
        splits = load(f"folder:{tmp_path}", skip_bad=True)
    assert splits.train.names == ("a/0.png", "a/2.png")
    assert splits.train.labels.tolist() == [0, 0]
    assert len(splits.query) == 3
    assert splits.variant.endswith("bad pictures left out: 1")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "no class folders with pictures"),
        (["a"], "two classes or more, got 1"),
    ],
)
def test_too_little(tmp_path, made, said):
    folders(tmp_path, made)
    with pytest.raises(ValueError, match=said):
        load(f"folder:{tmp_path}")


def test_an_empty_class_folder_and_no_folder(tmp_path):
    folders(tmp_path, ["a", "b"])
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match=r"no pictures in .*c$"):
        load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="no such folder"):
        load(f"folder:{tmp_path / 'absent'}")


@pytest.mark.parametrize("below", ["", "omniglot-py"])
def test_omniglot_keeps_its_alphabets_apart(tmp_path, below):
    rng = np.random.default_rng(0)
    for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Tengwar")):
        for character in ("character01", "character02"):
            for i in range(3):
                path = tmp_path / below / part / alphabet / character / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.random((105, 105)) < 0.9).save(path)
    splits = load("omniglot", tmp_path)
    assert splits.train.classes == ("Greek/character01", "Greek/character02")
    assert splits.query.classes == ("Tengwar/character01", "Tengwar/character02")
    assert isinstance(splits.train.inputs, torch.Tensor)
    assert splits.train.inputs.shape == (6, 1, 105, 105)
    assert 0.05 < (splits.train.inputs == 255).float().mean() < 0.15
    assert "6 items of 2 classes instead of 19,280 of 964" in str(check("omniglot", tmp_path))
    assert load("omniglot", tmp_path, size=28).query.inputs.shape == (6, 1, 28, 28)  # type: ignore[union-attr]


def test_a_root_without_omniglot(tmp_path):
    with pytest.raises(
        ValueError, match=r"omniglot: no images_background in .*data where omniglot"
    ):
        load("omniglot", tmp_path)
    (tmp_path / "images_background").mkdir()
    with pytest.raises(ValueError, match=r"no ALPHABET/characterNN/\*\.png in .*background"):
        load("omniglot", tmp_path)
    draw(tmp_path / "images_background" / "Greek" / "character01" / "1.png", 0)
    with pytest.raises(ValueError, match="no images_evaluation"):
        load("omniglot", tmp_path)


def groups(root):
    """Two groups of four kinds each: birds/birds0, ..., fish/fish3."""
    for group in ("birds", "fish"):
        folders(root / group, [f"{group}{i}" for i in range(4)])
    return root


def test_folders_in_folders_are_an_error_that_shows_the_readings(tmp_path):
    groups(tmp_path)
    with pytest.raises(ValueError, match=r"pictures of birds/ lie in folders below it") as error:
        load(f"folder:{tmp_path}")
    assert f"top:{tmp_path} takes birds for a class (2 classes in" in str(error.value)
    assert f"nested:{tmp_path} each folder inside (8 classes)" in str(error.value)
    for reading, names in (
        ("top", ("birds",)),
        ("parent", ("birds0", "birds1", "birds2", "birds3")),
        ("nested", tuple(f"birds/birds{i}" for i in range(4))),
    ):
        splits = load(f"{reading}:{tmp_path}")
        assert splits.train.classes == names
        assert splits.variant == f"all 12 x 10 px, classes by {reading} folders"
        assert with_labels(str(tmp_path), reading) == f"{reading}:{tmp_path}"
    parts = tmp_path / "parts"
    groups(parts / "train")
    groups(parts / "test")
    with pytest.raises(ValueError, match=r"train/birds/ lie in folders"):
        load(f"folder:{parts}")
    shared = load(f"nested:{parts}")
    assert shared.shared_classes
    assert shared.query.classes[0] == "birds/birds0"


def test_one_folder_more_on_the_way_leaves_no_doubt(tmp_path):
    folders(tmp_path, ["a/images", "b/images"])
    draw(tmp_path / "b" / "front.png", 3)
    assert load(f"folder:{tmp_path}").train.classes == ("a",)


@pytest.mark.parametrize(
    "parts", [("training", "testing"), ("Train", "dev"), ("TRAINING", "Query", "Gallery")]
)
def test_parts_by_other_names(tmp_path, parts):
    for part in parts:
        folders(tmp_path / part, ["a", "b", "c"])
    splits = load(f"folder:{tmp_path}")
    assert len(splits.train.classes) == len(splits.query.classes) == 3
    assert (splits.gallery is splits.query) == (len(parts) == 2)


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path):
    root = folders(tmp_path / "d", ["a", "b"], count=2)
    for name in ("a", "b"):
        folders(tmp_path / "more", [name], count=5, size=(12, 10))
        (root / name / "more").symlink_to(tmp_path / "more" / name)
        (root / name / "again").symlink_to(root)
    splits = load(f"folder:{root}")
    assert len(splits.train) == len(splits.query) == 7
    assert any("links in a circle" in line for line in splits.unused)


def test_class_names_are_one_in_every_form_of_unicode(tmp_path):
    for name in ("café", "naïve"):
        folders(tmp_path / "train", [unicodedata.normalize("NFC", name)])
        folders(tmp_path / "test", [unicodedata.normalize("NFD", name)])
    splits = load(f"folder:{tmp_path}")
    assert splits.shared_classes
    assert splits.query.classes == ("café", "naïve")
    odd = os.fsdecode(b"\xff\xfe")
    folders(tmp_path / "odd", [odd, "plain"])
    names = load(f"folder:{tmp_path / 'odd'}")
    assert {*names.train.classes, *names.query.classes} == {"plain", r"\xff\xfe"}
    assert str(names.query.names).isprintable()


def test_what_systems_leave_is_neither_class_nor_picture(tmp_path):
    folders(tmp_path, ["a", "b"])
    for left in ("__MACOSX/a/._0.png", "@eaDir/a/0.png", "a/@eaDir/0.png/thumb.jpg", ".x/0.png"):
        draw(tmp_path / left, 3, mode="RGB")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "desktop.ini").write_bytes(b"x")
    splits = load(f"folder:{tmp_path}")
    assert len(splits.train) == len(splits.query) == 3
    assert any("hidden" in line for line in splits.unused)


def test_a_check_says_what_the_test_part_asks(tmp_path):
    folders(tmp_path / "one", ["a", "b"])
    assert "the first half of the class names does" in str(check(f"folder:{tmp_path / 'one'}"))
    for part in ("train", "test"):
        folders(tmp_path / "shared" / part, ["a", "b"])
    assert "new items of the classes that train" in str(check(f"folder:{tmp_path / 'shared'}"))
    for part, kind in (("train", "a"), ("test", "b")):
        folders(tmp_path / "apart" / part, [kind, f"{kind}2"])
    said = str(check(f"folder:{tmp_path / 'apart'}"))
    assert "tested on classes that do not train\n" in said


def test_formats_that_are_not_read_are_told(tmp_path, monkeypatch):
    folders(tmp_path, ["a", "b"])
    for name in ("a/IMG_1.CR2", "b/film.MOV", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"left out 1 \.cr2, 1 \.mov$"):
        splits = load(f"folder:{tmp_path}")
    assert splits.unused == ("1 .cr2", "1 .mov", "1 .txt")
    with pytest.warns(UserWarning, match="left out"):
        assert "not used: 1 .txt" in str(check(f"folder:{tmp_path}"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (tmp_path / "a" / "IMG_2.HEIC").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"1 \.heic, .*pip install nearkin\[heic\]"):
        load(f"folder:{tmp_path}")


def test_a_class_without_a_readable_picture_is_told_and_not_counted(tmp_path):
    folders(tmp_path, list("abcdef"))
    for name in ("b", "f"):
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=".") as told:
        splits = load(f"folder:{tmp_path}", skip_bad=True)
    assert splits.train.classes == ("a", "c")
    assert splits.query.classes == ("d", "e")
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    lost = [str(w.message) for w in told if "classes are left out" in str(w.message)]
    assert ["1 of 3 classes" in text for text in lost] == [True, True]
    assert "such as b" in lost[0]


def test_a_persons_own_pictures_may_be_shown_unless_they_are_private(tmp_path):
    folders(tmp_path, ["CUB_200_2011", "cars_train"])
    assert load(f"folder:{tmp_path}").showable
    assert not load(f"folder:{tmp_path}", private=True).showable
    (tmp_path / "image_class_labels.txt").write_text("1 1")  # the lists of CUB lie there
    with pytest.warns(UserWarning, match="not 1 beside"):
        assert not load(f"folder:{tmp_path}").showable


@pytest.mark.parametrize("name", ["{}", "{}/", "folder:{}"])
def test_a_path_alone_is_a_data_set(tmp_path, monkeypatch, name):
    folders(tmp_path / "photos", ["a", "b"])
    assert len(load(name.format(tmp_path / "photos")).train) == 3
    monkeypatch.chdir(tmp_path)
    assert len(load(name.format("photos")).train) == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load(name.format("~/photos")).train) == 3
    with pytest.raises(ValueError, match="did you mean"):
        load("phootos")
    with pytest.raises(ValueError, match="no such folder"):
        load("absent/photos")


@pytest.mark.parametrize(
    ("sizes", "sound", "told"),
    [
        ([1] * 4, False, "BAD test: no item has another of its class in the gallery"),
        ([3] * 2, True, "SEE training: one class"),
        ([3] * 3, True, "SEE test: one class, so that whatever is nearest is kin"),
        ([1, 3, 3, 3], True, "SEE training: 1 of 2 classes have one item, such as 'c0'"),
        ([3, 3, 1, 3], True, "SEE test: 1 of 4 queries have no kin"),
        ([3] * 4, True, ""),
    ],
)
def test_a_check_counts_what_training_and_test_want(tmp_path, sizes, sound, told):
    for c, size in enumerate(sizes):
        folders(tmp_path / "all", [f"c{c}"], size)
    found = check(f"folder:{tmp_path / 'all'}")
    assert found.sound == sound
    assert told in found.text
    assert ("SEE t" in found.text or "BAD" in found.text) == bool(told)


def test_class_names_that_look_alike_are_told(tmp_path):
    folders(tmp_path / "a", ["cat", "Cat ", "7", "007"], 3)
    told = "SEE class names that look alike: 2 pairs, such as '007' and '7'"
    assert told in check(f"folder:{tmp_path / 'a'}").text
