"""Graph layers: an attention block in which only the score differs, and its controls.

Every layer is called in one of two ways:

    layer(nodes, graph, edges=None) -> (nodes, edges)
    layer(nodes) -> nodes                                over the full graph, as in nn.Sequential

Nodes are (B, D); the graph is a `Graph` or a (B, B) matrix of who listens to whom; edges, where a
layer reads them, are (B, M, E), and by default start as `edge_features`. A node that listens to
nobody keeps its features as they are.
Dimensions: B nodes, D node features, H heads, K = D / H, E edge features; N listeners, M speakers
(B and B in a matrix; of neighbour lists every node is a graph of its own, 1 and k).
"""

from collections.abc import Collection
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.graphs.edges import EDGE_START, as_edges
from nearkin.graphs.graph import Graph, as_graph, as_nodes
from nearkin.graphs.parts import (
    UPDATE,
    Update,
    add_log_weights,
    call_text,
    check_parts,
    linear,
)
from nearkin.graphs.scores import DotProductScore, GATScore, GATv2Score, MeanScore, Score
from nearkin.names import unknown
from nearkin.tensors import at_least_float32

PROJECTIONS = ("query", "key", "value", "out")
PARTS = (*PROJECTIONS, *UPDATE)
EDGES = ("none", "bias", "gate")


