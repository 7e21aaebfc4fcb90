"""features:FILE.npz: vectors that a backbone has made, with their classes."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from nearkin.data.sources import Request
from nearkin.data.splits import Split, Splits, chosen_classes, halves


def features(request: Request) -> Splits:
    """The vectors of an npz file; the first half of the sorted classes trains, the rest tests."""
    whole = read_features(request.root)
    first, rest = halves(len(whole.classes), f"features:{request.root}")
    train, test = chosen_classes(whole, first), chosen_classes(whole, rest)
    assert isinstance(whole.inputs, Tensor)
    variant = f"features, {whole.inputs.shape[1]}-d"
    return Splits(f"features:{request.root.stem}", train, test, test, variant)


def read_features(path: Path) -> Split:
    """x (N, D) floats and y (N,) integers or strings, names (N,) optional, of an npz file."""
    if not path.is_file():
        raise ValueError(f"features:{path}: no such file; `nearkin embed` writes one")
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("x", "y", "names") if key in file}
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"features:{path}: not a whole npz file ({error})") from None
    if "x" not in arrays or "y" not in arrays:
        raise ValueError(f"features:{path}: wanted arrays x and y, got {sorted(arrays)}")
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise ValueError(
            f"features:{path}: wanted x (N, D) and y (N,), got {x.shape} and {y.shape}"
        )
    names = arrays.get("names", ())
    if len(names) not in (0, len(x)):
        raise ValueError(f"features:{path}: wanted {len(x)} names, got {len(names)}")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(1))[0])
        raise ValueError(f"features:{path}: row {row} of x is not finite")
    classes, labels = np.unique(y, return_inverse=True)
    return Split(
        torch.from_numpy(x.astype(np.float32)),
        torch.from_numpy(labels.astype(np.int64)),
        tuple(str(name) for name in classes),
        tuple(str(name) for name in names),
    )
