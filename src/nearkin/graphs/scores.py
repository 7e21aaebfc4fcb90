"""Score functions of attention: how much node i wants to hear from node j, before the softmax.

Dimensions: B nodes, H heads, N listeners, M speakers, K features per head, F numbers compared. On a
matrix N = M = B; on neighbour lists every node is a graph of its own, N = 1 by M.
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Score(Protocol):
    """The form of a score, an nn.Module.

    biases: which projections there are, query and key or neither, and whether they have a bias. A
        bias that would be redundant beside the score's own weights is left out, so that all scores
        have equally many parameters.
    shared: for which of them the values stand in the form of the score's paper.
    """

    biases: ClassVar[Mapping[str, bool]]
    shared: ClassVar[tuple[str, ...]]

    def __init__(self, heads: int, features: int): ...

    def terms(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """What is compared: queries and keys (B, H, K) reduced to (B, H, F)."""
        ...

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores (..., H, N, M) of (..., H, N, F) and (..., H, M, F)."""
        ...


class DotProductScore(nn.Module):
    """The scaled dot product, e_ij = q_i . k_j / sqrt(K).

    Source: Vaswani et al., Attention is all you need, 2017, eq. 1, arXiv:1706.03762.
    """

    biases: ClassVar[Mapping[str, bool]] = {"query": True, "key": True}
    shared: ClassVar[tuple[str, ...]] = ()

    def __init__(self, heads: int, features: int):
        super().__init__()

    def terms(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return query, key

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ key.mT * query.shape[-1] ** -0.5


class GATScore(nn.Module):
    """GAT's score, e_ij = LeakyReLU(a . q_i + b . k_j): two terms, each of one node alone.

    LeakyReLU is monotone, so all listeners rank the speakers alike, by b . k_j: static attention.

    Source: Veličković et al., Graph attention networks, ICLR 2018, eq. 3, arXiv:1710.10903, where
    q = k = W x and slope = 0.2.
    """

    biases: ClassVar[Mapping[str, bool]] = {"query": False, "key": False}
    shared: ClassVar[tuple[str, ...]] = ("query", "key")

    def __init__(self, heads: int, features: int, slope: float = 0.2):
        super().__init__()
        self.slope = slope
        self.listener = nn.Parameter(glorot(heads, features))
        self.speaker = nn.Parameter(glorot(heads, features))

    def terms(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return dot(query, self.listener), dot(key, self.speaker)  # F = 1

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return F.leaky_relu(query + key.mT, self.slope)


class GATv2Score(nn.Module):
    """GATv2's score, e_ij = a . LeakyReLU(q_i + k_j): each listener can rank speakers for itself.

    With LeakyReLU(z) = (1 + s)/2 z + (1 - s)/2 |z| the score is two terms of one node each and a
    weighted L1 distance between q_i and -k_j,

        e_ij = (1 + s)/2 (a . q_i + a . k_j) + (1 - s)/2 sum over d of a_d |q_id + k_jd|,

    which `torch.cdist` computes without a tensor of N x M x K numbers; on the CPU backward too.

    Source: Brody, Alon & Yahav, How attentive are graph attention networks?, ICLR 2022, eq. 7,
    arXiv:2105.14491.
    """

    biases: ClassVar[Mapping[str, bool]] = {"query": True, "key": False}
    shared: ClassVar[tuple[str, ...]] = ("key",)

    def __init__(self, heads: int, features: int, slope: float = 0.2):
        super().__init__()
        self.slope = slope
        self.weight = nn.Parameter(glorot(heads, features))

    def terms(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return query, key

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        weight = self.weight[:, None]  # (H, 1, K)
        if query.shape[-2] == 1:  # neighbour lists: nothing to save, and cdist is slow on them
            return dot(F.leaky_relu(query + key, self.slope), weight).mT
        if torch.compiler.is_compiling():  # no sizes that the signs of the weights decide
            pairs = query[..., :, None, :] + key[..., None, :, :]  # (H, N, M, K)
            return (F.leaky_relu(pairs, self.slope) * weight[:, None]).sum(-1)
        each = dot(query, weight) + dot(key, weight).mT  # (H, N, M)
        heads = zip(query.unbind(-3), key.unbind(-3), self.weight, strict=True)
        bend = torch.stack([weighted_l1(q, -k, a) for q, k, a in heads], -3)
        return (1 + self.slope) / 2 * each + (1 - self.slope) / 2 * bend


class MeanScore(nn.Module):
    """The constant score, e_ij = 0: all neighbours are heard alike, without queries and keys."""

    biases: ClassVar[Mapping[str, bool]] = {}
    shared: ClassVar[tuple[str, ...]] = ("query", "key")

    def __init__(self, heads: int, features: int):
        super().__init__()

    def terms(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return query[..., :0], key[..., :0]  # F = 0

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return query.new_zeros(*query.shape[:-1], key.shape[-2])


def glorot(heads: int, features: int) -> Tensor:
    """Glorot-uniform weights (H, K) of maps from K numbers to one."""
    bound = (6 / (features + 1)) ** 0.5
    return torch.empty(heads, features).uniform_(-bound, bound)


def dot(x: Tensor, weight: Tensor) -> Tensor:
    """Products with a vector: (..., K), (..., K) -> (..., 1)."""
    return (x * weight).sum(-1, keepdim=True)


def weighted_l1(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """sum over d of weight_d |x_nd - y_md|, of x (..., N, K), y (..., M, K), weight (K,) any sign.

    Two distances: of the features that count up, less those that count down.
    """
    up, down = (weight >= 0).nonzero()[:, 0], (weight < 0).nonzero()[:, 0]
    return l1(x[..., up], y[..., up], weight[up]) - l1(x[..., down], y[..., down], weight[down])


def l1(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """sum over d of |weight_d (x_nd - y_md)|."""
    return torch.cdist(x * weight, y * weight, p=1)
