"""Parts that the graph layers share: the update of nodes, sums over neighbours, checks.

Dimensions: B nodes, D node features.
"""

from collections.abc import Collection
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.names import unknown

UPDATE = ("residual", "norms", "feedforward")


class Update(nn.Module):
    """The update of nodes x by their messages m: u = LN(x + m), x' = LN(u + W_2 relu(W_1 u)).

    Args:
        dim: D, in and out; 4 D hidden features.
        without: parts to leave out, of residual, norms, feedforward.
        dropout: of the message, of the hidden features and of the feed-forward part's output.
    """

    def __init__(self, dim: int, *, without: Collection[str] = (), dropout: float = 0.0):
        super().__init__()
        check_parts(without, UPDATE, "part of a node update")
        norm = nn.Identity if "norms" in without else partial(nn.LayerNorm, dim)
        self.residual, self.feedforward = "residual" not in without, "feedforward" not in without
        self.drop = nn.Dropout(dropout)
        self.norm_attention = norm()
        if self.feedforward:
            self.feedforward_in = nn.Linear(dim, 4 * dim)
            self.feedforward_out = nn.Linear(4 * dim, dim)
            self.norm_feedforward = norm()

    def forward(self, nodes: Tensor, message: Tensor) -> Tensor:
        message = self.drop(message)
        nodes = self.norm_attention(nodes + message if self.residual else message)
        if self.feedforward:
            hidden = self.drop(F.relu(self.feedforward_in(nodes)))
            nodes = self.norm_feedforward(nodes + self.drop(self.feedforward_out(hidden)))
        return nodes


def linear(size: int, out: int, bias: bool) -> nn.Linear:
    """A linear map with Xavier-uniform weights and no bias at the start."""
    layer = nn.Linear(size, out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def add_log_weights(values: Tensor, connected: Tensor, weights: Tensor | None) -> Tensor:
    """values_j + log w_j, w the weights of the graph or 1: -inf where there is no edge."""
    if weights is not None:
        values = values + torch.where(connected, weights, 1).log()
    return values.masked_fill(~connected, -torch.inf)


def check_parts(without: Collection[str], parts: Collection[str], kind: str) -> None:
    """Refuse to leave out what is not a part."""
    for part in without:
        if part not in parts:
            raise unknown(part, parts, kind)


def call_text(layer: nn.Module, dim: int, **options: Any) -> str:
    """A layer as its call, the options that differ from their defaults: GAT(8, heads=2)."""
    parameters = signature(type(layer)).parameters
    changed = {
        name: value
        for name, value in options.items()
        if name not in parameters or value != parameters[name].default
    }
    given = [str(dim), *(f"{name}={value!r}" for name, value in changed.items())]
    return f"{type(layer).__name__}({', '.join(given)})"
