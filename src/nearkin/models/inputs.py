"""What a Model embeds, in any of the forms that people have it in, as batches of tensors.

Dimensions: B batch, C channels, H x W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from nearkin.data import Split, Splits
from nearkin.data.items import Items, first
from nearkin.models.preprocess import Preprocessing, mapped
from nearkin.tensors import as_tensor, refuse_hollow

WANTED = "paths, PIL images, arrays, tensors, a Dataset or a Split"


def batches(
    source: Any,
    size: int,
    preprocessing: Preprocessing | None,
    prepared: tuple[int, ...] | None = None,
) -> Iterator[Tensor]:
    """The items of `source` in order: pictures (B, C, H, W) uint8, or vectors (B, F) float32.

    A Split gives its inputs; a Dataset, a DataLoader or any other iterable gives items (or
    batches), and of tuples and dictionaries their first entry. One path, PIL image, array (H, W),
    (H, W, C) or (F,), or tensor (C, H, W) is one item; arrays with one dimension more, (N, H, W),
    (N, H, W, C), (N, F), and tensors (N, C, H, W) are N of them.

    Args:
        size: items in a batch.
        preprocessing: of pictures; None: there can be none.
        prepared: the shape of items that are taken as they are, as float32, such as (C, H, W) from
            a Dataset of one's own; None or (F,): vectors.
    """
    if hasattr(source, "iloc"):  # a table of pandas
        source = source.to_numpy()
    if isinstance(source, np.ndarray) and source.dtype == object:
        with suppress(TypeError, ValueError):  # paths and pictures stay as they are
            source = source.astype(np.float64)
    if prepared and len(prepared) > 1 and not isinstance(source, DataLoader):
        yield from as_prepared(source, size, prepared)
        return
    if isinstance(source, Splits):
        raise ValueError("wanted a Split, got all of Splits: embed its train, query or gallery")
    if isinstance(source, Split):
        yield from of_split(source, size, preprocessing)
    elif isinstance(source, str | Path | Image.Image) or (is_vector(source) and len(source)):
        yield stacked([source], preprocessing)
    elif isinstance(source, Tensor | np.ndarray) and is_numeric(source):
        yield from of_array(source, size, preprocessing)
    elif isinstance(source, DataLoader):
        for batch in source:
            yield from batches(first(batch), size, preprocessing, prepared)
    else:
        items = iterated(source)
        while chunk := list(islice(items, size)):
            yield stacked(chunk, preprocessing)


def as_prepared(source: Any, size: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Items that the backbone takes as they are: numbers of this shape."""
    if isinstance(source, Split):
        source = source.inputs
    if isinstance(source, Items):
        for indices in torch.arange(len(source)).split(size) if len(source) else ():
            yield source[indices].read()
        return
    if isinstance(source, Tensor | np.ndarray) and is_numeric(source):
        source = source[None] if source.ndim == len(shape) else source
    elif isinstance(source, str | Path | Image.Image | Splits):
        source = [source]
    items = source if isinstance(source, Tensor | np.ndarray) else iterated(source)
    items = iter(items)
    while chunk := list(islice(items, size)):
        for item in chunk:
            floats = isinstance(item, Tensor | np.ndarray) and "float" in str(item.dtype)
            if not floats or item.ndim != len(shape):
                kind = f" of {item.dtype}" if hasattr(item, "dtype") else ""
                raise NoPictures(
                    f"this Model takes floats {shape} as its training data held them, got "
                    f"{described(item)}{kind}"
                )
        yield torch.stack([torch.as_tensor(item).detach().cpu().float() for item in chunk])


def of_split(split: Split, size: int, preprocessing: Preprocessing | None) -> Iterator[Tensor]:
    """The inputs of a split; features stay as they are."""
    inputs: Any = split.inputs
    if isinstance(inputs, Items):
        items = (first(inputs.dataset[i]) for i in inputs.indices.tolist())
        yield from batches(items, size, preprocessing)
        return
    for indices in torch.arange(len(split)).split(size) if len(split) else ():
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            yield inputs[indices].float()
        elif preprocessing is None:
            raise NoPictures(f"{REFUSED}, got a split of pictures")
        else:
            yield preprocessing.chosen(inputs, indices)


