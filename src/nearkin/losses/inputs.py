"""The door of every loss: embeddings, labels of any kind, references, and a miner's choice.

Dimensions: B batch, M references, D embedding, T triplets or pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from hashlib import blake2b
from math import inf
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nearkin.labels import plain_labels
from nearkin.losses.protocol import Labels as Labels
from nearkin.losses.protocol import Mined as Mined
from nearkin.losses.protocol import renamed
from nearkin.tensors import as_tensor, at_least_float32, is_integers, pair_masks

T = TypeVar("T", bound=Callable)


def checked_labels(labels: Any, embeddings: Tensor, classes: int | None = None) -> Tensor:
    """The labels (B,) as int64 beside the embeddings (B, D), or an error that says what came.

    Args:
        labels: integers or text, one for each embedding: a tensor, a NumPy array or a list.
        classes: of a loss that owns a part for each class, and knows no others.
    """
    check_embeddings(embeddings, "embeddings")
    found = class_numbers(labels, "labels", embeddings, numbered=bool(classes))
    if classes and len(found) and not 0 <= int(found.min()) <= int(found.max()) < classes:
        low, high = int(found.min()), int(found.max())
        raise ValueError(f"labels must be in 0..{classes - 1}, got {low}..{high}")
    return found


def check_embeddings(x: Any, name: str) -> None:
    """Refuse what is no matrix of floats in a tensor."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(
            f"{name} must be floats (B, D), one row an item, got {tuple(x.shape)} of {x.dtype}"
        )


def class_numbers(labels: Any, name: str, beside: Tensor, numbered: bool = False) -> Tensor:
    """Classes as numbers (B,), int64, on the device of the embeddings `beside`.

    Integers are taken as they are. Text becomes a number by a hash of it, and so the same one in
    every batch and in every process.

    Args:
        numbered: whether the loss numbers its classes 0, 1, ..., so that text is refused.
    """
    wanted = f"{name} must be {len(beside)} integers{'' if numbered else ' or texts'}, one for each"
    wanted += " embedding"
    if is_integers(labels):
        found = labels
    else:
        plain = plain_labels(labels, wanted)
        if plain.dtype.kind == "U":
            if numbered:
                hint = "np.unique(labels, return_inverse=True) numbers them"
                raise ValueError(f"{wanted}, got {plain.shape} of text; {hint}")
            plain = numbers_of(plain)
        found = torch.from_numpy(plain)
    if found.shape != beside.shape[:1]:
        raise ValueError(f"{wanted}, got {tuple(found.shape)} of {found.dtype}")
    return found.to(beside.device, torch.int64)


def numbers_of(texts: np.ndarray) -> np.ndarray:
    """A number for each text (N,), 64 bits of its hash.

    >>> numbers_of(np.array(["tea", "cup", "tea"]))[[0, 2]].tolist()
    [-8015135494872013382, -8015135494872013382]
    """
    different, place = np.unique(texts, return_inverse=True)
    digests = b"".join(blake2b(t.encode(), digest_size=8).digest() for t in different.tolist())
    return np.frombuffer(digests, dtype="<i8")[place].astype(np.int64)


def checked_references(
    ref_emb: Tensor | None, ref_labels: Any, embeddings: Tensor, labels: Any
) -> tuple[Tensor | None, Tensor | None]:
    """The references (M, D) in the embeddings' precision, float32 at least, and their labels (M,).

    None and None where there are none. Labels of None beside references say that these are the
    batch itself, so that item i is reference i, and no kin of its own.
    """
    if (ref_emb is None) != (ref_labels is None):
        raise ValueError("ref_emb and ref_labels go together, but only one was given")
    if ref_emb is None or (ref_emb is embeddings and ref_labels is labels):
        return None, None
    check_embeddings(ref_emb, "ref_emb")
    if ref_emb.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"ref_emb must be (M, {embeddings.shape[1]}), as the embeddings are, "
            f"got {tuple(ref_emb.shape)}"
        )
    theirs = class_numbers(ref_labels, "ref_labels", ref_emb).to(embeddings.device)
    same = are_the_batch(ref_emb, embeddings)
    same = same and torch.equal(theirs, class_numbers(labels, "labels", embeddings))
    ref_emb = ref_emb.to(embeddings.device, at_least_float32(embeddings).dtype)
    return ref_emb, None if same else theirs


def are_the_batch(ref_emb: Tensor, embeddings: Tensor) -> bool:
    """Whether references are the very embeddings of the batch: the same tensor, or a copy of it."""
    if ref_emb.dtype != embeddings.dtype or ref_emb.device != embeddings.device:
        return False
    return ref_emb is embeddings or torch.equal(ref_emb, embeddings)


