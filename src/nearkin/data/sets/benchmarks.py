"""The four benchmarks of deep metric learning, from their official folders: cub, cars, sop, inshop.

Training and test classes are disjoint; a split by images is refused, as no number measured on it
can stand beside the published ones. What the folder holds is checked against the manifest.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from nearkin.data.pictures import ENDINGS
from nearkin.data.request import Request, folder_with
from nearkin.data.sets.listings import Listing, assembled, in_halves
from nearkin.data.sets.manifests import differences
from nearkin.data.sets.matlab import variable_of
from nearkin.data.splits import Split, Splits
from nearkin.data.transforms import sides


@dataclass(frozen=True)
class Lists:
    """What the lists of a benchmark say: the files of each split, relative to the root.

    layout: which of the benchmark's layouts this is.
    boxes: width and height of the object's box in each file, where the lists have boxes.
    """

    root: Path
    layout: str
    splits: Mapping[str, Listing]
    boxes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def files(self) -> set[str]:
        """Every file that a list names."""
        return {file for listing in self.splits.values() for file in listing.files}


def retrieval(name: str, request: Request) -> Splits:
    """One of the four, checked, with its pictures."""
    lists = LISTS[name](request.root)
    wrong = differences(name, lists.layout, lists.splits)
    if wrong:
        raise ValueError(f"{name}: the lists in {lists.root} are not the official ones: {wrong}")
    missing, extra = missing_and_extra(lists)
    if missing and not request.skip_bad:
        raise ValueError(
            f"{name}: {len(missing):,} of {len(lists.files):,} pictures are missing in "
            f"{lists.root}, such as {missing[0]}"
        )
    if extra:
        warnings.warn(
            f"{name}: {len(extra):,} pictures in {lists.root} are in no list and not used, "
            f"such as {extra[0]}",
            stacklevel=2,
        )
    splits = assembled(name, lists.root, lists.splits, request)
    return replace(splits, variant=", ".join([splits.variant, frames(splits.query, lists.boxes)]))


def missing_and_extra(lists: Lists) -> tuple[list[str], list[str]]:
    """Listed files that are not there, and pictures beside the listed ones that no list names."""
    listed = lists.files
    there = set()
    for top in sorted({file.split("/")[0] for file in listed}):
        for folder, _, files in os.walk(lists.root / top, followlinks=True):
            inside = Path(folder).relative_to(lists.root).as_posix()
            there |= {f"{inside}/{file}" for file in files if not file.startswith(".")}
    pictures = {file for file in there if Path(file).suffix.lower() in ENDINGS}
    return sorted(listed - there), sorted(pictures - listed)


def frames(split: Split, boxes: Mapping[str, tuple[float, float]]) -> str:
    """Whether the pictures are full frames, crops to the object's box, or squashed to one shape."""
    heights, widths = sides(split.inputs)
    shape = np.log((widths / heights).numpy())
    if not boxes:
        return "frames as published" if np.ptp(shape) else "all of one shape"
    if np.ptp(shape) == 0:
        return "squashed to one shape, not the published frames"
    box = np.log([boxes[name][0] / boxes[name][1] for name in split.names])
    # a crop has the shape of its box, but for the rounding to whole pixels
    cropped = np.median(np.abs(shape - box)) < 0.02
    return "crops to the box, not the published frames" if cropped else "full frames"


def cub(root: Path) -> Lists:
    """CUB-200-2011: classes 1 to 100 train, 101 to 200 test; the official split is one by images.

    Source: Wah et al., The Caltech-UCSD Birds-200-2011 dataset, 2011, CNS-TR-2011-001.
    """
    refuse_split_by_images("cub", root, "CUB_200_2011")
    base, _ = folder_with(root, ["images.txt"], "cub", ["CUB_200_2011"])
    images = {number: f"images/{path}" for number, path in table(base / "images.txt", int, str)}
    labels = {number: kind for number, kind in table(base / "image_class_labels.txt", int, int)}
    names = {kind: name for kind, name in table(base / "classes.txt", int, str)}
    refuse_mismatch("image", base / "image_class_labels.txt", labels, "images.txt", images)
    kinds = set(labels.values())
    refuse_mismatch("class", base / "classes.txt", names, "image_class_labels.txt", kinds)
    pairs = [(path, labels[number]) for number, path in images.items()]
    boxes = {}
    marked = base / "bounding_boxes.txt"
    if marked.exists():
        kinds_of_box = (float, float, positive, positive)
        sizes = {number: size for number, _, _, *size in table(marked, int, *kinds_of_box)}
        refuse_mismatch("image", marked, sizes, "images.txt", images)
        boxes = {images[number]: (width, height) for number, (width, height) in sizes.items()}
    return Lists(base, "official", in_halves("cub", Listing.of(pairs, names)), boxes)