def of_array(
    source: Tensor | np.ndarray, size: int, preprocessing: Preprocessing | None
) -> Iterator[Tensor]:
    """One array or tensor: several items, or one of them."""
    refuse_hollow(source, f"wanted {WANTED}")
    if is_vectors(source, preprocessing):
        for start in range(0, len(source), size):
            yield as_vectors(source[start : start + size])
    elif source.ndim == 1 or is_one(source):
        yield stacked([source], preprocessing)
    elif source.ndim in (3, 4):
        for start in range(0, len(source), size):
            yield stacked(list(source[start : start + size]), preprocessing)
    else:
        raise ValueError(f"wanted {WANTED}, got {shape_of(source)}")


def is_vectors(source: Tensor | np.ndarray, preprocessing: Preprocessing | None) -> bool:
    """Whether a matrix is N vectors, not one grey picture: floats are, and all for a head alone."""
    floats = "float" in str(source.dtype)
    return source.ndim == 2 and (floats or preprocessing is None)


def is_one(source: Tensor | np.ndarray) -> bool:
    """Whether it is one picture: (H, W) or, of an array (H, W, C), of a tensor (C, H, W)."""
    channels = 0 if isinstance(source, Tensor) else 2
    return source.ndim == 2 or (source.ndim == 3 and source.shape[channels] in (1, 2, 3, 4))


class NoPictures(ValueError):
    """A Model that takes vectors was given pictures."""


REFUSED = "this Model takes vectors (N, F), as no backbone is known that makes them from pictures"


def stacked(items: Sequence[Any], preprocessing: Preprocessing | None) -> Tensor:
    """Single items as one batch; vectors and pictures do not mix."""
    vectors = [is_vector(item) for item in items]
    if all(vectors):
        lengths = {len(item) for item in items}
        if len(lengths) > 1:
            raise ValueError(f"wanted vectors of one size, got sizes {sorted(lengths)[:5]}")
        return torch.cat([as_vectors([item]) for item in items])
    if any(vectors):
        raise ValueError("wanted vectors or pictures, got both")
    if preprocessing is None:
        raise NoPictures(f"{REFUSED}, got {described(items[0])}")
    for item in items:
        if not isinstance(item, str | Path | Image.Image | Tensor | np.ndarray | list | tuple):
            raise ValueError(f"wanted {WANTED}, got {described(item)}")
    return torch.stack(mapped(preprocessing.prepare, items))


def iterated(source: Any) -> Iterator[Any]:
    """The items of a Dataset or of anything else that has items."""
    if isinstance(source, bytes | bytearray):
        raise ValueError(f"wanted {WANTED}, got bytes: open them as a PIL image")
    if isinstance(source, Iterable | IterableDataset):
        return map(item_of, source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return (item_of(source[i]) for i in range(len(source)))
    raise ValueError(f"wanted {WANTED}, got {described(source)}")


def item_of(entry: Any) -> Any:
    """The input of a data set's entry: (input, label, ...) or {name: input, ...} have it first."""
    single = isinstance(entry, str | Path | Image.Image | Tensor | np.ndarray)
    return entry if single or is_vector(entry) else first(entry)


def is_numeric(source: Tensor | np.ndarray) -> bool:
    """Whether it holds numbers, and not objects or text."""
    return isinstance(source, Tensor) or source.dtype.kind in "biuf"


def is_vector(item: Any) -> bool:
    """Whether an item is numbers in one dimension."""
    if isinstance(item, Tensor | np.ndarray):
        return item.ndim == 1 and is_numeric(item)
    return isinstance(item, list | tuple) and all(isinstance(value, Number) for value in item)


def as_vectors(rows: Any) -> Tensor:
    """Numbers (B, F) as float32 on the CPU; what is not finite in it is refused."""
    if not isinstance(rows, Tensor):
        rows = torch.stack(list(rows)) if isinstance(rows[0], Tensor) else np.asarray(rows)
    rows = as_tensor(rows, "a vector must be numbers").detach()
    rows = rows.to("cpu", torch.float32).contiguous()  # products of it have the same bits
    if not rows.isfinite().all():
        raise ValueError("a vector is not finite in float32")
    return rows


def shape_of(source: Tensor | np.ndarray) -> str:
    kind = "a tensor" if isinstance(source, Tensor) else "an array"
    return f"{kind} {tuple(source.shape)}"


def described(item: Any) -> str:
    """An item in a few words, for messages."""
    if isinstance(item, str | Path):
        return f"the path {item}"
    if isinstance(item, Tensor | np.ndarray):
        return shape_of(item)
    return type(item).__name__
