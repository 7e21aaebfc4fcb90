"""The refiner: a graph builder and the layers over its graph as one module, (B, D) -> (B, D).

Dimensions: B batch, D embedding, L layers, H heads, M speakers named in a row, E edge features.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nearkin.graphs.attention import DotProduct
from nearkin.graphs.build import full
from nearkin.graphs.edges import EDGE_START, edge_features
from nearkin.graphs.graph import Graph, as_graph, as_nodes, neighbour_lists
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
    """What a refiner makes of a batch: nodes after each layer, the last edges, and the graph."""

    nodes: list[Tensor]  # L of (B, D)
    edges: Tensor | None  # (B, M, E)
    graph: Graph


class Refiner(nn.Module):
    """Message passing over a batch: the graph is built, then one layer follows the other.

    In evaluation the builder gets no labels, so that a builder that needs them refuses.

    Args:
        builder: (embeddings, labels=None) -> graph, a `Graph` or a (B, B) matrix; a function, or a
            module. One that learns gives a weighted graph, or has a method `weights` of the same
            arguments, whose (B, B) numbers make one.
        layers: modules (nodes, graph, edges) -> (nodes, edges).
        input_linear: a map of the nodes before the first layer; the graph and its edges are those
            of the embeddings as they came.
        concat: give the outputs of all layers side by side, (B, L D), not the last alone.

    >>> refiner = Refiner(full, [DotProduct(8), DotProduct(8)])
    >>> refiner(torch.randn(5, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(
        self,
        builder: Callable[..., Any],
        layers: Iterable[nn.Module],
        *,
        input_linear: nn.Module | None = None,
        concat: bool = False,
    ):
        super().__init__()
        self.builder: Callable[..., Any] = builder
        self.layers = nn.ModuleList(layers)
        self.input_linear = input_linear or nn.Identity()
        self.concat = concat
        edge_dims = [getattr(layer, "edge_dim", 0) for layer in self.layers]
        self.reads_edges = any(edge_dims)
        self.edge_dim = next(filter(None, reversed(edge_dims)), EDGE_START)  # E, of the last edges

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.output(self.refine(embeddings, labels).nodes)

    def output(self, nodes: list[Tensor]) -> Tensor:
        """The embedding that the nodes after each layer make: the last, or all side by side."""
        return torch.cat(nodes, 1) if self.concat else nodes[-1]

    def refine(self, embeddings: Tensor, labels: Tensor | None = None) -> Refined:
        """The nodes after every layer, the last edges, and the graph."""
        embeddings = as_nodes(embeddings, next(self.parameters(), None))
        graph = shorten(self.graph(embeddings, labels if self.training else None))
        edges = edge_features(embeddings, graph) if self.reads_edges else None
        nodes, outputs = self.input_linear(embeddings), []
        for layer in self.layers:
            nodes, edges = layer(nodes, graph, edges)
            outputs.append(nodes)
        return Refined(outputs, edges, graph)

    def attention(self, embeddings: Tensor, graph: Any = None) -> list[Tensor]:
        """Attention (H, B, B) of each layer that has any; [h, i, j] is what i gives to j.

        Over a graph that is a matrix, and without dropout, in training too.
        """
        training = self.training
        self.eval()
        graph = as_graph(graph, embeddings)
        edges = edge_features(embeddings, graph) if self.reads_edges else None
        nodes, weights = self.input_linear(embeddings), []
        for layer in self.layers:
            look = getattr(layer, "attention", None)  # a graph-network block has none
            if look is not None:
                weights.append(look(nodes, graph, edges))
            nodes, edges = layer(nodes, graph, edges)
        self.train(training)
        return weights

    def graph(self, embeddings: Tensor, labels: Tensor | None = None) -> Graph:
        """The graph that the builder gives for a batch; of a builder that learns, its weights."""
        if hasattr(self.builder, "weights"):
            return Graph.weighted(self.builder.weights(embeddings, labels))
        return as_graph(self.builder(embeddings, labels), embeddings)

    def extra_repr(self) -> str:
        return f"concat={self.concat}" if self.concat else ""


def shorten(graph: Graph) -> Graph:
    """The graph as it is walked fastest: neighbour lists where a large graph has few neighbours."""
    size = len(graph)
    if size < LISTS_FROM or graph.speakers is not None or graph.weights is not None:
        return graph
    few = int(graph.connected.sum(1).max()) * LISTS_SHARE <= size
    return neighbour_lists(graph) if few else graph


def from_released(arrays: Mapping[str, object]) -> Refiner:
    """The refiner of *Learning Intra-Batch Connections*, with the weights of its released code.

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
