"""A person's own data as Splits: arrays, lists of files or pictures, and torch's Datasets.

Dimensions: N items, C channels, H x W pixels, F features.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin.data.items import Items, first
from nearkin.data.photographs import Photographs, stored_side
from nearkin.data.splits import Split, Splits
from nearkin.labels import numbered, plain_labels
from nearkin.tensors import as_tensor, refuse_hollow

NAME = "own"  # of a data set without a name
WANTED = "wanted Splits, a Split, a Dataset or (inputs, labels)"
LABELS = ("targets", "labels", "_labels", "y")
"""Where a Dataset may hold all its labels, so that its items need not be read for them."""
NAMED = ("label", "labels", "target", "targets", "y")
"""What the label may be called in an item that is a dictionary."""


def own_splits(
    data: Any,
    labels: Any = None,
    test: Any = None,
    test_labels: Any = None,
    *,
    size: int = 0,
    name: str = NAME,
) -> Splits:
    """Own data as Splits; those that are Splits stay as they are.

    Without a test set the training items stand in its place: what is measured on them then tells
    how far training has come, and nothing of new items.

    Args:
        data: Splits, a Split, a Dataset of (input, label) or of {name: part, ...} with the input
            first and the label called label, target or y, or inputs beside `labels`, or both as a
            tuple. Inputs are a matrix (N, F); pictures as whole numbers, arrays (N, H, W[, C]),
            tensors (N, C, H, W), PIL images or paths; or floats of any other shape, which the
            backbone takes as they are.
        labels: (N,) integers, text or bytes.
        test: what is tested on, in the same forms.
        size: side in pixels that batches will have; see `Recipe`.
    """
    if test is None and test_labels is not None:
        raise ValueError("wanted test items beside their labels, got labels alone")
    if isinstance(data, Splits):
        return data
    inputs, given = parts_of(data, labels)
    train = split_of(inputs, given, size, "training")
    if test is None:
        return Splits(name, train, train, train, described(train), shared_classes=True)
    inputs, given = parts_of(test, test_labels)
    query = split_of(inputs, given, size, "test")
    refuse_other_vectors(train.inputs, query.inputs)
    known = set(query.classes) & set(train.classes)
    shared = known == set(query.classes)
    if shared:  # in the numbering of training
        place = torch.tensor([train.classes.index(each) for each in query.classes])
        query = Split(query.inputs, place[query.labels], train.classes, query.names)
    mixed = bool(known) and not shared
    return Splits(name, train, query, query, described(train), shared, mixed_classes=mixed)


def refuse_other_vectors(train: Any, test: Any) -> None:
    """Test items beside vectors are vectors of as many numbers."""
    if isinstance(train, Tensor) and train.ndim == 2:
        size = test.shape[1:] if isinstance(test, Tensor) else None
        if size != train.shape[1:]:
            got = f"vectors of {size[0]}" if size and len(size) == 1 else "other items"
            raise ValueError(f"test data: wanted vectors of {train.shape[1]} numbers, got {got}")


def parts_of(data: Any, labels: Any) -> tuple[Any, Any]:
    """Inputs and labels of one set of items."""
    if isinstance(data, Split):
        return data, None
    if labels is not None:
        return data, labels
    if isinstance(data, tuple | list) and len(data) == 2 and not is_item(data[0]):
        return data[0], data[1]
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not is_table(data):
        return data, labels_of(data)
    raise ValueError(f"{WANTED}, got {type(data).__name__} without labels")


def is_table(data: Any) -> bool:
    """Whether it is inputs alone, and no Dataset, whose items hold their labels."""
    return isinstance(data, Tensor | np.ndarray | list | str | Mapping) or hasattr(data, "iloc")


def is_item(entry: Any) -> bool:
    """Whether it is a single input: of a Dataset's (input, label), and not all inputs."""
    return isinstance(entry, str | Path) or hasattr(entry, "getexif")


