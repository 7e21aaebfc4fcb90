"""The data sets by name."""

from __future__ import annotations

from pathlib import Path

from nearkin.data.fingerprint import state_of
from nearkin.data.sources import Request, default_root
from nearkin.data.splits import Splits
from nearkin.names import look_up, unknown
from nearkin.registry import DATASETS

PATHS = ("folder", "features")


def load(
    name: str,
    root: str | Path | None = None,
    *,
    download: bool = False,
    skip_bad: bool = False,
    size: int = 0,
) -> Splits:
    """The data set of this name, or folder:PATH, or features:FILE.npz.

    Args:
        name: one of DATASETS.
        root: the folder that holds the data sets; by default NEARKIN_DATA, else ./data.
        download: fetch what is missing, where the data set can.
        skip_bad: leave out pictures that cannot be read, and count them, instead of stopping.
        size: side of the pictures that batches will be asked for; 0: small sets as they are.
    """
    kind, place = named(name, root)
    read = look_up(kind, DATASETS, "data set")
    return read(Request(place, download, skip_bad, size))


def named(name: str, root: str | Path | None) -> tuple[str, Path]:
    """The key in DATASETS that a name means, and the folder or file to read from.

    A path after a colon is looked for where one stands, then below the root.
    """
    kind, _, path = name.partition(":")
    if kind not in DATASETS:
        raise unknown(kind, DATASETS, "data set")
    if (kind in PATHS) != bool(path):
        wanted = f"{kind}:PATH" if kind in PATHS else kind
        raise ValueError(f"data set {name!r}: wanted {wanted}")
    place = Path(root or default_root()).expanduser()
    here = Path(path).expanduser()
    return kind, here if path and (here.exists() or not (place / path).exists()) else place / path


def there(name: str, root: str | Path | None) -> None:
    """An error where a name is wrong, or the path that it holds is of nothing."""
    kind, place = named(name, root)
    if kind in PATHS and not place.exists():
        raise ValueError(f"{name}: no such {'folder' if kind == 'folder' else 'file'}")


FILES = {
    "mnist-5k": (),  # inside an installed package
    "mnist": ("MNIST/raw",),
    "fashion-mnist": ("FashionMNIST/raw",),
    "folder": ("",),
    "features": ("",),
}
"""Where the files of a data set lie below its root, of those that are all files there."""


def state(name: str, root: str | Path | None) -> str | None:
    """What changes whenever a file of the data set does; None where only loading it tells."""
    kind, place = named(name, root)
    return state_of(place / each for each in FILES[kind]) if kind in FILES else None
