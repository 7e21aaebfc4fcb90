"""The four benchmarks of deep metric learning, from their official folders: cub, cars, sop, inshop.

Training and test classes are disjoint; a split by images is refused, as no number measured on it
can stand beside the published ones. What the folder holds is checked against the manifest.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nearkin.data.listings import Listing, assembled
from nearkin.data.manifests import differences
from nearkin.data.pictures import ENDINGS
from nearkin.data.sources import Request, folder_with
from nearkin.data.splits import Split, Splits, halves
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
        for folder, _, files in os.walk(lists.root / top):
            inside = Path(folder).relative_to(lists.root).as_posix()
            there |= {f"{inside}/{file}" for file in files}
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
    images = {number: path for number, path in table(base / "images.txt", 2)}
    labels = {number: int(kind) for number, kind in table(base / "image_class_labels.txt", 2)}
    names = {int(number): name for number, name in table(base / "classes.txt", 2)}
    if images.keys() != labels.keys():
        raise ValueError(f"cub: images.txt and image_class_labels.txt in {base} do not match")
    pairs = [(f"images/{path}", labels[number]) for number, path in images.items()]
    boxes = {}
    if (base / "bounding_boxes.txt").exists():
        for number, _, _, width, height in table(base / "bounding_boxes.txt", 5):
            boxes[f"images/{images[number]}"] = (float(width), float(height))
    return Lists(base, "official", by_halves("cub", pairs, names), boxes)


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
            if path.suffix.lower() in ENDINGS
        ]
        return Lists(base, "class folders", by_halves("cars", pairs))
    if marker == "cars_annos.mat":
        file = base / marker
        entries, layout = matlab(file, "annotations"), "car_ims"
        named = [(str(entry["relative_im_path"]), entry) for entry in entries]
        names = matlab(file, "class_names")
    else:
        layout = "devkit"
        labels = "cars_test_annos_withlabels.mat"
        tests = next((f for f in (base / labels, base / "devkit" / labels) if f.exists()), None)
        if tests is None:
            raise ValueError(f"cars: no {labels} in {base}; see `nearkin data where cars`")
        named = [
            (f"{folder}/{entry['fname']}", entry)
            for folder, file in (("cars_train", base / marker), ("cars_test", tests))
            for entry in matlab(file, "annotations")
        ]
        names = matlab(base / "devkit" / "cars_meta.mat", "class_names")
    pairs = [(file, int(entry["class"])) for file, entry in named]
    boxes = {
        file: (
            float(entry["bbox_x2"]) - float(entry["bbox_x1"]) + 1,
            float(entry["bbox_y2"]) - float(entry["bbox_y1"]) + 1,
        )
        for file, entry in named
    }
    numbered = {number: str(name) for number, name in enumerate(names, 1)}
    return Lists(base, layout, by_halves("cars", pairs, numbered), boxes)


def sop(root: Path) -> Lists:
    """Stanford Online Products: 11,318 products train, 11,316 others test.

    Source: Oh Song et al., Deep metric learning via lifted structured feature embedding, 2016,
    arXiv:1511.06452.
    """
    base, _ = folder_with(root, ["Ebay_train.txt"], "sop", ["Stanford_Online_Products"])
    splits = {}
    for split, file in (("train", "Ebay_train.txt"), ("query", "Ebay_test.txt")):
        rows = table(base / file, 4, skip=1)
        splits[split] = Listing.of((path, int(kind)) for _, kind, _, path in rows)
    return Lists(base, "official", splits)


def inshop(root: Path) -> Lists:
    """In-Shop Clothes: 3,997 items train; of 3,985 others, queries are sought in a gallery.

    Source: Liu et al., DeepFashion, CVPR 2016.
    """
    below = ["In-shop", "In-shop Clothes Retrieval Benchmark", "inshop"]
    markers = ["Eval/list_eval_partition.txt", "list_eval_partition.txt"]
    base, marker = folder_with(root, markers, "inshop", below)
    rows = table(base / marker, 3, skip=2)
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
RETRIEVAL: dict[str, Callable[[Request], Splits]] = {
    name: partial(retrieval, name) for name in LISTS
}


def by_halves(
    name: str, pairs: Iterable[tuple[str, Any]], names: Mapping[Any, str] | None = None
) -> dict[str, Listing]:
    """The first half of the classes to train on and the second to test on, as the field does."""
    whole = Listing.of(pairs, names)
    first, rest = halves(len(whole.classes), name)
    return {"train": whole.of_classes(first), "query": whole.of_classes(rest)}


def refuse_split_by_images(name: str, root: Path, *below: str) -> None:
    """An error for folders train/ and test/ that hold the same classes."""
    for base in (root, *(root / each for each in below)):
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


def table(path: Path, columns: int, skip: int = 0) -> list[tuple[str, ...]]:
    """The rows of a text file with so many columns between blanks, after `skip` lines."""
    if not path.exists():
        raise ValueError(f"{path}: missing")
    rows = []
    for number, line in enumerate(path.read_text().splitlines()[skip:], skip + 1):
        row = tuple(line.split(maxsplit=columns - 1))
        if len(row) != columns:
            raise ValueError(f"{path}, line {number}: wanted {columns} columns, got {line!r}")
        rows.append(row)
    return rows


def matlab(path: Path, variable: str) -> np.ndarray:
    """A variable of a MATLAB file."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.exists():
        raise ValueError(f"{path}: missing")
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True, variable_names=[variable])[variable])
    except (KeyError, ValueError, TypeError, OSError, EOFError, MatReadError) as error:
        raise ValueError(f"{path}: not a whole MATLAB file with {variable} ({error})") from None