def labels_of(dataset: Any) -> Any:
    """All labels of a Dataset: where it holds them together, else from its items one by one."""
    transformed = getattr(dataset, "target_transform", None) is not None  # as its items say alone
    for name in LABELS if not transformed else ():
        found = getattr(dataset, name, None)
        if found is not None and hasattr(found, "__len__") and len(found) == len(dataset):
            return found
    try:
        return [second(dataset[i]) for i in range(len(dataset))]
    except (IndexError, KeyError, TypeError) as error:
        kind = type(dataset[0]).__name__
        raise ValueError(
            f"wanted a Dataset of (input, label), got items of {kind} ({error})"
        ) from None


def second(entry: Any) -> Any:
    """The label of a Dataset's item: by its name in a dictionary, else the second part; of more
    than two parts the second is taken where it is a whole number, as in (image, target, index)."""
    named = next((name for name in NAMED if isinstance(entry, Mapping) and name in entry), None)
    parts = list(entry.values()) if isinstance(entry, Mapping) else entry
    label = entry[named] if named else parts[1]
    if isinstance(label, Tensor | np.ndarray) and prod(label.shape) == 1:
        label = label.item()
    whole = isinstance(label, Integral) and not isinstance(entry, Mapping)
    if len(parts) > 2 and not named and not whole:
        got = ", ".join(entry) if isinstance(entry, Mapping) else f"{len(parts)} parts"
        raise ValueError(
            f"wanted a Dataset of (input, label), got items of {got}, and nobody knows which is "
            "the label: hand the labels over beside it"
        )
    return label


def split_of(inputs: Any, labels: Any, size: int, part: str) -> Split:
    """One set of items with classes 0, 1, ... in the order of their names."""
    if isinstance(inputs, Split):
        return inputs
    held, names = held_inputs(inputs, size)
    wanted = f"{part} labels must be {len(held)} integers or texts, one an item"
    plain = plain_labels(labels, wanted)
    if len(plain) != len(held):
        raise ValueError(f"{wanted}, got {len(plain)}")
    if not len(held):
        raise ValueError(f"{part} data: wanted items, got none")
    (numbers,), classes = numbered([plain], [part])
    return Split(held, torch.from_numpy(numbers), tuple(map(str, classes)), names)


def held_inputs(inputs: Any, size: int) -> tuple[Any, tuple[str, ...]]:
    """Inputs as a split holds them, and the names of items that are files."""
    if hasattr(inputs, "iloc"):  # a table of pandas
        inputs = inputs.to_numpy()
    refuse_hollow(inputs, "wanted inputs")
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "biuf":
        return of_numbers(as_tensor(inputs, "wanted inputs"), channels_first=False), ()
    if isinstance(inputs, Tensor):
        return of_numbers(inputs.detach().cpu(), channels_first=True), ()
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "mMV":
        raise ValueError(f"wanted inputs as numbers, got an array of {inputs.dtype}")
    if isinstance(inputs, np.ndarray) and inputs.ndim > 1:
        try:  # pandas' columns of several types
            return held_inputs(inputs.astype(np.float64), size)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"wanted inputs as numbers, got an array of {inputs.dtype}") from None
    if not hasattr(inputs, "__getitem__") and not hasattr(inputs, "__iter__"):
        raise ValueError(f"wanted inputs, got {type(inputs).__name__}")
    if hasattr(inputs, "toarray"):
        raise ValueError(f"wanted inputs, got {type(inputs).__name__}: take x.toarray()")
    dataset = inputs if hasattr(inputs, "__getitem__") else list(inputs)
    if not len(dataset):
        return torch.empty(0, 1), ()
    one = first(dataset[0])
    if is_prepared(one):
        items = Items(dataset, torch.arange(len(dataset)))
        return (of_numbers(items.read(), False) if np.ndim(one) < 2 else items), ()
    found = [first(dataset[i]) for i in range(len(dataset))]
    if all(isinstance(each, str | Path) for each in found):
        return of_files([Path(each).expanduser() for each in found], size), tuple(map(str, found))
    return gathered([decoded(each, stored_side(size)) for each in found], size), ()


