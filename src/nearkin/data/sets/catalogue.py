"""The data sets by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nearkin.data.fingerprint import state_of
from nearkin.data.request import Absent, Request, default_root
from nearkin.data.splits import Splits
from nearkin.files import expanded
from nearkin.names import look_up, unknown
from nearkin.registry import DATASETS

PATHS = ("folder", "nested", "parent", "top", "csv", "tars", "features")
"""Data sets of one's own, which take a path after a colon."""
ENDINGS = {".csv": "csv", ".tsv": "csv", ".tar": "tars", ".npz": "features"}
LABELS = ("nested", "parent", "top")
"""Which folders on the way to a picture name its class."""


def load(
    name: str,
    root: str | Path | None = None,
    *,
    download: bool = False,
    skip_bad: bool = False,
    size: int = 0,
    private: bool = False,
    decode: Callable[..., Any] | None = None,
) -> Splits:
    """The data set of this name, or one's own: a folder, a CSV file, or an .npz file of features.

    Args:
        name: one of DATASETS, with a path after a colon (folder:PATH, csv:FILE, tars:PATH,
            features:FILE, nested:PATH, ...), or a path alone.
        root: the folder that holds the data sets; by default NEARKIN_DATA, else ./data.
        download: fetch what is missing, where the data set can.
        skip_bad: leave out pictures that cannot be read, and count them, instead of stopping.
        size: side of the pictures that batches will be asked for; 0: small sets as they are.
        private: one's own pictures are not to be copied into results, nor shown there.
        decode: how pictures are decoded, where not all of them into the cache; see `Request`.
    """
    kind, place = named(name, root)
    read = look_up(kind, DATASETS, "data set")
    if size == 1 or size < 0:
        raise ValueError(f"size must be 2 pixels or more, or 0, got {size}")
    return read(Request(place, download, skip_bad, size, private, decode))


def named(name: str, root: str | Path | None) -> tuple[str, Path]:
    """The key in DATASETS that a name means, and the folder or file to read from.

    A path after a colon is looked for where one stands, then below the root. A path alone is a
    folder, or a file known by its ending.
    """
    kind, _, path = spelled(name).partition(":")
    if kind not in DATASETS:
        raise unknown(kind, DATASETS, "data set")
    if (kind in PATHS) != bool(path):
        wanted = f"{kind}:PATH" if kind in PATHS else kind
        raise ValueError(f"data set {name!r}: wanted {wanted}")
    place = expanded(root or default_root())
    here = expanded(path)
    return kind, here if path and (here.exists() or not (place / path).exists()) else place / path


def spelled(name: str) -> str:
    """The name with its kind before a path that stands alone.

    >>> spelled("photos/"), spelled("x.npz"), spelled("nested:photos"), spelled("cub")
    ('folder:photos/', 'features:x.npz', 'nested:photos', 'cub')
    """
    kind, colon, _ = name.partition(":")
    alone = kind not in DATASETS or (kind in PATHS and not colon)
    if not alone or not is_path(name):
        return name
    return f"{ENDINGS.get(Path(name).suffix.lower(), 'folder')}:{name}"


def is_features(name: str) -> bool:
    """Whether a data set is a file of features, as its name tells.

    >>> is_features("features:x"), is_features("x.npz"), is_features("cub")
    (True, True, False)
    """
    return spelled(name).startswith("features:")


def is_path(name: str) -> bool:
    """Whether a name is that of a folder or file, as it has an ending or slash or is there.

    >>> is_path("photos/"), is_path("images.csv"), is_path("cub")
    (True, True, False)
    """
    return (
        any(slash in name for slash in {"/", os.sep})
        or Path(name).suffix.lower() in ENDINGS
        or expanded(name).exists()
    )


def with_labels(name: str, labels: str) -> str:
    """The name of a folder's data set whose classes are named by these folders.

    >>> with_labels("photos/", "nested"), with_labels("folder:photos", "")
    ('nested:photos/', 'folder:photos')
    """
    if not labels:
        return name
    if labels not in LABELS:
        raise unknown(labels, LABELS, "labels")
    kind, colon, path = spelled(name).partition(":")
    if not colon or kind not in ("folder", *LABELS):
        raise ValueError(f"labels={labels} goes with a folder of pictures, got {name}")
    return f"{labels}:{path}"


def there(name: str, root: str | Path | None) -> None:
    """An error where a name is wrong, or the path that it holds is of nothing."""
    kind, place = named(name, root)
    if kind in PATHS and not place.exists():
        file = "file" if kind in ENDINGS.values() else "folder"
        raise Absent(f"{name}: no such {file}")


FILES = {
    "mnist-5k": (),  # inside an installed package
    "mnist": ("MNIST/raw",),
    "fashion-mnist": ("FashionMNIST/raw",),
    "folder": ("",),
    "nested": ("",),
    "parent": ("",),
    "top": ("",),
    "tars": ("",),
    "features": ("",),
}
"""Where the files of a data set lie below its root, of those that are all files there."""


def state(name: str, root: str | Path | None) -> str | None:
    """What changes whenever a file of the data set does; None where only loading it tells."""
    kind, place = named(name, root)
    return state_of(place / each for each in FILES[kind]) if kind in FILES else None