def pair_weights(
    labels: Tensor, ref_labels: Tensor | None, mined: Mined, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The pairs of kin and the pairs of others that a loss looks at: two (B, M).

    Masks, bool, where nothing was mined; else how often the miner names each, of this dtype.

    Args:
        labels: (B,), of the anchors.
        ref_labels: (M,), of the references; None for the batch itself.
        mined: what a miner chose, or None.
        dtype: of the counts.
    """
    if mined is None:
        return pair_masks(labels, ref_labels)
    shape = (len(labels), len(labels if ref_labels is None else ref_labels))
    mined = checked_choice(mined, *shape)
    if len(mined) == 3:
        anchor, positive, negative = mined
        mined = (anchor, positive, anchor, negative)
    return counts(mined[0], mined[1], shape, dtype), counts(mined[2], mined[3], shape, dtype)


def checked_choice(mined: tuple[Tensor, ...], rows: int, columns: int) -> tuple[Tensor, ...]:
    """A miner's choice of pairs or triplets of a (B, M) table, or an error that says what came."""
    if len(mined) not in (3, 4):
        raise ValueError(f"a miner gives 3 or 4 tensors of indices, got {len(mined)}")
    mined = tuple(as_tensor(index, "a miner's indices must be integers") for index in mined)
    sizes = [tuple(index.shape) for index in mined]
    wanted = [sizes[0]] * 3 if len(mined) == 3 else [sizes[0], sizes[0], sizes[2], sizes[2]]
    if sizes != wanted or any(len(size) != 1 for size in sizes):
        raise ValueError(f"a miner's anchors and partners must be equally many, got {sizes}")
    bounds = (rows, columns, columns) if len(mined) == 3 else (rows, columns) * 2
    for index, size in zip(mined, bounds, strict=True):
        if len(index) and (index.is_floating_point() or index.dtype == torch.bool):
            raise ValueError(f"a miner's indices must be integers, got {index.dtype}")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
            low, high = int(index.min()), int(index.max())
            raise ValueError(f"a miner's indices must be in 0..{size - 1}, got {low}..{high}")
    return tuple(index.long() for index in mined)


def counts(rows: Tensor, columns: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """How often each cell of a table is named."""
    table = torch.zeros(shape, dtype=dtype, device=rows.device)
    return table.index_put_((rows, columns), table.new_ones(()), accumulate=True)


def refuse(loss: nn.Module, mined: Mined, ref_emb: Any = None, ref_labels: Any = None) -> None:
    """For a loss over more than pairs and triplets: it can honour no miner and no references."""
    name = type(loss).__name__
    if mined is not None:
        raise ValueError(
            f"{name} takes no miner, and no sampler of triplets or pairs: it looks at the whole "
            "batch, not at some of its pairs"
        )
    if ref_emb is not None or ref_labels is not None:
        raise ValueError(f"{name} takes no references: it looks at the batch alone")


def as_weights(x: Tensor, weights: Tensor) -> Tensor:
    """Embeddings in the precision in which a loss with these weights computes, float32 at least."""
    return x.to(at_least_float32(weights).dtype)


def above(low: float, **options: float) -> None:
    """Refuse an option that is not a finite number above `low`.

    >>> above(0, temperature=-1.0)
    Traceback (most recent call last):
    ValueError: temperature must be a number above 0, got -1.0
    """
    for name, value in options.items():
        if not low < value < inf:
            raise ValueError(f"{name} must be a number above {low}, got {value}")


def at_least(low: float, **options: float) -> None:
    """Refuse an option that is not a finite number of `low` or more.

    >>> at_least(0, margin=-5.0)
    Traceback (most recent call last):
    ValueError: margin must be a number of 0 or more, got -5.0
    """
    for name, value in options.items():
        if not low <= value < inf:
            raise ValueError(f"{name} must be a number of {low} or more, got {value}")


def within(low: float, high: float, **options: float) -> None:
    """Refuse an option that is not a number in [low, high].

    >>> within(0, 1, smoothing=2.0)
    Traceback (most recent call last):
    ValueError: smoothing must be in [0, 1], got 2.0
    """
    for name, value in options.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be in [{low}, {high}], got {value}")


def peer_names(loss: T) -> T:
    """A decorator of classes and functions that make a loss: num_classes, embedding_size are taken.

    These are pytorch-metric-learning's names for what ours call classes and dim.
    """
    build: Callable[..., Any] = loss.__init__ if isinstance(loss, type) else loss

    @wraps(build)
    def renaming(*args: Any, **options: Any) -> Any:
        return build(*args, **renamed(options))

    if not isinstance(loss, type):
        return renaming  # pyright: ignore[reportReturnType]
    loss.__init__ = renaming
    return loss  # pyright: ignore[reportReturnType]
