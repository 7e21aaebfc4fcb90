"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nearkin.data.sets.benchmarks import retrieval
from nearkin.data.sets.digits import fashion_mnist, mnist, mnist_5k
from nearkin.data.sets.features import features
from nearkin.data.sets.folders import folder, omniglot
from nearkin.data.sources import Request, default_root
from nearkin.data.splits import Splits
from nearkin.names import look_up

DATASETS: dict[str, Callable[[Request], Splits]] = {
    "mnist-5k": mnist_5k,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "omniglot": omniglot,
    "cub": partial(retrieval, "cub"),
    "cars": partial(retrieval, "cars"),
    "sop": partial(retrieval, "sop"),
    "inshop": partial(retrieval, "inshop"),
    "folder": folder,
    "features": features,
}
"""Each reads from a folder; the last ones take their path after a colon."""

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
    return DATASETS[kind](Request(place, download, skip_bad, size))


def named(name: str, root: str | Path | None) -> tuple[str, Path]:
    """The key in DATASETS that a name means, and the folder or file to read from.

    A path after a colon is looked for where one stands, then below the root.
    """
    kind, _, path = name.partition(":")
    look_up(kind, DATASETS, "data set")
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
