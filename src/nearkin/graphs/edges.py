"""Features of edges: how they start, and what a layer takes for them.

Dimensions: B nodes, M speakers named in a row (B in a matrix, k in lists), D node features, E edge
features.
"""

from typing import Any

import torch
from torch import Tensor

from nearkin.graphs.graph import Graph, as_graph, as_nodes
from nearkin.tensors import as_tensor, distances, inner, unit

EDGE_START = 2
"""Features with which an edge starts: cosine and Euclidean distance."""


def edge_features(nodes: Any, graph: Any = None) -> Tensor:
    """The features with which edges start, (B, M, 2): cosine and Euclidean distance of two nodes.

    Args:
        nodes: (B, D).
        graph: a `Graph` or a (B, B) matrix; the full graph by default. Of a matrix all B^2 pairs
            are given, of neighbour lists those in the lists.
    """
    nodes = as_nodes(nodes)
    graph = as_graph(graph, nodes)
    direction = unit(nodes)
    if graph.speakers is None:
        return torch.stack([inner(direction, direction), distances(nodes)], -1)
    cosines = (direction[:, None] * graph.of_speakers(direction)).sum(-1)
    square = (nodes[:, None] - graph.of_speakers(nodes)).square().sum(-1)
    zero = square == 0  # a node and itself: the square root has no gradient there
    return torch.stack([cosines, torch.where(zero, 0, torch.where(zero, 1, square).sqrt())], -1)


def as_edges(edges: Any, nodes: Tensor, graph: Graph, features: int) -> Any:
    """Edges (B, M, E) as a layer reads them; where none came, they start as `edge_features`.

    features: E; 0 where the layer reads no edges, and then they are whatever came.
    """
    if not features:
        return edges
    wanted = f"edges must be floats {(*graph.connected.shape, features)}, (B, M, E)"
    if edges is None:
        if features != EDGE_START:
            raise ValueError(f"{wanted}, got none")
        return edge_features(nodes, graph)
    given = as_tensor(edges, wanted, nodes.device)
    if given.shape != (*graph.connected.shape, features) or not given.is_floating_point():
        raise ValueError(f"{wanted}, got {tuple(given.shape)} of {given.dtype}")
    return given if isinstance(edges, Tensor) else given.to(nodes.dtype)
