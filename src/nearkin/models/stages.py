"""Heads of several stages: an embedding of K unit slices, each read from a level of its own.

Dimensions: B batch, F_k features of level k, D embedding, D_k slice k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nearkin.names import look_up
from nearkin.tensors import slice_sizes, unit


class StagedHead(nn.Module):
    """A head whose embedding is K unit slices side by side.

        x = (unit(W_1 f_1 + b_1), ..., unit(W_K f_K + b_K))

    All embeddings have the length sqrt(K), so that a squared distance is the sum, and a cosine the
    mean, of those of the slices: no slice weighs more for being longer. f_k are the features of
    level k, or of the last level for all k.

    Source: Yuan, Yang & Zhang, Hard-aware deeply cascaded embedding, ICCV 2017, arXiv:1611.05720,
    and its released code. Differs: one linear layer a level; all slices weigh alike at test.

    Args:
        levels: F_1, ..., F_K, whose features come side by side; or one number, of features that
            all slices read.
        dim: D, of which each slice has D // K numbers, and the last the rest.
        stages: K.
        norm: F_k -> a module that the features of a level pass first.

    >>> squares = StagedHead([8], dim=5, stages=2)(torch.randn(3, 8)).square().sum(1)
    >>> torch.allclose(squares, torch.full((3,), 2.0))
    True
    """

    def __init__(
        self,
        levels: Sequence[int],
        dim: int,
        stages: int,
        norm: Callable[[int], nn.Module] = lambda features: nn.Identity(),
    ):
        super().__init__()
        self.levels, self.slices = tuple(levels), slice_sizes(dim, stages)
        sizes = self.slices if len(self.levels) > 1 else (dim,)
        self.norms = Norms(self.levels, norm)
        self.maps = nn.ModuleList(
            projection(features, size) for features, size in zip(self.levels, sizes, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.maps, self.norms(x).split(self.levels, 1), strict=True)
        whole = torch.cat([layer(part) for layer, part in parts], 1)  # (B, D)
        return torch.cat([unit(part) for part in whole.split(self.slices, 1)], 1)


class Norms(nn.ModuleList):
    """The normalisation of each level's features, side by side: (B, sum F) -> (B, sum F)."""

    def __init__(self, levels: Sequence[int], norm: Callable[[int], nn.Module]):
        super().__init__(norm(features) for features in levels)
        self.levels = tuple(levels)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self, x.split(self.levels, 1), strict=True)
        return torch.cat([norm(part) for norm, part in parts], 1)


class Levels(nn.Module):
    """The features of several levels of a sequence of layers, side by side: (B, ...) -> (B, sum F).

    Feature maps (B, C, H, W) are averaged over their cells.

    Args:
        layers: the sequence.
        ends: after how many layers each level ends.
    """

    def __init__(self, layers: nn.Sequential, ends: Sequence[int]):
        super().__init__()
        self.layers, self.ends = layers, frozenset(ends)

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for count, layer in enumerate(self.layers, 1):
            x = layer(x)
            if count in self.ends:
                features.append(x.mean((2, 3)) if x.ndim == 4 else x)
        return torch.cat(features, 1)


def slices_of(head: nn.Module) -> tuple[int, ...]:
    """The sizes of the unit slices that a head gives; () of a head of one stage."""
    staged = [part for part in head.modules() if isinstance(part, StagedHead)]
    return staged[-1].slices if staged else ()


def reads_each(stages: int, levels: str) -> bool:
    """Whether each of K stages reads a level of its own, or all the last one."""
    return look_up(levels, {"each": True, "last": False}, "levels") and stages > 1


def projection(features: int, dim: int) -> nn.Linear:
    """A linear layer whose rows (or columns) start orthonormal, and its bias at 0."""
    layer = nn.Linear(features, dim)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
