"""Claim: the four benchmarks are read from their official folders; a wrong folder is refused."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from nearkin.data import check, load
from nearkin.data.sets import matlab, matlab_reader
from nearkin.data.sets.benchmarks import LISTS
from nearkin.data.sets.manifests import MANIFESTS, differences, part_of


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def in_process(monkeypatch):
    """MATLAB files are read in this process: one of its own for each takes half a second."""

    def run(call, **_):
        return SimpleNamespace(stdout=json.dumps(matlab_reader.answer(*call[-2:])))

    instead = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(matlab, "subprocess", instead)


def draw(path, size=(9, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(path)


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def make_cub(root):
    base = root / "CUB_200_2011"
    kinds = ["001.Albatross", "002.Auklet", "003.Bobolink", "004.Cardinal"]
    files = [f"{kind}/{kind[4:]}_{i}.jpg" for kind in kinds for i in range(3)]
    for i, file in enumerate(files):
        draw(base / "images" / file, (30 + i, 20))
    lines(base / "images.txt", *(f"{i} {file}" for i, file in enumerate(files, 1)))
    lines(base / "image_class_labels.txt", *(f"{i} {(i + 2) // 3}" for i in range(1, 13)))
    lines(base / "classes.txt", *(f"{i} {kind}" for i, kind in enumerate(kinds, 1)))
    lines(base / "bounding_boxes.txt", *(f"{i} 1.0 1.0 40.0 20.0" for i in range(1, 13)))
    lines(base / "train_test_split.txt", *(f"{i} {i % 2}" for i in range(1, 13)))
    return base


FIELDS = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class"]
CARS = ["AM General Hummer", "Acura RL", "BMW M3", "smart fortwo"]


def annotations(names, kinds, key="fname"):
    entries = np.zeros(len(names), [(field, object) for field in (*FIELDS, key)])
    for i, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        entries[i] = (1, 1, 30 + i, 20, kind, name)
    return entries


def make_cars(root, names=CARS, kinds=(4, 3, 2, 1) * 2):
    base = root / "stanford_cars"
    names = np.array(names, dtype=object)
    for part, where in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        files = [f"{i:05}.jpg" for i in range(1, 9)]
        for i, file in enumerate(files):
            draw(base / f"cars_{part}" / file, (20 + i, 20))
        (base / "devkit").mkdir(exist_ok=True)
        savemat(base / where, {"annotations": annotations(files, kinds)})
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    return base


def make_car_ims(root):
    base = root / "cars196"
    files = [f"car_ims/{i:06}.jpg" for i in range(1, 17)]
    for i, file in enumerate(files):
        draw(base / file, (20 + i, 20))
    kinds = sorted([1, 2, 3, 4] * 4)
    entries = annotations(files, kinds, "relative_im_path")
    names = np.array(CARS, dtype=object)
    savemat(base / "cars_annos.mat", {"annotations": entries, "class_names": names})
    return base


def make_car_folders(root):
    base = root / "cars196"
    for name in CARS:
        for i in range(4):
            draw(base / "images" / name / f"{i}.jpg", (20 + i, 20))
    return base


def make_sop(root):
    base = root / "Stanford_Online_Products"
    number = 0
    for file, kinds in (("Ebay_train.txt", (1, 2, 10)), ("Ebay_test.txt", (11, 12))):
        rows = []
        for kind in kinds:
            for i in range(2):
                number += 1
                path = f"sofa_final/{kind}_{i}.JPG"
                draw(base / path, (9 + number, 20))
                rows.append(f"{number} {kind} 1 {path}")
        lines(base / file, "image_id class_id super_class_id path", *rows)
    return base


def make_inshop(root, images="Img/img"):
    base = root / "In-shop"
    rows = []
    for item, statuses in (
        ("id_01", ["query", "gallery", "gallery"]),
        ("id_02", ["train", "train"]),
        ("id_03", ["query", "gallery"]),
    ):
        for i, status in enumerate(statuses):
            path = f"WOMEN/Tees/{item}/{i}_front.jpg"
            draw(base / images / path, (128, 128))
            rows.append(f"img/{path}   {item}   {status}")
    head = (str(len(rows)), "image_name item_id evaluation_status")
    lines(base / "Eval" / "list_eval_partition.txt", *head, *rows)
    return base


MADE = {
    "cub": make_cub,
    "cars": make_cars,
    "sop": make_sop,
    "inshop": make_inshop,
}


@pytest.fixture(params=MADE)
def made(request, tmp_path, monkeypatch, in_process):
    """A small set in the official layout, with its manifest: name and folder."""
    base = MADE[request.param](tmp_path)
    adopt(monkeypatch, request.param, tmp_path)
    return request.param, base


def adopt(monkeypatch, name, root):
    """Take what the lists say now for official."""
    lists = LISTS[name](root)
    manifest = {split: part_of(each, lists.layout) for split, each in lists.splits.items()}
    monkeypatch.setitem(MANIFESTS, name, manifest)


def picture(base, name):
    """The path of one listed picture."""
    lists = LISTS[name](base)
    return lists.root / min(lists.files)


def test_every_split_is_what_its_lists_say(made):
    name, base = made
    for root in (base, base.parent):
        splits = load(name, root)
        lists = LISTS[name](root).splits
        assert splits.train.names == lists["train"].files
        assert splits.query.names == lists["query"].files
        assert (splits.gallery is splits.query) == (name != "inshop")
        assert check(name, root).sound


def test_cub_trains_on_the_first_half_of_its_classes(tmp_path, monkeypatch):
    make_cub(tmp_path)
    adopt(monkeypatch, "cub", tmp_path)
    splits = load("cub", tmp_path)
    assert splits.train.classes == ("001.Albatross", "002.Auklet")
    assert splits.query.classes == ("003.Bobolink", "004.Cardinal")
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.query.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.query.names[0] == "images/003.Bobolink/Bobolink_0.jpg"


@pytest.mark.parametrize("make", [make_cars, make_car_ims, make_car_folders])
def test_cars_in_each_of_its_layouts(tmp_path, monkeypatch, make):
    make(tmp_path)
    adopt(monkeypatch, "cars", tmp_path)
    splits = load("cars", tmp_path)
    assert splits.train.classes == ("AM General Hummer", "Acura RL")
    assert splits.query.classes == ("BMW M3", "smart fortwo")
    assert splits.train.labels.bincount().tolist() == [4, 4]
    assert check("cars", tmp_path).sound
    if make is make_cars:
        assert splits.train.names[:2] == ("cars_train/00003.jpg", "cars_train/00004.jpg")
        assert splits.train.labels[:2].tolist() == [1, 0]


UNSORTED = ["AM Hummer", "Acura RL", "Acura Integra", "Ram C/V Van", "Porsche", "smart fortwo"]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("separator", [" ", "_"])
def test_class_folders_need_not_be_in_the_official_order(tmp_path, monkeypatch, separator):
    make_cars(tmp_path / "devkit", UNSORTED, [1, 2, 3, 4, 5, 6, 3, 4])
    adopt(monkeypatch, "cars", tmp_path / "devkit")
    images = tmp_path / "folders" / "images"
    for name in UNSORTED:
        for i in range(4 if name in ("Acura Integra", "Ram C/V Van") else 2):
            draw(images / name.replace("/", "-").replace(" ", separator) / f"{i}.jpg")
    (images / "Porsche" / "._0.jpg").write_bytes(b"what another system leaves")
    (images / "Porsche").rename(tmp_path / "elsewhere")
    (images / "Porsche").symlink_to(tmp_path / "elsewhere")
    splits = load("cars", tmp_path / "folders")
    assert splits.train.labels.bincount().tolist() == [2, 4, 2]
    assert check("cars", tmp_path / "folders").sound

    # as many images as before, and as many classes of each number of images
    (images / f"Acura{separator}RL").rename(images / "other")
    (images / f"Acura{separator}Integra").rename(images / f"Acura{separator}RL")
    (images / "other").rename(images / f"Acura{separator}Integra")
    with pytest.raises(ValueError, match="train has other classes, or other numbers of images"):
        load("cars", tmp_path / "folders")


OFFICIAL = {
    "cub": "CUB_200_2011/images.txt",
    "cars": "stanford_cars/devkit/cars_meta.mat",
    "sop": "Stanford_Online_Products/Ebay_train.txt",
    "inshop": "In-shop/Eval/list_eval_partition.txt",
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_real_lists_are_the_official_ones(tmp_path, name):
    root = Path(os.environ.get("NEARKIN_DATA") or tmp_path)
    if not (root / OFFICIAL[name]).exists():
        pytest.skip(f"no {OFFICIAL[name]} in NEARKIN_DATA")
    lists = LISTS[name](root)
    assert not differences(name, lists.layout, lists.splits)
    if name == "cars":
        again_in_the_other_layouts(tmp_path, lists.splits)


def again_in_the_other_layouts(root, splits):
    """The official classes and numbers of images, as class folders and in the manner of car_ims."""
    names = [name for split in splits.values() for name in split.classes]
    counts = np.concatenate([np.bincount(split.labels) for split in splits.values()])
    for name, count in zip(names, counts, strict=True):
        folder = root / "images" / name.replace("/", "-")
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / f"{i}.jpg").touch()
    kinds = np.repeat(np.arange(1, 197), counts)
    files = [f"car_ims/{i:06}.jpg" for i in range(1, 16_186)]
    entries = annotations(files, kinds, "relative_im_path")
    (root / "cars196").mkdir()
    content = {"annotations": entries, "class_names": np.array(names, dtype=object)}
    savemat(root / "cars196" / "cars_annos.mat", content)
    for place, layout in ((root / "cars196", "car_ims"), (root, "class folders")):
        if layout == "class folders":
            (root / "cars196" / "cars_annos.mat").unlink()
        lists = LISTS["cars"](place)
        assert lists.layout == layout
        assert not differences("cars", layout, lists.splits)


def test_sop_sorts_its_classes_by_number(tmp_path, monkeypatch):
    make_sop(tmp_path)
    adopt(monkeypatch, "sop", tmp_path)
    splits = load("sop", tmp_path)
    assert splits.train.classes == ("1", "2", "10")
    assert splits.query.classes == ("11", "12")


@pytest.mark.parametrize("images", ["Img/img", "img"])
def test_inshop_keeps_query_and_gallery_apart(tmp_path, monkeypatch, images):
    make_inshop(tmp_path, images)
    adopt(monkeypatch, "inshop", tmp_path)
    splits = load("inshop", tmp_path)
    assert splits.train.classes == ("id_02",)
    assert splits.query.classes == splits.gallery.classes == ("id_01", "id_03")
    assert splits.query.labels.tolist() == [0, 1]
    assert splits.gallery.labels.tolist() == [0, 0, 1]
    assert splits.query.names[0] == "img/WOMEN/Tees/id_01/0_front.jpg"


def test_the_variant_says_what_the_pictures_are(tmp_path, monkeypatch):
    base = make_cub(tmp_path)
    adopt(monkeypatch, "cub", tmp_path)
    assert load("cub", tmp_path).variant == "many shapes, short side 20 to 20 px, full frames"
    for path in (base / "images").rglob("*.jpg"):
        draw(path, (61, 30) if path.name.endswith("0.jpg") else (60, 30))
    assert "crops to the box, not the published frames" in load("cub", tmp_path).variant
    for path in (base / "images").rglob("*.jpg"):
        draw(path, (30, 30))
    assert "squashed to one shape, not the published frames" in load("cub", tmp_path).variant


def test_the_official_manifests_count_what_the_field_counts():
    counts = {
        (name, split): (part.images, part.classes)
        for name, manifest in MANIFESTS.items()
        for split, part in manifest.items()
    }
    assert counts == {
        ("cub", "train"): (5864, 100),
        ("cub", "query"): (5924, 100),
        ("cars", "train"): (8054, 98),
        ("cars", "query"): (8131, 98),
        ("sop", "train"): (59551, 11318),
        ("sop", "query"): (60502, 11316),
        ("inshop", "train"): (25882, 3997),
        ("inshop", "query"): (14218, 3985),
        ("inshop", "gallery"): (12612, 3985),
    }


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", MADE)
def test_a_small_copy_does_not_pass_for_the_official_set(tmp_path, name):
    MADE[name](tmp_path)
    with pytest.raises(ValueError, match="are not the official ones: train has") as caught:
        load(name, tmp_path)
    assert "\n" not in str(caught.value)
    verdict = check(name, tmp_path)
    assert not verdict.sound
    assert "BAD train has" in str(verdict)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first": "000.Dodo"}, "train has the classes 001.Albatross to 002.Auklet instead of"),
        ({"counts": "0"}, "train has other classes, or other numbers of images of them"),
        ({"files": {"official": "0"}}, "train has other file names"),
    ],
)
def test_each_part_of_a_manifest_counts(tmp_path, monkeypatch, change, said):
    make_cub(tmp_path)
    adopt(monkeypatch, "cub", tmp_path)
    manifest = MANIFESTS["cub"]
    altered = {**manifest, "train": replace(manifest["train"], **change)}
    monkeypatch.setitem(MANIFESTS, "cub", altered)
    with pytest.raises(ValueError, match=said):
        load("cub", tmp_path)


def test_missing_extra_and_bad_pictures(made):
    name, base = made
    path = picture(base, name)
    extra = path.with_name("zz_extra.jpg")
    draw(extra)
    with pytest.warns(UserWarning, match=rf"{name}: 1 pictures .* in no list .*zz_extra\.jpg"):
        load(name, base)
    extra.unlink()

    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load(name, base)
    verdict = check(name, base)
    assert not verdict.sound
    assert "BAD 1 pictures that cannot be read, such as" in verdict.text

    path.unlink()
    with pytest.raises(ValueError, match=rf"{name}: 1 of \d+ pictures are missing in .*such as"):
        load(name, base)
    assert "BAD 1 pictures missing" in check(name, base).text
    with pytest.warns(UserWarning, match=r"bad pictures left out: 1|classes are left out"):
        splits = load(name, base, skip_bad=True)
    assert "bad pictures left out: 1" in splits.variant


@pytest.mark.parametrize("name", MADE)
def test_a_wrong_root_is_said_in_one_line(tmp_path, name):
    with pytest.raises(
        ValueError, match=f"{name}: no .* see `nearkin data where {name}`"
    ) as caught:
        load(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert not check(name, tmp_path).sound


@pytest.mark.parametrize("below", ["", "images"])
@pytest.mark.parametrize("name", ["cub", "cars"])
def test_a_split_by_images_is_refused(tmp_path, name, below):
    for part in ("train", "test"):
        for kind in ("a", "b"):
            draw(tmp_path / below / part / kind / "1.jpg")
    with pytest.raises(ValueError, match="is split by images, train/ and test/ share 2 classes"):
        load(name, tmp_path)
    assert load(f"folder:{tmp_path / below}").shared_classes


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("images.txt", "1 a.jpg\n2\n", "images.txt, line 2: wanted int, str, got '2'"),
        ("images.txt", "", "images.txt: wanted rows after 0 lines, got none"),
        ("image_class_labels.txt", "1 1\n", "do not match: image 2 is in one of them only"),
        ("image_class_labels.txt", "1 x\n", "labels.txt, line 1: wanted int, int, got '1 x'"),
        ("image_class_labels.txt", None, "image_class_labels.txt: missing"),
        ("classes.txt", "1 a\n2 b\n3 c\n", "classes.txt and .* do not match: class 4 is in one"),
        ("bounding_boxes.txt", "1 1 1 4 2\n", "boxes.txt and images.txt do not match: image 2 is"),
        (
            "bounding_boxes.txt",
            "".join(f"{i} 1 1 4 2\n" for i in range(1, 14)),
            "bounding_boxes.txt and images.txt do not match: image 13 is in one of them only",
        ),
        ("bounding_boxes.txt", "1 1 1 x 2\n", "boxes.txt, line 1: wanted int, float, float"),
        ("bounding_boxes.txt", "1 1 1 4 0\n", "boxes.txt, line 1: wanted .*, positive, positive"),
        ("classes.txt", b"1 caf\xe9\n", "classes.txt: wanted text in UTF-8"),
    ],
)
def test_broken_lists(tmp_path, file, content, said):
    base = make_cub(tmp_path)
    (base / file).unlink()
    if content is not None:
        (base / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=said) as caught:
        load("cub", tmp_path)
    assert str(base / file) in str(caught.value)
    verdict = check("cub", tmp_path)
    assert not verdict.sound
    assert str(base / file) in verdict.text


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "Ebay_test.txt: wanted rows after 1 lines, got none"),
        (["1 x 1 a.jpg"], "Ebay_test.txt, line 2: wanted int, int, int, str, got '1 x 1 a.jpg'"),
    ],
)
def test_broken_lists_of_products(tmp_path, rows, said):
    base = make_sop(tmp_path)
    lines(base / "Ebay_test.txt", "image_id class_id super_class_id path", *rows)
    with pytest.raises(ValueError, match=said):
        load("sop", tmp_path)
    assert said in check("sop", tmp_path).text


def test_broken_matlab_files(tmp_path):
    base = make_cars(tmp_path)
    labels = base / "cars_test_annos_withlabels.mat"
    content = labels.read_bytes()
    for bad in (content[:200], b"", b"<html>404</html>" * 20):
        labels.write_bytes(bad)
        with pytest.raises(ValueError, match="not a whole MATLAB file"):
            load("cars", tmp_path)
    for entries, said in (
        (annotations(["1.jpg"], ["x"]), r"withlabels\.mat: wanted fname, class and .*'x'"),
        (np.array([("1.jpg",)], [("fname", object)]), "withlabels.mat: wanted .*no field of name"),
        (annotations(["1.jpg"], [7]), r"cars_meta\.mat and the annotations do not match: class 7"),
    ):
        savemat(labels, {"annotations": entries})
        with pytest.raises(ValueError, match=said):
            load("cars", tmp_path)
    labels.unlink()
    with pytest.raises(ValueError, match=r"no cars_test_annos_withlabels\.mat in"):
        load("cars", tmp_path)


def test_an_unknown_evaluation_status(tmp_path):
    base = make_inshop(tmp_path)
    path = base / "Eval" / "list_eval_partition.txt"
    path.write_text(path.read_text().replace("gallery", "galery"))
    with pytest.raises(ValueError, match="wanted train, query and gallery, got"):
        load("inshop", tmp_path)


@pytest.mark.usefixtures("in_process")
def test_lists_are_found_beside_other_folders(tmp_path, monkeypatch):
    make_cars(tmp_path)
    adopt(monkeypatch, "cars", tmp_path)
    (tmp_path / "images").mkdir()
    shutil.copytree(make_cub(tmp_path), tmp_path / "copy")
    assert len(load("cars", tmp_path).train) == 8
    assert Path(LISTS["cars"](tmp_path).root).name == "stanford_cars"
