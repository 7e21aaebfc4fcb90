"""Items of a Dataset that prepares its own tensors: read when a batch wants them.

Dimensions: N items.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from nearkin.tensors import as_tensor

WANTED = "an item must be numbers"


@dataclass(frozen=True, eq=False)
class Items:
    """The items of a Dataset that prepares its own tensors, read when a batch wants them.

    dataset: item i is a tensor of floats, or has it first.
    indices: (N,) int64, which of its items these are.
    """

    dataset: Any
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> torch.Size:
        """(N, ...), as the first item tells."""
        return torch.Size([len(self), *self[torch.arange(1)].read().shape[1:]])

    def __getitem__(self, indices: Tensor) -> Items:
        return Items(self.dataset, self.indices[indices.to("cpu")])

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: torch.device | str) -> Items:
        """The items stay where they are; a batch of them is moved."""
        return self

    def read(self) -> Tensor:
        """The items as one batch of float32."""
        found = [as_tensor(first(self.dataset[i]), WANTED) for i in self.indices.tolist()]
        if len({item.shape for item in found}) > 1:
            shapes = sorted({tuple(item.shape) for item in found})
            raise ValueError(f"wanted items of one shape in a batch, got {shapes[:3]}")
        return torch.stack(found).float()

    @property
    def digests(self) -> Tensor:
        """(N, 16) uint8 that no other items have: what a Dataset gives may change each time."""
        told = bytearray(secrets.token_bytes(16 * len(self)))
        return torch.frombuffer(told, dtype=torch.uint8).view(-1, 16)


def first(entry: Any) -> Any:
    """The input of a Dataset's item: the first of (input, label), {name: input, ...}; what is
    numbers alone is an input itself.

    >>> first(([1, 2], "a")), first([1, 2]), first({"image": 3, "label": 4})
    ([1, 2], [1, 2], 3)
    """
    if isinstance(entry, Mapping) and entry:
        return next(iter(entry.values()))
    parts = list(entry) if isinstance(entry, tuple | list) else []
    return entry if all(isinstance(each, Number) for each in parts) else parts[0]
