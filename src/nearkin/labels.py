"""Labels of any kind: which of them name the same class, and the numbers of classes.

1, 1.0 and True are one class, and so are 'a' and b'a', and 'é' written as one character or as two
(NFC and NFD). Labels are integers or text; None, NaN and fractions are refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from nearkin.tensors import refuse_hollow


def plain_labels(labels: Any, wanted: str) -> np.ndarray:
    """Labels (N,) as int64 or as text in NFC, from a tensor, NumPy, pandas or a list.

    Raises:
        ValueError: for what is no label, or labels of two kinds; `wanted` says what was wanted.

    >>> plain_labels(np.array(["a", b"b"], dtype=object), "labels must be two")
    array(['a', 'b'], dtype='<U1')
    """
    refuse_hollow(labels, wanted)
    labels = as_array(labels) if isinstance(labels, Tensor) else labels
    try:
        found = np.asarray(labels)
    except UnicodeDecodeError:  # text beside bytes
        found = np.array(labels, dtype=object)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{wanted}, got {type(labels).__name__} ({error})") from None
    if found.dtype.kind == "T" or (found.dtype.kind in "SU" and not hasattr(labels, "dtype")):
        found = np.array(labels, dtype=object)  # of a list NumPy makes text, of None and NaN too
    try:
        return classes_in(found, wanted)
    except UnicodeEncodeError as error:
        half = f"{error.object!r:.99}, which holds half a character (a lone surrogate)"
        raise ValueError(f"{wanted}, got {half}") from None


def classes_in(found: np.ndarray, wanted: str) -> np.ndarray:
    """Labels in an array of any type as int64 or as text in NFC."""
    if found.dtype == object and found.ndim == 1:
        found = of_objects(found, wanted)
    kind = found.dtype.kind
    if kind == "f" and found.ndim == 1:
        found = found.astype(np.float64)
        odd = found[(found != np.rint(found)) | ~np.isfinite(found) | (np.abs(found) >= 2**63)]
        if len(odd):
            raise ValueError(f"{wanted}, got {odd[0]!s} of {found.dtype}")
    elif kind not in "biuSU" or found.ndim != 1:
        raise ValueError(f"{wanted}, got {found.shape} of {found.dtype}")
    elif kind == "u" and found.itemsize == 8 and len(found) and found.max() >= 2**63:
        raise ValueError(f"{wanted}, got {found.max()} of {found.dtype}, which int64 cannot hold")
    return as_text(found) if kind in "SU" else found.astype(np.int64)


def of_objects(labels: np.ndarray, wanted: str) -> np.ndarray:
    """Labels that NumPy holds as Python's objects, as integers, floats or text."""
    kinds = {each: kind_of(each) for each in set(map(type, labels))}
    if "" in kinds.values():
        row = next(row for row, label in enumerate(labels) if not kinds[type(label)])
        label = labels[row]
        raise ValueError(f"{wanted}, got {label!r} of {type(label).__name__} in row {row}")
    held = sorted(set(kinds.values()), reverse=True)
    if len(held) > 1:
        lost = [row for row, label in enumerate(labels) if label != label]  # pandas' NaN
        missing = f", and none (nan) in row {lost[0]}" if lost else ""
        raise ValueError(f"{wanted} of one kind, got {' and '.join(held)}{missing}")
    if "text" in held:
        return np.array([decoded(label) for label in labels], dtype=str)
    return np.array(labels.tolist(), dtype=None if len(labels) else np.int64)


def for_sklearn(x: Any, wanted: str) -> Any:
    """What scikit-learn takes: a tensor as an array, and all else as it is.

    Raises:
        ValueError: for what it would read as something else, such as what is masked.
    """
    if isinstance(x, Tensor) or np.ma.is_masked(x):
        refuse_hollow(x, wanted)
    return as_array(x) if isinstance(x, Tensor) else x


def classes_for_sklearn(y: Any, wanted: str) -> Any:
    """Classes for scikit-learn, which would make text of None and NaN in a list."""
    return plain_labels(y, wanted) if isinstance(y, list | tuple) else for_sklearn(y, wanted)


def as_array(x: Tensor) -> np.ndarray:
    """A tensor as NumPy has it: halves as float32, doubles as they are."""
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() and x.itemsize < 4 else x).numpy()


def kind_of(label: type) -> str:
    """What labels of this type are: text, numbers, or "" for what is no label."""
    if issubclass(label, str | bytes):
        return "text"
    numbers = int | float | np.integer | np.floating | np.bool_
    return "numbers" if issubclass(label, numbers) else ""


def decoded(label: str | bytes) -> str:
    """Text, of bytes in UTF-8. What is not UTF-8 stays as an escape, as in the name of a file, and
    so do NULs at the end, which NumPy would drop."""
    if isinstance(label, bytes):
        label = label.decode(errors="backslashreplace")
    elif not label.isascii():
        label = label.encode(errors="surrogateescape").decode(errors="backslashreplace")
    kept = label.rstrip("\0")
    return kept + r"\x00" * (len(label) - len(kept))


def as_text(labels: np.ndarray) -> np.ndarray:
    """Text or bytes (N,) as text in NFC."""
    different, place = np.unique(labels, return_inverse=True)
    names = [unicodedata.normalize("NFC", decoded(label)) for label in different.tolist()]
    return np.array(names, dtype=str)[place]


def numbered(sides: Sequence[np.ndarray], names: Sequence[str]) -> tuple[list[np.ndarray], list]:
    """Labels of several sets in one numbering 0, 1, ..., and the classes in that order.

    Args:
        sides: what `plain_labels` gives.
        names: what the sets are called, for errors.

    >>> numbered([np.array(["b", "a"]), np.array(["c", "b"])], ["query", "gallery"])
    ([array([1, 0]), array([2, 1])], ['a', 'b', 'c'])
    """
    kinds = ["text" if side.dtype.kind == "U" else "integers" for side in sides]
    if len(set(kinds)) > 1:
        shown = (
            f"{name} labels are {kind}, such as {side[:1].tolist()}"
            for name, kind, side in zip(names, kinds, sides, strict=True)
        )
        raise ValueError(f"labels must be of one kind: {' and '.join(shown)}")
    classes, place = np.unique(np.concatenate(sides), return_inverse=True)
    ends = np.cumsum([len(side) for side in sides])[:-1]
    return np.split(place.astype(np.int64), ends), classes.tolist()