def is_prepared(item: Any) -> bool:
    """Whether an item is floats, which the backbone takes as they are, or a row of numbers."""
    if isinstance(item, list | tuple):
        item = np.asarray(item)
    if not isinstance(item, Tensor | np.ndarray):
        return False
    return "float" in str(item.dtype) or item.ndim == 1


def of_numbers(x: Tensor, channels_first: bool) -> Tensor:
    """An array of all inputs: vectors as float32, whole numbers of more dimensions as pictures
    (N, C, H, W) uint8, and floats of more dimensions as they are, in float32."""
    if x.ndim < 2 or (x.ndim == 2 and not x.shape[1]):
        raise ValueError(f"wanted inputs of two dimensions or more, got {tuple(x.shape)}")
    if x.ndim == 2 or x.is_floating_point():
        x = x.float()
        if not x.isfinite().all():
            raise ValueError("inputs must be finite in float32")
        return x
    came = f"{tuple(x.shape)} of {x.dtype}"
    if x.dtype == torch.bool:
        x = x * 255
    if x.dtype in (torch.uint16, torch.uint32, torch.uint64):  # of which torch has no minimum
        x = x.long()
    whole = x.numel() and 0 <= int(x.min()) <= int(x.max()) <= 255
    if x.ndim not in (3, 4) or (len(x) and not whole):
        raise ValueError(
            f"wanted pictures (N, H, W) or with channels, of whole numbers in 0..255, got {came}"
        )
    x = x[:, None] if x.ndim == 3 else x if channels_first else x.permute(0, 3, 1, 2)
    if x.shape[1] not in (1, 3):
        order = "(N, C, H, W)" if channels_first else "(N, H, W, C)"
        raise ValueError(f"wanted pictures {order} of 1 or 3 channels, got {x.shape[1]} of them")
    return x.to(torch.uint8).contiguous()


def of_files(files: Sequence[Path], size: int) -> Tensor | Photographs:
    """Picture files, decoded once into the cache beside the folder that holds them all."""
    from nearkin.data.cache import photographs
    from nearkin.data.sets.listings import small

    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    names = [file.absolute().relative_to(root).as_posix() for file in files]
    found, _ = photographs(NAME, root, names, short_side=stored_side(size))
    return small(found, size)


def decoded(item: Any, short_side: int) -> np.ndarray:
    """A PIL image, or a picture of whole numbers, as (H, W, 3) uint8."""
    if hasattr(item, "getexif"):
        from nearkin.data import pictures

        return pictures.decoded(item, 3, short_side)
    array = item.numpy() if isinstance(item, Tensor) else np.asarray(item)
    if array.dtype.kind not in "biu":
        raise ValueError(f"wanted a picture or numbers as an item, got {type(item).__name__}")
    dense = of_numbers(torch.from_numpy(array)[None], isinstance(item, Tensor))[0]
    return np.ascontiguousarray(dense.expand(3, -1, -1).permute(1, 2, 0).numpy())


def gathered(arrays: Iterable[np.ndarray], size: int) -> Tensor | Photographs:
    """Decoded pictures (H, W, 3) in one tensor of pixels."""
    from nearkin.data.sets.listings import small

    arrays = list(arrays)
    heights, widths = torch.tensor([array.shape[:2] for array in arrays]).T
    lengths = heights * widths * 3
    pixels = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays]))
    return small(Photographs(pixels, lengths.cumsum(0) - lengths, heights, widths, 3), size)


def described(split: Split) -> str:
    """What the inputs are, in words."""
    x = split.inputs
    if isinstance(x, Tensor):
        return f"{x.dtype}".removeprefix("torch.") + f" {tuple(x.shape[1:])}"
    return "prepared by their Dataset" if isinstance(x, Items) else "pictures of many sizes"
