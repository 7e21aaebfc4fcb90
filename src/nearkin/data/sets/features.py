"""features:FILE.npz: vectors that a backbone has made, with their classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin.data.arrays import names_in, read_arrays
from nearkin.data.request import Absent, Request
from nearkin.data.splits import Split, Splits, chosen_classes, halves
from nearkin.files import parse_json
from nearkin.labels import decoded, plain_labels
from nearkin.labels import numbered as numbered_labels

PARTS = ("train", "query", "gallery")


def features(request: Request) -> Splits:
    """The vectors of an npz file, split as its array `split` says ("train", "query", "gallery").

    Without that array the first half of the sorted classes trains, and the rest tests.
    """
    path = request.root
    if request.size:
        raise ValueError(f"features:{path}: vectors have no size in pixels, got {request.size}")
    train, query, gallery = parts_of(path).values()
    told, made_by = read_arrays(path, ("split", "variant")), origin_of(path)
    name, variant = f"features:{path.stem}", f"features, {query.tensor.shape[1]}-d"
    variant = f"{told['variant']}, {variant}" if "variant" in told else variant
    if "split" not in told:
        first, rest = halves(len(query.classes), f"features:{path}")
        train, test = chosen_classes(query, first), chosen_classes(query, rest)
        return Splits(name, train, test, test, variant, halved=True, made_by=made_by)
    if not len(train):
        raise ValueError(f"features:{path}: `split` says train of none of {len(told['split'])}")
    taught, asked = train.labels.unique(), torch.cat([query.labels, gallery.labels]).unique()
    known = torch.isin(asked, taught)
    shared, mixed = bool(known.all()), bool(known.any() and not known.all())
    if mixed:
        variant += f", {int(known.sum())} of {len(asked)} test classes are known"
    train, asked = numbered(train, taught), taught if shared else asked
    query, gallery = numbered(query, asked), numbered(gallery, asked)
    gallery = gallery if len(gallery) else query
    kinds: dict[str, Any] = {"shared_classes": shared, "mixed_classes": mixed}
    return Splits(name, train, query, gallery, variant, made_by=made_by, **kinds)


def origin_of(path: Path) -> dict[str, Any] | None:
    """What made the vectors of a file, as its array `made_by` tells (nearkin.models.origin)."""
    try:
        found = parse_json(str(read_arrays(path, ("made_by",)).get("made_by", "")), "made_by")
    except ValueError:
        return None
    known = isinstance(found, dict) and isinstance(found.get("identity"), str)
    return found if known else None


def parts_of(path: Path) -> dict[str, Split]:
    """What an npz file's array `split` says is train, query and gallery; all is query without it.

    Labels number the classes of the whole file.
    """
    whole = read_features(path)
    part = told_parts(path, len(whole))
    part = np.full(len(whole), "query") if part is None else part
    if "query" not in part:
        raise ValueError(f"features:{path}: `split` says query of none of {len(whole)}")
    return {kind: whole.select(torch.from_numpy(np.flatnonzero(part == kind))) for kind in PARTS}


def told_parts(path: Path, count: int) -> np.ndarray | None:
    """(N,) train, query or gallery of each item, as a file's array `split` says; None without."""
    told = read_arrays(path, ("split",))
    if "split" not in told:
        return None
    if told["split"].shape != (count,):
        raise ValueError(f"features:{path}: wanted `split` of {count}, got {told['split'].shape}")
    part = np.array(text_of(told["split"]))
    if odd := set(part.tolist()) - set(PARTS):
        raise ValueError(
            f"features:{path}: `split` must be train, query or gallery, got {min(map(str, odd))!r}"
        )
    return part


def told_metric(path: Path) -> str:
    """The metric that a file's array `metric` names, whatever it is; "" without."""
    return " ".join(text_of(read_arrays(path, ("metric",)).get("metric", np.array([], str))))


def numbered(split: Split, present: Tensor) -> Split:
    """The split with these of its classes alone, in their order, as 0..C-1."""
    return replace(
        split,
        labels=torch.searchsorted(present, split.labels),
        classes=tuple(split.classes[c] for c in present.tolist()),
    )


def read_features(path: Path) -> Split:
    """x (N, D) numbers and y (N,) integers or text, names (N,) optional, of an npz file."""
    if path.is_dir() or not path.exists():
        raise Absent(f"features:{path}: no such file; `nearkin embed` writes one")
    arrays = read_arrays(path, ("x", "y", "names"))
    if "x" not in arrays or "y" not in arrays:
        raise ValueError(f"features:{path}: wanted arrays x and y, got {names_in(path)}")
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise ValueError(
            f"features:{path}: wanted x (N, D) and y (N,), got {x.shape} and {y.shape}"
        )
    x = checked_vectors(path, x)
    wanted = f"features:{path}: y must be {len(x)} integers or texts, one a row"
    (labels,), classes = numbered_labels([plain_labels(y, wanted)], ["y"])
    return Split(
        torch.from_numpy(x),
        torch.from_numpy(labels),
        tuple(map(str, classes)),
        tuple(checked_names(path, arrays, len(x))),
    )


def checked_vectors(path: Path, x: np.ndarray) -> np.ndarray:
    """x (N, D) of a file as float32, found to be numbers that float32 holds."""
    if x.dtype.kind not in "fiub":
        raise ValueError(f"features:{path}: wanted numbers as x, got {x.dtype}")
    if x.ndim != 2:
        raise ValueError(f"features:{path}: wanted x as (N, D), got {x.shape}")
    if not x.size:
        raise ValueError(f"features:{path}: it holds no vectors, x is {x.shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite in it
        x = np.ascontiguousarray(x, np.float32)
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(1))[0])
        raise ValueError(
            f"features:{path}: row {row} of x is not finite in float32, as NaN and infinity are not"
        )
    return x


def checked_names(path: Path, arrays: Mapping[str, np.ndarray], count: int) -> list[str]:
    """The names of a file's items; none without an array of them."""
    names = text_of(arrays.get("names", np.array([], str)))
    if len(names) not in (0, count):
        raise ValueError(f"features:{path}: wanted {count} names, got {len(names)}")
    return names


def text_of(array: np.ndarray) -> list[str]:
    """An array's entries as text, of bytes in UTF-8."""
    return [str(decoded(e) if isinstance(e, bytes) else e) for e in array.flatten().tolist()]
