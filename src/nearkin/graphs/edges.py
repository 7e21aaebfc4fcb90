"""Edges that carry numbers: how they start, and the graph-network block that updates them.

Dimensions: B batch, D node features, E edge features, k neighbours of a list.
"""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.graphs.attention import Update, add_log_weights, gather, is_lists
from nearkin.graphs.build import cosine
from nearkin.names import look_up
from nearkin.tensors import distances, unit

EDGE_START = 2  # features with which an edge starts: cosine and distance


def edge_features(nodes: Tensor, adjacency: Tensor) -> Tensor:
    """Cosine and Euclidean distance of two nodes: (B, B, 2), or (B, k, 2) beside lists."""
    if not is_lists(adjacency):
        return torch.stack([cosine(nodes), distances(nodes)], -1)
    direction = unit(nodes)
    cosines = (direction[:, None] * gather(direction, adjacency)).sum(-1)
    square = (nodes[:, None] - gather(nodes, adjacency)).square().sum(-1)
    zero = square == 0  # a node and itself: the square root has no gradient there
    return torch.stack([cosines, torch.where(zero, 0, torch.where(zero, 1, square).sqrt())], -1)


class GraphNetwork(nn.Module):
    """A graph-network block: the edges hear their two nodes, then the nodes hear their edges.

        e'_ij = LN(W e_ij + W_2 relu(W_i x_i + W_j x_j + W_e e_ij))
        m_i = sum of w_ij e'_ij, that over sum of w_ij, or max of e'_ij + log w_ij,
                                                        over the j that i listens to
        u_i = LN(x_i + W_o m_i),  x_i' = LN(u_i + W_4 relu(W_3 u_i))

    w is the adjacency, 1 where it has no weights: m_i is then a sum, a mean or a maximum. The node
    update is that of the attention block. Layers and `edge_features` agree on the edges'
    order: edges[i, j] belongs to "i listens to j".

    Source: Battaglia et al., Relational inductive biases, deep learning, and graph networks, 2018,
    algorithm 1, arXiv:1806.01261. Differs: no global features; normalised.

    Args:
        dim: D, of the nodes, in and out.
        edge_in: E of the edges that come; 2 in the first layer.
        edge_dim: E of the edges that go.
        aggregate: "sum", "mean" or "max".
        without: parts of the node update to leave out, of residual, norms, feedforward.
        dropout: of the node update.
    """

    def __init__(
        self,
        dim: int,
        *,
        edge_in: int = EDGE_START,
        edge_dim: int = 32,
        aggregate: str = "mean",
        without: Collection[str] = (),
        dropout: float = 0.0,
    ):
        super().__init__()
        self.edge_dim = edge_dim
        self.aggregate = look_up(aggregate, AGGREGATES, "aggregate")
        self.listener = nn.Linear(dim, edge_dim)
        self.speaker = nn.Linear(dim, edge_dim, bias=False)
        self.edge_in = nn.Linear(edge_in, edge_dim, bias=False)
        self.edge_out = nn.Linear(edge_dim, edge_dim)
        self.keep = nn.Identity() if edge_in == edge_dim else nn.Linear(edge_in, edge_dim)
        self.norm_edges = nn.LayerNorm(edge_dim)
        self.out = nn.Linear(edge_dim, dim)
        self.update = Update(dim, without=without, dropout=dropout)

    def forward(
        self, nodes: Tensor, adjacency: Tensor, edges: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if edges is None:
            edges = edge_features(nodes, adjacency)
        speaker = self.speaker(nodes)
        speaker = gather(speaker, adjacency) if is_lists(adjacency) else speaker[None]
        weights = (adjacency >= 0 if is_lists(adjacency) else adjacency)[..., None]
        hidden = self.listener(nodes)[:, None] + speaker + self.edge_in(edges)  # (B, B or k, E)
        updated = self.norm_edges(self.keep(edges) + self.edge_out(F.relu(hidden)))
        return self.update(nodes, self.out(self.aggregate(updated, weights))), updated


def aggregate_sum(edges: Tensor, weights: Tensor) -> Tensor:
    """Sum of the edges (B, M, E) of each listener, times their weights (B, M, 1): (B, E)."""
    return (edges * weights).sum(1)


def aggregate_mean(edges: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the edges of each listener."""
    return aggregate_sum(edges, weights) / weights.sum(1)


def aggregate_max(edges: Tensor, weights: Tensor) -> Tensor:
    """Largest value of each feature among the edges of each listener, the light ones lowered."""
    return add_log_weights(edges, weights).amax(1)


AGGREGATES = {"sum": aggregate_sum, "mean": aggregate_mean, "max": aggregate_max}
