"""features:FILE.npz: vectors that a backbone has made, with their classes."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from nearkin.data.sources import Request
from nearkin.data.splits import Split, Splits, chosen_classes, halves


def features(request: Request) -> Splits:
    """The vectors of an npz file, split as its array `split` says ("train", "query", "gallery").

    Without that array the first half of the sorted classes trains, and the rest tests.
    """
    path = request.root
    whole = read_features(path)
    name, variant = f"features:{path.stem}", f"features, {whole.tensor.shape[1]}-d"
    with np.load(path, allow_pickle=False) as file:
        part = file.get("split")
        variant = f"{file['variant']}, {variant}" if "variant" in file else variant
    if part is None:
        first, rest = halves(len(whole.classes), f"features:{path}")
        train, test = chosen_classes(whole, first), chosen_classes(whole, rest)
        return Splits(name, train, test, test, variant)
    if part.shape != whole.labels.shape or not {"train", "query"} <= set(part.tolist()):
        raise ValueError(
            f"features:{path}: `split` must say train or query of each of {len(whole)}"
        )
    found = {
        kind: renumbered(whole.select(torch.from_numpy(np.flatnonzero(part == kind))))
        for kind in ("train", "query", "gallery")
    }
    gallery = found["gallery"] if len(found["gallery"]) else found["query"]
    shared = bool(set(found["train"].classes) & set(found["query"].classes))
    return Splits(name, found["train"], found["query"], gallery, variant, shared)


def renumbered(split: Split) -> Split:
    """The split with the classes that it has, in their order, as 0..C-1."""
    present = split.labels.unique()
    return replace(
        split,
        labels=torch.searchsorted(present, split.labels),
        classes=tuple(split.classes[c] for c in present.tolist()),
    )


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
