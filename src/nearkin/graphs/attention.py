"""The attention block: one layer in which only the score differs.

DotProduct, GAT and GATv2 are this block with their scores, of equally many parameters; Mean and
NoEdges are its controls. A layer is called `(nodes (B, D), adjacency, edges=None)` and gives nodes
and edges. The adjacency is

    (B, B) bool     adjacency[i, j]: i listens to j; self-loops always
    (B, B) float    the same with weights above 0, by which attention is multiplied before it is
                    normalised (1 and 0 are True and False)
    (B, k) int64    lists of whom each node listens to, itself among them, -1 where a list is
                    shorter: the same numbers, for large batches with few neighbours

and edges are (B, B, E), or (B, k, E) beside lists.
Dimensions: B batch, D node features, H heads, K = D / H, E edge features; N listeners, M speakers.
"""

from collections.abc import Collection
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.graphs.scores import DotProductScore, GATScore, GATv2Score, MeanScore, Score
from nearkin.names import unknown
from nearkin.tensors import at_least_float32

PROJECTIONS = ("query", "key", "value", "out")
UPDATE = ("residual", "norms", "feedforward")
PARTS = (*PROJECTIONS, *UPDATE)
EDGES = ("none", "bias", "gate")


class AttentionBlock(nn.Module):
    """Message passing by attention, then what a transformer layer does with the message.

        q = W_q x,  k = W_k x,  v = W_v x               split into heads
        a_ij = softmax over the j that i listens to, of score(q_i, k_j) + w . edge_ij
        u_i = LN(x_i + W_o sum over j of a_ij g_ij v_j)
        x_i' = LN(u_i + W_2 relu(W_1 u_i))              4 D hidden features

    Source: the message passing network of Seidenschwarz et al., Learning intra-batch connections
    for deep metric learning, ICML 2021, as released, which is a post-norm transformer layer
    (Vaswani et al. 2017). Without its residual the feed-forward part still has its own, as it
    acts on each node alone (so do Dong et al. 2021, Attention is not all you need).

    Args:
        dim: D, in and out.
        score: the class of the score, of `nearkin.graphs.scores`.
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
    """

    def __init__(
        self,
        dim: int,
        score: type[Score],
        *,
        heads: int = 4,
        without: Collection[str] = (),
        shared_projection: bool = False,
        edges: str = "none",
        edge_in: int = 2,
        null_neighbour: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
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

    def forward(
        self, nodes: Tensor, adjacency: Tensor, edges: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        value = self.value(nodes)
        weights = self.drop(self.weigh(nodes, value, adjacency, edges))
        return self.update(nodes, self.out(hear(weights, self.split(value), adjacency))), edges

    def attention(self, nodes: Tensor, adjacency: Tensor, edges: Tensor | None = None) -> Tensor:
        """a_ij, with its gate where there is one: (H, B, B), or (B, H, 1, k) beside lists."""
        return self.weigh(nodes, self.value(nodes), adjacency, edges)

    def weigh(
        self, nodes: Tensor, value: Tensor, adjacency: Tensor, edges: Tensor | None
    ) -> Tensor:
        """Attention (..., H, N, M): (H, B, B), or (B, H, 1, k) beside lists."""
        query = value if self.query is None else self.query(nodes)
        key = value if self.key is None else self.key(nodes)
        query, key = self.score.terms(self.split(query), self.split(key))  # (B, H, F)
        connected = adjacency  # (B, B)
        if is_lists(adjacency):  # B graphs of one listener each
            query, key = query[:, None], gather(key, adjacency)  # (B, 1 or k, H, F)
            connected = adjacency[:, None] >= 0  # (B, 1, k)
            edges = None if edges is None else edges[:, None]
        score = self.score(query.transpose(-3, -2), key.transpose(-3, -2))  # (..., H, N, M)
        gate = None
        if self.edge is not None:
            if edges is None:
                raise ValueError("this layer reads edges: wanted (B, B, E) numbers, got none")
            term = self.edge(edges).movedim(-1, -3)  # (..., H, N, M)
            score, gate = (score, term.sigmoid()) if self.gated else (score + term, None)
        weights = masked_softmax(score, connected[..., None, :, :], self.null_neighbour)
        return weights if gate is None else weights * gate

    def split(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, H, K)."""
        return x.unflatten(-1, (self.heads, -1))


class Update(nn.Module):
    """What a node makes of its message m: u = LN(x + m), x' = LN(u + W_2 relu(W_1 u)).

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


class NoEdges(nn.Module):
    """The control without a graph: every node listens to itself alone.

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
        self.block = Mean(
            dim,
            heads=heads,
            without=without,
            shared_projection=shared_projection,
            dropout=dropout,
        )

    def forward(
        self, nodes: Tensor, adjacency: Tensor, edges: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        itself = torch.arange(len(nodes), device=nodes.device)[:, None]
        return self.block(nodes, itself)[0], edges

    def attention(self, nodes: Tensor, adjacency: Tensor, edges: Tensor | None = None) -> Tensor:
        """1 of each node on itself: (H, B, B)."""
        return torch.eye(len(nodes)).to(nodes).expand(self.block.heads, -1, -1)


DotProduct = partial(AttentionBlock, score=DotProductScore)
GAT = partial(AttentionBlock, score=GATScore)
GATv2 = partial(AttentionBlock, score=GATv2Score)
Mean = partial(AttentionBlock, score=MeanScore)


def check_parts(without: Collection[str], parts: Collection[str], kind: str) -> None:
    """Refuse to leave out what is not a part."""
    for part in without:
        if part not in parts:
            raise unknown(part, parts, kind)


def is_lists(adjacency: Tensor) -> bool:
    """Whether a graph is written as lists of neighbours (B, k), not as a matrix (B, B)."""
    return adjacency.dtype == torch.int64


def masked_softmax(score: Tensor, adjacency: Tensor, null_neighbour: bool) -> Tensor:
    """a_j = w_j e^(s_j) / (sum over m of w_m e^(s_m) [+ e^0]), w the adjacency."""
    score = add_log_weights(score, adjacency)
    if null_neighbour:
        return F.pad(score, (0, 1)).softmax(-1)[..., :-1]
    return score.softmax(-1)


def add_log_weights(values: Tensor, adjacency: Tensor) -> Tensor:
    """values_j + log w_j, w the adjacency: -inf where there is no edge."""
    connected = adjacency > 0
    if adjacency.is_floating_point():
        values = values + torch.where(connected, adjacency, 1).log()
    return values.masked_fill(~connected, -torch.inf)


def gather(x: Tensor, lists: Tensor) -> Tensor:
    """Rows of x (B, ...) by lists (B, k) of indices, -1 for any: (B, k, ...)."""
    return x.index_select(0, lists.clamp_min(0).flatten()).unflatten(0, lists.shape)


def hear(weights: Tensor, value: Tensor, adjacency: Tensor) -> Tensor:
    """sum over j of a_ij v_j, of values (B, H, K), heads side by side: (B, D).

    weights: (H, B, B), or (B, H, 1, k) beside lists, whose values are summed as they are gathered.
    """
    size, heads, features = value.shape
    if not is_lists(adjacency):
        return (weights @ value.transpose(0, 1)).transpose(0, 1).flatten(1)
    head = torch.arange(heads, device=value.device)[:, None]
    rows = adjacency.clamp_min(0)[:, None] * heads + head  # (B, H, k), of values as (B H, K)
    # in float32: under autocast the two may differ in kind, and bf16 has no way back on a GPU
    heard = F.embedding_bag(
        rows.flatten(0, 1),
        at_least_float32(value).reshape(size * heads, features),
        per_sample_weights=at_least_float32(weights).flatten(0, 2),
        mode="sum",
    )
    return heard.view(size, heads * features)


def linear(size: int, out: int, bias: bool) -> nn.Linear:
    """A linear map with Xavier-uniform weights and no bias at the start."""
    layer = nn.Linear(size, out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