def cars(root: Path) -> Lists:
    """Cars196: classes 1 to 98 train, 99 to 196 test; the official split is one by images.

    In torchvision's layout (the devkit with cars_train/ and cars_test/), in that of the field
    (cars_annos.mat with car_ims/), or in images/ with a folder for each class.

    Source: Krause et al., 3D object representations for fine-grained categorization, 3dRR 2013.
    """
    below = ["stanford_cars", "cars196", "CARS"]
    refuse_split_by_images("cars", root, *below)
    markers = ["devkit/cars_train_annos.mat", "cars_annos.mat", "images"]
    base, marker = folder_with(root, markers, "cars", below)
    if marker == "images":
        kinds = sorted(path for path in (base / "images").iterdir() if path.is_dir())
        pairs = [
            (path.relative_to(base).as_posix(), kind.name)
            for kind in kinds
            for path in sorted(kind.iterdir())
            if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
        ]
        return Lists(base, "class folders", in_halves("cars", Listing.of(pairs)))
    if marker == "cars_annos.mat":
        layout, meta = "car_ims", base / marker
        entries = annotated(base / marker, "relative_im_path")
    else:
        layout, meta = "devkit", base / "devkit" / "cars_meta.mat"
        labels = "cars_test_annos_withlabels.mat"
        tests = next((f for f in (base / labels, base / "devkit" / labels) if f.exists()), None)
        if tests is None:
            raise ValueError(f"cars: no {labels} in {base}; see `nearkin data where cars`")
        entries = annotated(base / marker, "fname", "cars_train/")
        entries += annotated(tests, "fname", "cars_test/")
    pairs = [(file, kind) for file, kind, _ in entries]
    boxes = {file: box for file, _, box in entries}
    names = {number: str(name) for number, name in enumerate(variable_of(meta, "class_names"), 1)}
    refuse_mismatch("class", meta, names, "the annotations", {kind for _, kind in pairs})
    return Lists(base, layout, in_halves("cars", Listing.of(pairs, names)), boxes)


def sop(root: Path) -> Lists:
    """Stanford Online Products: 11,318 products train, 11,316 others test.

    Source: Oh Song et al., Deep metric learning via lifted structured feature embedding, 2016,
    arXiv:1511.06452.
    """
    base, _ = folder_with(root, ["Ebay_train.txt"], "sop", ["Stanford_Online_Products"])
    splits = {}
    for split, file in (("train", "Ebay_train.txt"), ("query", "Ebay_test.txt")):
        rows = table(base / file, int, int, int, str, skip=1)
        splits[split] = Listing.of((path, kind) for _, kind, _, path in rows)
    return Lists(base, "official", splits)


def inshop(root: Path) -> Lists:
    """In-Shop Clothes: 3,997 items train; of 3,985 others, queries are sought in a gallery.

    Source: Liu et al., DeepFashion, CVPR 2016.
    """
    below = ["In-shop", "In-shop Clothes Retrieval Benchmark", "inshop"]
    markers = ["Eval/list_eval_partition.txt", "list_eval_partition.txt"]
    base, marker = folder_with(root, markers, "inshop", below)
    rows = table(base / marker, str, str, str, skip=2)
    statuses = {status for _, _, status in rows}
    if statuses != {"train", "query", "gallery"}:
        raise ValueError(
            f"inshop: {base / marker} wanted train, query and gallery, got {sorted(statuses)}"
        )
    splits = {
        split: Listing.of((path, item) for path, item, status in rows if status == split)
        for split in ("train", "query", "gallery")
    }
    pictures = base / "Img" if (base / "Img" / "img").is_dir() else base
    return Lists(pictures, "official", splits)


LISTS: dict[str, Callable[[Path], Lists]] = {
    "cub": cub,
    "cars": cars,
    "sop": sop,
    "inshop": inshop,
}

load_cub = partial(retrieval, "cub")
load_cars = partial(retrieval, "cars")
load_sop = partial(retrieval, "sop")
load_inshop = partial(retrieval, "inshop")


def refuse_split_by_images(name: str, root: Path, *below: str) -> None:
    """An error for folders train/ and test/ that hold the same classes."""
    places = (root, *(root / each for each in below))
    for base in (*places, *(place / "images" for place in places)):
        train, test = (
            {path.name for path in (base / part).iterdir() if path.is_dir()}
            if (base / part).is_dir()
            else set()
            for part in ("train", "test")
        )
        if train & test:
            raise ValueError(
                f"{name}: {base} is split by images, train/ and test/ share {len(train & test)} "
                f"classes, so no result would compare with those published under this name; "
                f"use the official folders, or folder:{base}"
            )


def refuse_mismatch(what: str, path: Path, here: Collection, other: str, there: Collection) -> None:
    """An error for two lists that do not speak of the same images or classes."""
    odd = set(here) ^ set(there)
    if odd:
        raise ValueError(
            f"{path} and {other} do not match: {what} {min(odd)} is in one of them only"
        )


def table(path: Path, *kinds: Callable[[str], Any], skip: int = 0) -> list[tuple[Any, ...]]:
    """The rows of a text file, after `skip` lines: of each kind one value, between blanks."""
    if not path.exists():
        raise ValueError(f"{path}: missing")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: wanted text in UTF-8 ({error})") from None
    rows = []
    for number, line in enumerate(lines[skip:], skip + 1):
        words = line.split(maxsplit=len(kinds) - 1)
        try:
            rows.append(tuple(kind(word) for kind, word in zip(kinds, words, strict=True)))
        except ValueError:
            wanted = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{path}, line {number}: wanted {wanted}, got {line!r}") from None
    if not rows:
        raise ValueError(f"{path}: wanted rows after {skip} lines, got none")
    return rows


def positive(value: str | float) -> float:
    """The side of a box."""
    if not 0 < float(value) < inf:
        raise ValueError(f"a box has sides above 0, not {value}")
    return float(value)


def annotated(
    path: Path, name: str, folder: str = ""
) -> list[tuple[str, int, tuple[float, float]]]:
    """Of each picture of Cars196 in a MATLAB file: its file, class, and its box's width and height.

    name: the field that has the file, which lies in `folder`.
    """
    entries = variable_of(path, "annotations")
    try:
        return [
            (
                f"{folder}{entry[name]}",
                int(entry["class"]),
                (
                    positive(float(entry["bbox_x2"]) - float(entry["bbox_x1"]) + 1),
                    positive(float(entry["bbox_y2"]) - float(entry["bbox_y1"]) + 1),
                ),
            )
            for entry in entries
        ]
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        why = f"no field of name {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path}: wanted {name}, class and bbox_* of each picture ({why})"
        ) from None
