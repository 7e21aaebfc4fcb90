"""A graph and the layers over it as one module, (B, D) -> (B, D): what `GraphRefinement` trains.

Dimensions: B batch, D embedding, L layers, H heads.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nearkin.graphs.attention import DotProduct
from nearkin.graphs.build import Learned, LearnedSimilarity, full, neighbour_lists
from nearkin.graphs.edges import edge_features
from nearkin.names import construct, look_up
from nearkin.registry import LAYERS

LISTS_FROM = 512  # nodes, from which on a graph of few neighbours is walked as lists
LISTS_SHARE = 16  # and these are few: at most one node in 16


def make_layers(name: str, count: int, dim: int, **options: Any) -> list[Any]:
    """`count` layers of this name with these options, each made for the edges of the one before.

    An option of None stays at its default; one that the layer does not have is an error.

    >>> [layer.edge_dim for layer in make_layers("graph-network", 2, dim=8, edge_dim=16)]
    [16, 16]
    """
    build = look_up(name, LAYERS, "layer")
    given = {option: value for option, value in options.items() if value is not None}
    layers: list[Any] = []
    for _ in range(count):
        come = {"edge_in": layers[-1].edge_dim} if layers and layers[-1].edge_dim else {}
        layers.append(construct(build, given | come, f"option of layer {name!r}", dim=dim))
    return layers


class Refined(NamedTuple):
    """What a refiner found out: nodes after each layer, last edges, and the graph itself."""

    nodes: list[Tensor]  # L of (B, D)
    edges: Tensor | None  # (B, B, E) or (B, k, E)
    adjacency: Tensor  # (B, B) or (B, k)


class Refiner(nn.Module):
    """Message passing over a batch: build its graph, then apply one layer after the other.

    In evaluation the builder gets no labels, so that a builder that needs them refuses.

    Args:
        builder: (embeddings, labels=None) -> adjacency; a function, or a module that learns.
        layers: modules (nodes, adjacency, edges) -> (nodes, edges).
        input_linear: a map of the nodes before the first layer; the graph and its edges are those
            of the embeddings as they came.
        concat: give the outputs of all layers side by side, (B, L D), not the last alone.
    """

    def __init__(
        self,
        builder: Callable[..., Tensor],
        layers: Iterable[nn.Module],
        *,
        input_linear: nn.Module | None = None,
        concat: bool = False,
    ):
        super().__init__()
        self.builder: Callable[..., Tensor] = builder
        self.layers = nn.ModuleList(layers)
        self.input_linear = input_linear or nn.Identity()
        self.concat = concat
        self.reads_edges = any(layer.edge_dim for layer in self.layers)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        nodes = self.refine(embeddings, labels).nodes
        return torch.cat(nodes, 1) if self.concat else nodes[-1]

    def refine(self, embeddings: Tensor, labels: Tensor | None = None) -> Refined:
        """All that comes of it: the nodes after every layer, the last edges, the graph."""
        adjacency = shorten(self.graph(embeddings, labels if self.training else None))
        edges = edge_features(embeddings, adjacency) if self.reads_edges else None
        nodes, outputs = self.input_linear(embeddings), []
        for layer in self.layers:
            nodes, edges = layer(nodes, adjacency, edges)
            outputs.append(nodes)
        return Refined(outputs, edges, adjacency)

    def attention(self, embeddings: Tensor, adjacency: Tensor) -> list[Tensor]:
        """Attention (H, B, B) of each layer that has any; [h, i, j] is what i gives to j.

        Over a graph (B, B), and without dropout, in training too.
        """
        training = self.training
        self.eval()
        edges = edge_features(embeddings, adjacency) if self.reads_edges else None
        nodes, weights = self.input_linear(embeddings), []
        for layer in self.layers:
            look = getattr(layer, "attention", None)  # a graph-network block has none
            if look is not None:
                weights.append(look(nodes, adjacency, edges))
            nodes, edges = layer(nodes, adjacency, edges)
        self.train(training)
        return weights

    def graph(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """The adjacency (B, B) of a batch; of a learned graph its weights."""
        if isinstance(self.builder, Learned | LearnedSimilarity):
            return self.builder.weights(embeddings, labels)
        with torch.no_grad():
            return self.builder(embeddings, labels)


def shorten(adjacency: Tensor) -> Tensor:
    """The adjacency as it is walked fastest: lists where a large graph has few neighbours."""
    size = len(adjacency)
    few = adjacency.dtype == torch.bool and size >= LISTS_FROM
    if few and int(adjacency.sum(1).max()) * LISTS_SHARE <= size:
        return neighbour_lists(adjacency)
    return adjacency


def from_released(arrays: Mapping[str, object]) -> Refiner:
    """The message passing network of *Learning Intra-Batch Connections*, with its weights.

    A full graph, post-norm dot-product layers and the null neighbour of the released code
    (Seidenschwarz et al., ICML 2021). In evaluation mode and double precision.

    Args:
        arrays: heads, layers, concat; `input_linear/weight` and `/bias`; and for each layer n
            `layern/PART/weight` and `/bias`, PART one of query, key, value, out, norm_attention,
            feedforward_in, feedforward_out, norm_feedforward, as nn.Linear and nn.LayerNorm hold
            them. Others are ignored.
    """
    tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
    dim, heads = len(tensors["input_linear/weight"]), int(tensors["heads"])
    layers = [
        DotProduct(dim, heads=heads, null_neighbour=True) for _ in range(int(tensors["layers"]))
    ]
    refiner = Refiner(
        full, layers, input_linear=nn.Linear(dim, dim), concat=bool(tensors["concat"])
    )
    state = {}
    for name, tensor in tensors.items():
        if name.endswith(("/weight", "/bias")):
            name = re.sub(r"^layer(\d+)/(norm|feedforward)", r"layers/\1/update/\2", name)
            state[re.sub(r"^layer(\d+)/", r"layers/\1/", name).replace("/", ".")] = tensor
    refiner.double().load_state_dict(state)
    return refiner.eval()