class AttentionBlock(nn.Module):
    """A layer of message passing by attention, and then what a transformer layer does with it.

        q = W_q x,  k = W_k x,  v = W_v x               split into heads
        a_ij = softmax over the j that i listens to, of score(q_i, k_j) + w . edge_ij
        u_i = LN(x_i + W_o sum over j of a_ij g_ij v_j)
        x_i' = LN(u_i + W_2 relu(W_1 u_i))              4 D hidden features

    It is used by the names of its scores, DotProduct, GAT, GATv2 and Mean, which have equally many
    parameters; an own score makes an own layer:

        class Mine(AttentionBlock):
            score_type = MyScore                        a `nearkin.graphs.scores.Score`

    Source: the message passing network of Seidenschwarz et al., Learning intra-batch connections
    for deep metric learning, ICML 2021, as released, which is a post-norm transformer layer
    (Vaswani et al. 2017). Without its residual the feed-forward part still has its own, as it
    acts on each node alone (so do Dong et al. 2021, Attention is not all you need).

    Args:
        dim: D, in and out.
        heads: H, a divisor of `dim`.
        without: parts to leave out, of query, key, value, out, residual, norms, feedforward.
        shared_projection: the form of the score's paper: keys (of GAT queries too) are the values,
            and there is no output projection.
        edges: what edges do: "none" nothing, "bias" add w . edge_ij to the score, "gate" multiply
            the message of each head by g_ij = sigmoid(w . edge_ij + b): one gate a head, where
            gated graph networks have one a feature.
        edge_in: E.
        null_neighbour: put e^0 into the softmax's denominator, as the released code does: a
            neighbour that says nothing.
        dropout: of attention, of both messages and of the hidden features, in training.

    Raises:
        ValueError: for options that do not fit, and for nodes, graph or edges that are none.
    """

    score_type: ClassVar[type[Score]]

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        without: Collection[str] = (),
        shared_projection: bool = False,
        edges: str = "none",
        edge_in: int = EDGE_START,
        null_neighbour: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        score = self.score_type
        if heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got dim={dim}, heads={heads}")
        check_parts(without, PARTS, "part of an attention block")
        if edges not in EDGES:
            raise unknown(edges, EDGES, "use of edges")
        if shared_projection and not score.shared:
            raise ValueError("shared_projection is for GAT and GATv2, got a dot product")
        absent = {*without, *(("out",) if shared_projection else ())}
        shared = score.shared if shared_projection or not score.biases else ()
        # a score that has no queries and keys leaves their parameters to values twice as wide
        wide = dim if score.biases or absent & {*PROJECTIONS} else 2 * dim

        def projection(name: str, size: int = dim, out: int = dim) -> nn.Module:
            bias = score.biases.get(name, True)
            return nn.Identity() if name in absent else linear(size, out, bias)

        # None: the values themselves
        self.query = None if "query" in shared else projection("query")
        self.key = None if "key" in shared else projection("key")
        self.value, self.out = projection("value", out=wide), projection("out", size=wide)
        self.score = score(heads, dim // heads)
        self.edge_dim = 0 if edges == "none" else edge_in  # of the edges that go on; 0: none read
        self.edge = nn.Linear(edge_in, heads, bias=edges == "gate") if self.edge_dim else None
        self.gated = edges == "gate"
        self.heads, self.null_neighbour = heads, null_neighbour
        self.update = Update(dim, without=absent - {*PROJECTIONS}, dropout=dropout)
        self.drop = nn.Dropout(dropout)
        self.text = call_text(
            self,
            dim,
            heads=heads,
            without=tuple(without),
            shared_projection=shared_projection,
            edges=edges,
            edge_in=edge_in,
            null_neighbour=null_neighbour,
            dropout=dropout,
        )

    def forward(self, nodes: Any, graph: Any = None, edges: Any = None) -> Any:
        """Nodes (B, D) and edges after the layer; called with nodes alone, the nodes alone."""
        nodes, checked, edges = self.inputs(nodes, graph, edges)
        value = self.value(nodes)
        weights = self.drop(self.weigh(nodes, value, checked, edges))
        message = self.out(hear(weights, self.split(value), checked))
        after = checked.keep_alone(nodes, self.update(nodes, message))
        return after if graph is None else (after, edges)

    def attention(self, nodes: Any, graph: Any = None, edges: Any = None) -> Tensor:
        """a_ij, with its gate where there is one: (H, B, B), or (B, H, 1, k) beside lists."""
        nodes, checked, edges = self.inputs(nodes, graph, edges)
        return self.weigh(nodes, self.value(nodes), checked, edges)

    def inputs(self, nodes: Any, graph: Any, edges: Any) -> tuple[Tensor, Graph, Tensor | None]:
        """Nodes, graph and edges, checked."""
        nodes = as_nodes(nodes, next(self.parameters(), None))
        graph = as_graph(graph, nodes)
        return nodes, graph, as_edges(edges, nodes, graph, self.edge_dim)

    def weigh(self, nodes: Tensor, value: Tensor, graph: Graph, edges: Tensor | None) -> Tensor:
        """Attention (..., H, N, M): (H, B, B), or (B, H, 1, k) beside lists."""
        query = value if self.query is None else self.query(nodes)
        key = value if self.key is None else self.key(nodes)
        query, key = self.score.terms(self.split(query), self.split(key))  # (B, H, F)
        connected, weights = graph.connected, graph.weights  # (B, M)
        if graph.speakers is not None:  # B graphs of one listener each
            query, key = query[:, None], graph.of_speakers(key)  # (B, 1 or k, H, F)
            connected = connected[:, None]  # (B, 1, k)
            edges = None if edges is None else edges[:, None]
        score = self.score(query.transpose(-3, -2), key.transpose(-3, -2))  # (..., H, N, M)
        gate = None
        if self.edge is not None:
            term = self.edge(edges).movedim(-1, -3)  # (..., H, N, M)
            score, gate = (score, term.sigmoid()) if self.gated else (score + term, None)
        score = add_log_weights(score, connected[..., None, :, :], weights)
        if self.null_neighbour:
            attention = F.pad(score, (0, 1)).softmax(-1)[..., :-1]
        else:
            attention = score.softmax(-1)
        return attention if gate is None else attention * gate

    def split(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, H, K)."""
        return x.unflatten(-1, (self.heads, -1))

    def __repr__(self) -> str:
        return self.text


class DotProduct(AttentionBlock):
    """The attention block by scaled dot products, as in transformers: `DotProductScore`."""

    score_type = DotProductScore


class GAT(AttentionBlock):
    """The attention block by GAT's score, by which all listeners rank alike: `GATScore`."""

    score_type = GATScore


class GATv2(AttentionBlock):
    """The attention block by GATv2's score, by which each listener ranks anew: `GATv2Score`."""

    score_type = GATv2Score


class Mean(AttentionBlock):
    """The attention block without a score, a control: all neighbours are heard alike."""

    score_type = MeanScore


class NoEdges(nn.Module):
    """The control without a graph: whatever the graph, every node listens to itself alone.

    A `Mean` block, so with as many parameters as the others, all of them in use. Takes the options
    of `AttentionBlock` but those about edges.
    """

    edge_dim = 0

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        without: Collection[str] = (),
        shared_projection: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        options: dict[str, Any] = {
            "heads": heads,
            "without": tuple(without),
            "shared_projection": shared_projection,
            "dropout": dropout,
        }
        self.block = Mean(dim, **options)
        self.text = call_text(self, dim, **options)

    def forward(self, nodes: Any, graph: Any = None, edges: Any = None) -> Any:
        """Nodes (B, D) and edges after the layer; called with nodes alone, the nodes alone."""
        nodes, _, _ = self.block.inputs(nodes, graph, None)
        after, _ = self.block(nodes, Graph.loops(nodes))
        return after if graph is None else (after, edges)

    def attention(self, nodes: Any, graph: Any = None, edges: Any = None) -> Tensor:
        """1 of each node on itself: (H, B, B)."""
        nodes, _, _ = self.block.inputs(nodes, graph, None)
        return torch.eye(len(nodes)).to(nodes).expand(self.block.heads, -1, -1)

    def __repr__(self) -> str:
        return self.text


def hear(weights: Tensor, value: Tensor, graph: Graph) -> Tensor:
    """sum over j of a_ij v_j, of values (B, H, K), heads side by side: (B, D).

    weights: (H, B, B), or (B, H, 1, k) beside lists, whose values are summed as they are gathered.
    """
    size, heads, features = value.shape
    if graph.speakers is None:
        return (weights @ value.transpose(0, 1)).transpose(0, 1).flatten(1)
    head = torch.arange(heads, device=value.device)[:, None]
    rows = graph.speakers[:, None] * heads + head  # (B, H, k), of values as (B H, K)
    # in float32: under autocast the two may differ in kind, and bf16 has no way back on a GPU
    heard = F.embedding_bag(
        rows.flatten(0, 1),
        at_least_float32(value).reshape(size * heads, features),
        per_sample_weights=at_least_float32(weights).flatten(0, 2),
        mode="sum",
    )
    return heard.view(size, heads * features)
