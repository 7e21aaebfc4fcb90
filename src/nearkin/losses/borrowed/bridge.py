"""The bridge to a loss of pytorch-metric-learning (PML): inputs as it wants them, errors in a line.

The functions of this file are methods that the borrowed losses share. Each of those has `loss`,
PML's object; `miner`, PML's too, or None; `classes`, or None where it owns no part for each class;
and `rate`, what its parameters ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nearkin.extras import optional
from nearkin.losses.inputs import Labels, Mined, as_weights, checked_labels, checked_references
from nearkin.losses.protocol import part_means
from nearkin.names import TOO_LARGE, look_up
from nearkin.tensors import at_least_float32, unit

PROXY_RATE = 0.01
"""The learning rate of proxies and classifiers in PML's own examples."""

COLUMNS = ("W", "fc")
"""Parameters of PML that hold a class's part in columns; others, in rows."""

DISTANCES: dict[str, tuple[str, dict[str, Any]]] = {
    "cosine": ("CosineSimilarity", {}),
    "dot": ("DotProductSimilarity", {"normalize_embeddings": False}),
    "euclidean": ("LpDistance", {}),
    "squared": ("LpDistance", {"power": 2}),
}
"""Name -> PML's class and its arguments; all but "dot" are between unit embeddings."""


def distance(name: str) -> Any:
    """PML's distance of this name."""
    with optional():
        from pytorch_metric_learning import distances

    kind, arguments = look_up(name, DISTANCES, "distance")
    return getattr(distances, kind)(**arguments)


def forward(
    self: Any,
    embeddings: Tensor,
    labels: Labels,
    indices_tuple: Mined = None,
    ref_emb: Tensor | None = None,
    ref_labels: Labels | None = None,
) -> Tensor:
    """The loss as PML computes it, in float32 at least; its own miner chooses where none did.

    PML tells by the identity of the labels that references are the batch, so that no item is its
    own kin. So references that are the batch, or a copy of it, come to it with the same labels.
    """
    given, (ref_emb, ref_labels) = (
        ref_emb,
        checked_references(ref_emb, ref_labels, embeddings, labels),
    )
    labels = checked_labels(labels, embeddings, self.classes)
    weights = next(self.loss.parameters(), None)
    x = at_least_float32(embeddings) if weights is None else as_weights(embeddings, weights)
    if not len(x):
        return x.sum() * 0
    if ref_emb is not None and given is not None:
        itself = given is embeddings or given.requires_grad == embeddings.requires_grad
        ref_emb = x if ref_labels is None and itself else ref_emb.to(x.dtype)
        own = self.miner is not None and indices_tuple is None
        ref_labels = labels if ref_labels is None else ref_labels.clone() if own else ref_labels
    with torch.autocast(x.device.type, enabled=False), errors_of(name_of(self)):
        if self.miner is not None and indices_tuple is None:
            indices_tuple = self.miner(x, labels, ref_emb, ref_labels)
        return self.loss(x, labels, indices_tuple, ref_emb, ref_labels)


def rates(self: Any) -> dict[str, float]:
    """The learning rate of its proxies, classifier or margins, where there are any."""
    return {"loss.": self.rate} if any(True for _ in self.loss.parameters()) else {}


@torch.no_grad()
def start_at(self: Any, embeddings: Tensor, labels: Tensor) -> None:
    """Its proxies, or its classifier's directions, = the means of (parts of) each class's unit
    embeddings."""
    ((name, own),) = self.loss.named_parameters()
    rows = own.T if name in COLUMNS else own
    means = part_means(unit(embeddings), labels, self.classes, len(rows) // self.classes)
    rows.copy_(means.flatten(0, 1))


def name_of(loss: Any) -> str:
    """A borrowed loss as a recipe calls it, by PML's class."""
    return f"pml:{type(loss.loss).__name__}"


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Turn an error inside PML into one line that begins with this name; not a lack of memory."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if re.search(TOO_LARGE, str(error)):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name}: {reason}") from error
