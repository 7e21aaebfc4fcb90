"""Augmented batches from the decoded-image cache, against the usual PIL + torchvision DataLoader.

The peer has as many worker processes as we have threads, kept alive between epochs, and the same
augmentation: RandomResizedCrop, horizontal flip, normalisation. CUB where NEARKIN_DATA has it,
otherwise drawn JPEGs of the same sizes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader

from benchmarks.timing import Row, seconds
from nearkin.data import default_root, load
from nearkin.data.cache import photographs
from nearkin.data.photographs import Photographs
from nearkin.data.transforms import batch

TITLE = "Images: augmented batches of 128"
BATCH = 128


class Files(Dataset):
    """Picture files, opened and transformed one by one, as torchvision's ImageFolder does."""

    def __init__(self, files: list[Path], transform: T.Compose):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return self.transform(default_loader(str(self.files[index])))


class Digits(Dataset):
    """Digits in memory, made a picture and transformed one by one, as torchvision's MNIST does."""

    def __init__(self, digits: torch.Tensor, transform: T.Compose):
        self.digits, self.transform = digits, transform

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.digits[index, 0].numpy()))


def rows(quick: bool) -> Iterable[Row]:
    """An epoch of photographs at 96 and 128 px, and one of digits."""
    count, repeats = (2 * BATCH, 1) if quick else (16 * BATCH, 5)
    with tempfile.TemporaryDirectory() as folder:
        name, files, pictures = some_photographs(count, Path(folder))
        for size in (96, 128):
            usual = [T.RandomResizedCrop(size), T.RandomHorizontalFlip()]
            peer = loader(Files(files, compose(*usual)))
            times = compared(pictures, peer, "crop-flip", size, repeats)
            yield row(f"{count:,} {name}, crop and flip at {size} px", times, 1 / 3)
    digits = load("mnist-5k").train.inputs
    assert isinstance(digits, torch.Tensor)
    peer = loader(Digits(digits, compose(T.RandomCrop(28, padding=2))))
    times = compared(digits, peer, "shift", 0, repeats)
    yield row(f"{len(digits):,} digits, shifted by up to 2 px", times, None)


def some_photographs(count: int, folder: Path) -> tuple[str, list[Path], Photographs]:
    """What they are, their files, and the same from the cache."""
    root = default_root() / "CUB_200_2011"
    found = sorted(root.glob("images/*/*.jpg"))
    if found:
        name = "CUB pictures"
        step = max(1, len(found) // count)
        files = found[::step][:count]
    else:
        name, root = "drawn JPEGs", folder
        files = [draw(folder / f"{i}.jpg", i) for i in range(count)]
    names = [path.relative_to(root).as_posix() for path in files]
    return name, files, photographs("benchmark", root, names)[0]


def draw(path: Path, seed: int) -> Path:
    """A JPEG of 192 x 128 with as much detail as a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((192, 128), Image.Resampling.BICUBIC).save(path, quality=75)
    return path


def compose(*augmentation: Any) -> T.Compose:
    """The usual transforms of one picture."""
    return T.Compose([*augmentation, T.ToTensor(), T.Normalize([0.5], [0.5])])


def loader(dataset: Dataset) -> DataLoader:
    """The usual DataLoader, with as many workers as we have threads."""
    workers = torch.get_num_threads()
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=True)


def compared(
    pictures: torch.Tensor | Photographs, peer: DataLoader, augment: str, size: int, repeats: int
) -> dict[str, float]:
    """Seconds of an epoch each way."""

    def ours() -> None:
        for indices in torch.randperm(len(pictures)).split(BATCH):
            batch(pictures, indices, augment=augment, size=size)

    def theirs() -> None:
        for _ in peer:
            pass

    return seconds({"ours": ours, "theirs": theirs}, repeats)


def row(what: str, times: dict[str, float], goal: float | None) -> Row:
    """The comparison, with the threads and workers that both had."""
    note = f"{torch.get_num_threads()} threads, {torch.get_num_threads()} workers"
    peer = "PIL + torchvision DataLoader"
    return Row(what, times["ours"], peer, times["theirs"], goal, note=note)
