"""Data sets by name, and what batches are drawn from them.

>>> load("mnist-5k").train.inputs.shape
torch.Size([4000, 1, 28, 28])
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nearkin.data.digits import fashion_mnist, mnist, mnist_5k
from nearkin.data.features import features
from nearkin.data.folders import folder, omniglot
from nearkin.data.retrieval import RETRIEVAL
from nearkin.data.samplers import SAMPLERS as SAMPLERS
from nearkin.data.samplers import Batches as Batches
from nearkin.data.samplers import structure as structure
from nearkin.data.sources import Request, default_root
from nearkin.data.splits import Split as Split
from nearkin.data.splits import Splits
from nearkin.data.splits import hold_out as hold_out
from nearkin.data.splits import subset as subset
from nearkin.data.transforms import AUGMENTS as AUGMENTS
from nearkin.names import look_up

DATASETS: dict[str, Callable[[Request], Splits]] = {
    "mnist-5k": mnist_5k,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "omniglot": omniglot,
    **RETRIEVAL,
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
    kind, _, path = name.partition(":")
    build = look_up(kind, DATASETS, "data set")
    if (kind in PATHS) != bool(path):
        wanted = f"{kind}:PATH" if kind in PATHS else kind
        raise ValueError(f"data set {name!r}: wanted {wanted}")
    place = Path(path or root or default_root()).expanduser()
    return build(Request(place, download, skip_bad, size))
