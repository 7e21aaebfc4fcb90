"""The door of every measure: embeddings and labels of any kind, and who stands in the gallery.

Dimensions: N items, B queries, M gallery, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from numbers import Real
from operator import index
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nearkin.labels import numbered, plain_labels
from nearkin.tensors import as_tensor, is_integers, refuse_hollow

MATRIX = "must be a matrix of numbers, one row an item"
T = TypeVar("T")


def matrix(x: Any, name: str, device: torch.device | None = None) -> Tensor:
    """x (N, D) as a tensor of floats, from a tensor, NumPy, pandas or lists; integers as float32.

    Floats keep their type, and the memory of an array, memory-mapped too, is not copied.
    """
    wanted = f"{name} {MATRIX}"
    if isinstance(x, list | tuple) and any(isinstance(row, Tensor) for row in x):
        x = [row.detach().cpu() if isinstance(row, Tensor) else row for row in x]
    if not isinstance(x, Tensor | np.ndarray):
        try:
            x = np.asarray(x)
        except (TypeError, ValueError) as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{wanted}, got {type(x).__name__} ({why})") from None
    refuse_hollow(x, wanted)
    if isinstance(x, np.ndarray) and x.dtype.kind in "OSU":
        try:  # pandas' columns of several types
            x = x.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{wanted}, got {x.shape} of {x.dtype}") from None
    found = as_tensor(x, wanted, device)
    if found.ndim != 2 or not found.numel():
        raise ValueError(f"{wanted}, got {tuple(found.shape)} of {found.dtype}")
    return found if found.is_floating_point() else found.float()


def check_embeddings(x: Any, name: str = "embeddings", *, zero: bool = False) -> None:
    """Refuse what has no neighbours: not a matrix, NaN, infinity, doubles that float32 has not
    and, unless `zero`, zero rows."""
    for start, given in enumerate(matrix(x, name).split(8192)):
        rows = given.float()
        for bad, what in (
            (~given.isfinite().all(1), "NaN or infinity"),
            (~rows.isfinite().all(1), "numbers that are too large for float32"),
            (lost_in_float32(given), "numbers that are too small for float32: scale them"),
            ((rows == 0).all(1) & (not zero), "only zeros, which point nowhere"),
        ):
            if bad.any():
                row = 8192 * start + int(bad.nonzero()[0])
                raise ValueError(f"{name}: row {row} holds {what}")


def lost_in_float32(rows: Tensor) -> Tensor:
    """(N,) which rows (N, D) of doubles have no number that float32 has in full."""
    if rows.dtype != torch.double:
        return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    largest = rows.abs().amax(1)
    return (largest > 0) & (largest < torch.finfo(torch.float32).tiny)


def check_memory(memory: float) -> None:
    """There is memory to work in."""
    if not isinstance(memory, Real) or not 0 < memory < inf:
        raise ValueError(f"memory must be a number of bytes above 0, got {memory!r}")


def check_count(k: Any, most: int, of: str = "") -> int:
    """k as an integer, if it is a whole number in 1..most; `of` says what there are so many of."""
    try:
        found = None if isinstance(k, bool) else index(k)
    except TypeError:
        found = None
    if found is None:
        raise ValueError(f"k must be a whole number, got {k!r}")
    if not 1 <= found <= most:
        raise ValueError(f"k must be in 1..{most}{of}, got {found}")
    return found


def as_given(found: Tensor, given: Any) -> Any:
    """A result as an array of NumPy where the embeddings came as anything but a tensor."""
    return found if isinstance(given, Tensor) else found.cpu().numpy()


@dataclass(frozen=True)
class Sides:
    """Queries, and what they are searched in.

    query: (B, D); gallery: (M, D), None where each query is searched among all the others.
    labels, kinds: (B,) and (M,) int64, the classes of both.
    itself: (B,) the place of each query in the gallery, -1 where it does not stand there.
    classes: the names of the classes that the labels number; empty where they are integers.
    """

    query: Tensor
    gallery: Tensor | None
    labels: Tensor
    kinds: Tensor
    itself: Tensor | None
    classes: list[str]

    @property
    def size(self) -> int:
        """How many items every query can be compared to."""
        return len(self.kinds) - (self.itself is not None)

    def kin(self) -> Tensor:
        """(B,) how many items of its class each query has in the gallery, itself left out."""
        return kin_counts(self.labels, self.kinds, self.itself)


def kin_counts(labels: Tensor, kinds: Tensor, itself: Tensor | None) -> Tensor:
    """(B,) how many of the gallery's classes `kinds` (M,) equal each query's, itself left out.

    >>> kin_counts(torch.tensor([7, 8]), torch.tensor([7, 8, 7]), torch.tensor([-1, 1]))
    tensor([2, 0])
    """
    classes, counts = kinds.unique(return_counts=True)
    place = torch.searchsorted(classes, labels).clamp_max(len(classes) - 1)
    found = torch.where(classes[place] == labels, counts[place], 0)
    if itself is None:
        return found
    return found - ((itself >= 0) & (kinds[itself.clamp_min(0)] == labels)).long()


def sides_of(
    query: Any,
    query_labels: Any,
    gallery: Any = None,
    gallery_labels: Any = None,
    itself: Any = None,
) -> Sides:
    """Both sides of a search as tensors on the queries' device, their labels in one numbering.

    Where the gallery is the queries' own object, each query stands in its own row.
    """
    x = matrix(query, "query")
    if gallery is query and itself is None:
        itself = torch.arange(len(x))
    y = None if gallery is None else matrix(gallery, "gallery", x.device)
    given = [(query_labels, x, "query")]
    if y is not None:
        given.append((gallery_labels, y, "gallery"))
    (labels, *others), classes = class_numbers(given)
    kinds = others[0] if others else labels
    return Sides(x, y, labels, kinds, own_places(itself, x, y), classes)


def own_places(itself: Any, query: Tensor, gallery: Tensor | None) -> Tensor | None:
    """(B,) the place of each query in the gallery, as the caller says, -1 for none."""
    if gallery is None:
        if itself is not None:
            raise ValueError("itself wants a gallery: without one each query stands in its own row")
        return torch.arange(len(query), device=query.device)
    if itself is None:
        return None
    wanted = f"itself must be {len(query)} integers in -1..{len(gallery) - 1}, one a query"
    places = as_tensor(itself, wanted, query.device)
    if places.shape != (len(query),) or places.is_floating_point() or places.dtype == torch.bool:
        raise ValueError(f"{wanted}, got {tuple(places.shape)} of {places.dtype}")
    low, high = int(places.min()), int(places.max())
    if low < -1 or high >= len(gallery):
        raise ValueError(f"{wanted}, got {low}..{high}")
    return places.long() if high >= 0 else None


def class_numbers(sides: list[tuple[Any, Tensor, str]]) -> tuple[list[Tensor], list[str]]:
    """Labels as int64 tensors beside their embeddings, and the classes that they number.

    Integers are taken as they are, and need no names; text is numbered in its order.

    Args:
        sides: (labels, embeddings, what they are called in errors) of one or two sets.
    """
    if all(is_integers(labels) for labels, _, _ in sides):
        for labels, x, name in sides:
            if labels.shape != (len(x),):
                wanted = f"{name} labels must be {len(x)} integers or texts, one a row"
                raise ValueError(f"{wanted}, got {tuple(labels.shape)} of {labels.dtype}")
        return [labels.to(x.device, torch.int64) for labels, x, _ in sides], []
    found = []
    for labels, x, name in sides:
        if labels is None:
            raise ValueError(f"{name} needs labels")
        wanted = f"{name} labels must be {len(x)} integers or texts, one a row"
        plain = plain_labels(labels, wanted)
        if len(plain) != len(x):
            raise ValueError(f"{wanted}, got {plain.shape} of {plain.dtype}")
        found.append(plain)
    classes = []
    if any(plain.dtype.kind == "U" for plain in found):
        found, classes = numbered(found, [name for *_, name in sides])
    return [torch.from_numpy(p).to(x.device) for p, (_, x, _) in zip(found, sides, strict=True)], (
        classes
    )


def check_labels(x: Tensor, labels: Any, name: str) -> Tensor:
    """The classes (N,) of embeddings x (N, D), int64, or an error that says what came."""
    return class_numbers([(labels, x, name)])[0][0]
