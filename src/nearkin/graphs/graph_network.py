"""The graph-network block: a layer that updates its edges, then its nodes.

Dimensions: B nodes, M speakers named in a row, D node features, E edge features.
"""

from collections.abc import Collection
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.graphs.edges import EDGE_START, as_edges
from nearkin.graphs.graph import Graph, as_graph, as_nodes
from nearkin.graphs.parts import Update, add_log_weights, call_text
from nearkin.names import look_up


class GraphNetwork(nn.Module):
    """A graph-network block: a layer in which edges hear their nodes, then nodes their edges.

        e'_ij = LN(W e_ij + W_2 relu(W_i x_i + W_j x_j + W_e e_ij))
        m_i = sum of w_ij e'_ij, that over sum of w_ij, or max of e'_ij + log w_ij,
                                                        over the j that i listens to
        u_i = LN(x_i + W_o m_i),  x_i' = LN(u_i + W_4 relu(W_3 u_i))

    w are the weights of the graph, or 1: m_i is then a sum, a mean or a maximum. The node update is
    that of the attention block. Layers and `edge_features` agree on the edges' order: edges[i, j]
    belongs to "i listens to j".

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
        self.edge_dim, self.edge_start = edge_dim, edge_in
        self.aggregate = look_up(aggregate, AGGREGATES, "aggregate")
        self.listener = nn.Linear(dim, edge_dim)
        self.speaker = nn.Linear(dim, edge_dim, bias=False)
        self.edge_in = nn.Linear(edge_in, edge_dim, bias=False)
        self.edge_out = nn.Linear(edge_dim, edge_dim)
        self.keep = nn.Identity() if edge_in == edge_dim else nn.Linear(edge_in, edge_dim)
        self.norm_edges = nn.LayerNorm(edge_dim)
        self.out = nn.Linear(edge_dim, dim)
        self.update = Update(dim, without=without, dropout=dropout)
        self.text = call_text(
            self,
            dim,
            edge_in=edge_in,
            edge_dim=edge_dim,
            aggregate=aggregate,
            without=tuple(without),
            dropout=dropout,
        )

    def forward(self, nodes: Any, graph: Any = None, edges: Any = None) -> Any:
        """Nodes (B, D) and edges after the layer; called with nodes alone, the nodes alone."""
        nodes = as_nodes(nodes, self.listener.weight)
        checked = as_graph(graph, nodes)
        edges = as_edges(edges, nodes, checked, self.edge_start)
        speaker = checked.of_speakers(self.speaker(nodes))
        hidden = self.listener(nodes)[:, None] + speaker + self.edge_in(edges)  # (B, M, E)
        updated = self.norm_edges(self.keep(edges) + self.edge_out(F.relu(hidden)))
        message = self.out(self.aggregate(updated, checked))
        after = checked.keep_alone(nodes, self.update(nodes, message))
        return after if graph is None else (after, updated)

    def __repr__(self) -> str:
        return self.text


def aggregate_sum(edges: Tensor, graph: Graph) -> Tensor:
    """Weighted sum of the edges (B, M, E) of each listener: (B, E)."""
    return (edges * weights_of(graph)).sum(1)


def aggregate_mean(edges: Tensor, graph: Graph) -> Tensor:
    """Weighted mean of the edges of each listener."""
    return aggregate_sum(edges, graph) / weights_of(graph).sum(1)


def aggregate_max(edges: Tensor, graph: Graph) -> Tensor:
    """Largest value of each feature among the edges of each listener, the light ones lowered."""
    weights = None if graph.weights is None else graph.weights[..., None]
    return add_log_weights(edges, graph.connected[..., None], weights).amax(1)


def weights_of(graph: Graph) -> Tensor:
    """w (B, M, 1), 0 where there is no edge."""
    return (graph.connected if graph.weights is None else graph.weights)[..., None]


AGGREGATES = {"sum": aggregate_sum, "mean": aggregate_mean, "max": aggregate_max}
