"""What a run kept of its embeddings: read, thinned to what a page can draw, laid out in a plane.

The file is row.files.embeddings in the run's folder, an .npz of the query set: N items of
C classes, D numbers each.

    x (N, D) float32     y (N,) integers in 0..C-1     classes (C,) names     names (N,) or empty
    metric               what near means, a string
    pictures (n, H, W) or (n, H, W, 3) uint8           picture_index (n,), their items; both or none

Arrays are plain (no pickle), so that reading a file runs no code from it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import isqrt
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np

from nearkin.data.arrays import read_arrays
from nearkin.runs.row import Row

MOST = 2_000  # items of a set that a page draws
Made = TypeVar("Made")
SHEET = 2_000_000  # pixels of one picture that holds all those of a set


@dataclass(frozen=True)
class Items:
    """At most 2,000 items of a query set, as one run embeds them.

    x: (n, D) float32.  labels: (n,).  places: (n,), where they stand in the query set.
    classes: (C,) names.  names: (n,) names of the items, or none.
    pictures: (n, H, W) or (n, H, W, 3) uint8, or None where there are none to show.
    forbidden: whether the data set has pictures that its terms forbid to show.
    """

    x: np.ndarray
    labels: np.ndarray
    places: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]
    pictures: np.ndarray | None
    forbidden: bool

    def fingerprint(self) -> str:
        """The same for the same items, however a run embeds them."""
        content = hashlib.sha256(repr((self.classes, self.names)).encode())
        for array in (self.labels, self.places, self.pictures):
            content.update(b"" if array is None else array.tobytes())
        return content.hexdigest()

    def title(self, i: int) -> str:
        """What item i is called."""
        return self.names[i] if self.names else f"item {self.places[i]}"

    def kind(self, i: int) -> str:
        """The name of item i's class."""
        return self.classes[self.labels[i]]


def file_of(row: Row, store: Path, kind: str) -> Path | None:
    """The file of this kind that the row's run kept; None where it kept none, or not on this
    machine."""
    name = PurePath(getattr(row.files, kind) or "").name
    path = store / row.files.folder / name
    return path if name and path.is_file() else None


def read(row: Row, store: Path) -> Items | None:
    """What the row's run kept; None where it kept nothing, or not on this machine."""
    path = file_of(row, store, "embeddings")
    if path is None:
        return None
    return unless_harmed(path, partial(items_of, row))


def unless_harmed(path: Path, make: Callable[[dict[str, np.ndarray]], Made]) -> Made | None:
    """What is made of a file's arrays; None, with a warning that names it, where it is harmed."""
    try:
        return make(read_arrays(path))
    except KeyError as error:
        why = f"{path}: it has no array {error}"
    except (ValueError, IndexError, TypeError) as error:
        why = str(error) if str(path) in str(error) else f"{path}: {error}"
    tell_once(f"{why}; what it holds is not shown")
    return None


@cache
def tell_once(why: str) -> None:
    """Warn of what several figures of a page meet."""
    warnings.warn(why, stacklevel=3)


def items_of(row: Row, arrays: Mapping[str, np.ndarray]) -> Items:
    """The items of a file of embeddings.

    Raises:
        KeyError, ValueError, IndexError: an array is missing, or does not fit the others.
    """
    n, data = len(arrays["y"]), row.data.name
    if arrays["x"].ndim != 2 or len(arrays["x"]) != n or not np.isfinite(arrays["x"]).all():
        raise ValueError(f"wanted x as {n} rows of numbers, got {arrays['x'].shape}")
    if n and not 0 <= arrays["y"].min() <= arrays["y"].max() < len(arrays["classes"]):
        raise ValueError(f"wanted y in 0..{len(arrays['classes']) - 1}")
    shown = row.data.showable and "pictures" in arrays
    places = arrays["picture_index"] if shown else np.arange(n)
    step = max(1, -(-len(places) // MOST))
    places = places[::step]
    names = arrays["names"][places] if len(arrays["names"]) else ()
    return Items(
        x=arrays["x"][places].astype(np.float32),
        labels=arrays["y"][places].astype(int),
        places=places.astype(int),
        classes=tuple(map(str, arrays["classes"])),
        names=tuple(map(str, names)),
        pictures=arrays["pictures"][::step] if shown else None,
        forbidden=not (row.data.showable or data.startswith("features:")),
    )


def plane(x: np.ndarray) -> np.ndarray:
    """(n, D) -> (n, 2): as it is where D is 2, else the first two principal components.

    Each component's sign is such that its largest loading is positive, so a map keeps its sides.
    """
    if x.shape[1] == 2:
        return x
    centred = x.astype(float) - x.mean(0, dtype=float)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]  # (2, D), or (1, D)
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    flat = centred @ axes.T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def picture_uri(picture: np.ndarray, side: int) -> str:
    """A picture (H, W) or (H, W, 3) as data: for a page, at most `side` pixels wide and high."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    return image_uri(image)


def image_uri(image) -> str:
    """A PIL image as data: PNG where it is grey (line drawings), else JPEG (photographs)."""
    buffer, grey = io.BytesIO(), image.mode == "L"
    image.save(
        buffer, "PNG" if grey else "JPEG", optimize=True, **({} if grey else {"quality": 80})
    )
    kind = "png" if grey else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def sheet(pictures: np.ndarray) -> tuple[str, int]:
    """All pictures in one image, as data, and how many stand in a row of it.

    Each is square, and at most 32 pixels wide where they are 2,000, 64 where they are few, so that
    all stay below 1 MB or so.
    """
    from PIL import Image

    across = max(1, int(np.ceil(np.sqrt(len(pictures)))))
    height, width = pictures.shape[1:3]
    side = min(64, max(32, isqrt(SHEET // len(pictures))))
    if height > side or height != width:
        small = [Image.fromarray(p).resize((side, side), Image.Resampling.BOX) for p in pictures]
        pictures = np.stack([np.asarray(p) for p in small])
        height = width = side
    down = -(-len(pictures) // across)
    canvas = np.zeros((down * across, *pictures.shape[1:]), np.uint8)
    canvas[: len(pictures)] = pictures
    grid = canvas.reshape(down, across, height, width, *pictures.shape[3:]).swapaxes(1, 2)
    whole = grid.reshape(down * height, across * width, *pictures.shape[3:])
    return image_uri(Image.fromarray(whole)), across
