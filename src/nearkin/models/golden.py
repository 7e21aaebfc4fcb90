"""Eight drawn pictures (or items of numbers) whose embeddings a Model is saved with.

A Model that is loaded is checked by them. They hold what goes wrong when a Model moves: EXIF
orientation, transparency, palettes, 16 bits, CMYK, a single column of pixels, JPEG, and grey of so
many pixels that decoding reduces it (`pictures.WHOLE`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nearkin.data.pictures import ORIENTATION, opened

LEAST = 0.9999  # cosine of an embedding to the one that was saved
ITEMS = 8


def drawing(height: int, width: int, turn: int) -> np.ndarray:
    """Waves, a disc and a corner of their own, (height, width, 3) uint8; no symmetry."""
    y, x = np.mgrid[:height, :width]
    y, x = y / max(height - 1, 1), x / max(width - 1, 1)
    waves = [np.sin(9 * (x * (turn + channel) + 2 * y) + channel) for channel in (1, 2, 3)]
    picture = np.stack(waves, 2) * 100 + 128
    picture[(y - 0.3) ** 2 + (x - 0.6) ** 2 < 0.04] = (230, 60 + 20 * turn, 30)
    picture[(y < 0.25) & (x < 0.2)] = (20, 40, 200)
    return picture.round().astype(np.uint8)


def colour(file: BinaryIO) -> None:
    Image.fromarray(drawing(120, 160, 0)).save(file, "PNG")


def turned(file: BinaryIO) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(drawing(110, 170, 1)).save(file, "JPEG", quality=92, exif=exif)


def large(file: BinaryIO) -> None:
    file.write(large_file())


@cache
def large_file() -> bytes:
    """8192 x 6144 = 50.3 million grey pixels, in blocks of 64 x 64 equal ones, for a short file."""
    file, small = BytesIO(), Image.fromarray(drawing(96, 128, 2)).convert("L")
    small.resize((8192, 6144), Image.Resampling.NEAREST).save(file, "JPEG", optimize=True)
    return file.getvalue()


def transparent(file: BinaryIO) -> None:
    alpha = np.linspace(0, 255, 100 * 140).reshape(100, 140, 1).round().astype(np.uint8)
    Image.fromarray(np.concatenate([drawing(100, 140, 3), alpha], 2)).save(file, "PNG")


def column(file: BinaryIO) -> None:
    Image.fromarray(drawing(64, 1, 4)).save(file, "PNG")


def palette(file: BinaryIO) -> None:
    Image.fromarray(drawing(80, 100, 5)).quantize(32).save(file, "PNG")


def deep(file: BinaryIO) -> None:
    levels = drawing(100, 80, 6)[..., 0].astype(np.uint16) * 257
    Image.fromarray(levels).save(file, "PNG")


def printed(file: BinaryIO) -> None:
    Image.fromarray(drawing(72, 300, 7)).convert("CMYK").save(file, "JPEG", quality=92)


DRAWINGS: dict[str, Callable[[BinaryIO], None]] = {
    "1-colour.png": colour,
    "2-exif-orientation-6.jpg": turned,
    "3-grey-50-megapixels.jpg": large,
    "4-rgba.png": transparent,
    "5-one-pixel-wide.png": column,
    "6-palette.png": palette,
    "7-sixteen-bit.png": deep,
    "8-cmyk.jpg": printed,
}


def images() -> Iterator[Image.Image]:
    """The golden pictures one after the other, each open until the next."""
    for name, draw in DRAWINGS.items():
        file = BytesIO()
        draw(file)
        with opened(file, Path(name)) as image:
            yield image


def numbers(shape: tuple[int, ...]) -> Tensor:
    """The golden inputs (8, ...) of a Model that takes numbers of this shape as they are."""
    return torch.rand(ITEMS, *shape, generator=torch.Generator().manual_seed(0))


def refuse_others(found: Tensor, saved: Tensor, folder: Path, names: Sequence[str] = ()) -> None:
    """Refuse a Model whose embeddings (8, D) are not those that it was saved with.

    By cosine, and by length within 1 %; a zero equals a zero alone.
    """
    if found.shape != saved.shape or not saved.isfinite().all():
        raise ValueError(
            f"{folder}: golden/ holds embeddings {tuple(saved.shape)} where this Model makes "
            f"{tuple(found.shape)}"
        )
    a, b = found.double(), saved.double()
    lengths = a.norm(dim=1), b.norm(dim=1)
    cosines = (a * b).sum(1) / (lengths[0] * lengths[1]).clamp_min(1e-300)
    cosines = torch.where((lengths[0] == 0) & (lengths[1] == 0), 1.0, cosines)
    worst = int(cosines.argmin())
    name = names[worst] if names else f"golden/item {worst}"
    if not cosines[worst] >= LEAST:
        raise ValueError(
            f"{folder}: this machine embeds {name} at a cosine of {cosines[worst]:.5f} to "
            f"the embedding it was saved with, wanted {LEAST} or more"
        )
    if not ((lengths[0] - lengths[1]).abs() <= 0.01 * lengths[1]).all():
        raise ValueError(f"{folder}: the golden embeddings have other lengths than when saved")
