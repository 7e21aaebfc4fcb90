"""Graph: who listens to whom among the nodes of a batch, as a matrix or as neighbour lists.

Dimensions: B nodes, M speakers named in a row (B in a matrix, k in lists), D node features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin.tensors import as_tensor

MATRIX = "a graph must be a (B, B) matrix of booleans or of 0 and 1"


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """The graph of a batch of B nodes, checked: who listens to whom.

    Where a graph is wanted, a plain (B, B) matrix will do as well, of booleans or of 0 and 1 of
    any type of number, as a tensor, a NumPy array or nested lists: [i, j] says that node i listens
    to node j. All other forms are told by how they are made, never by the type of their numbers:

        Graph.from_matrix(matrix)                   (B, B), booleans or 0 and 1
        Graph.weighted(weights)                     (B, B), numbers of 0 or more
        Graph.from_lists(lists)                     for each node, the nodes that it listens to
        Graph.from_edge_index(edge_index, nodes)    (2, E), as torch-geometric has it

    A node that listens to nobody is `alone`: a layer gives its features back as they came. In
    `connected` it listens to itself, so that every row has an entry.

    Attributes:
        connected: (B, M) bool; in a matrix M is B, and column j is node j.
        speakers: (B, M) int64, the nodes that lists name, 0 where `connected` is False; None for a
            matrix.
        weights: (B, B) floats by which attention is multiplied before it is normalised, or None.
        alone: (B,) bool.

    Raises:
        ValueError: for what is no graph.

    >>> Graph.from_matrix([[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    Graph(3 nodes, 4 edges, matrix)
    """

    connected: Tensor
    alone: Tensor
    speakers: Tensor | None = None
    weights: Tensor | None = None

    @classmethod
    def from_matrix(cls, matrix: Any) -> Graph:
        """The graph in which node i listens to node j where matrix[i, j] is True, or 1."""
        matrix = square(matrix)
        if matrix.requires_grad:
            raise ValueError(f"{MATRIX}, got numbers with a gradient: Graph.weighted takes weights")
        if matrix.dtype != torch.bool:
            check_binary(matrix)
            matrix = matrix == 1
        alone = ~matrix.any(1)
        return cls(matrix | torch.diag(alone), alone)

    @classmethod
    def full(cls, nodes: Tensor) -> Graph:
        """The graph in which each of the nodes (B, D) listens to all."""
        size, device = len(nodes), nodes.device
        connected = torch.ones(size, size, dtype=torch.bool, device=device)
        return cls(connected, torch.zeros(size, dtype=torch.bool, device=device))

    @classmethod
    def loops(cls, nodes: Tensor) -> Graph:
        """The graph in which each of the nodes (B, D) listens to itself alone, as lists."""
        itself = torch.arange(len(nodes), device=nodes.device)[:, None]
        connected = torch.ones_like(itself, dtype=torch.bool)
        return cls(connected, ~connected[:, 0], itself)

    @classmethod
    def weighted(cls, weights: Any) -> Graph:
        """The graph of the weights (B, B) above 0, to which gradients flow; NaN stays NaN.

        >>> Graph.weighted([[1.0, 0.5], [0.0, 1.0]])
        Graph(2 nodes, 3 edges, weighted matrix)
        """
        weights = square(weights)
        weights = weights if weights.is_floating_point() else weights.float()
        if bool(((weights < 0) | weights.isinf()).any()):
            raise ValueError("the weights of a graph must be finite numbers of 0 or more")
        graph = cls.from_matrix(weights.detach() != 0)
        return replace(graph, weights=torch.where(torch.diag(graph.alone), 1, weights))

    @classmethod
    def from_lists(cls, lists: Any) -> Graph:
        """The graph in which node i listens to the nodes of list i.

        Args:
            lists: B sequences of whole numbers of any length; or (B, k), where -1 fills up the
                shorter ones. A list holds its own node only where that listens to itself.

        >>> Graph.from_lists([[0, 1], [2], []]).matrix().int().tolist()
        [[1, 1, 0], [0, 0, 1], [0, 0, 1]]
        """
        lists = padded(lists)
        refuse_outside(lists, -1, len(lists), "neighbour lists")
        ordered = lists.sort(1).values
        if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
            raise ValueError("neighbour lists must name each neighbour once")
        alone = (lists < 0).all(1)
        itself = torch.arange(len(lists), device=lists.device)
        first = torch.where(alone, itself, lists[:, 0])
        lists = torch.cat([first[:, None], lists[:, 1:]], 1)
        return cls(lists >= 0, alone, lists.clamp_min(0))

    @classmethod
    def from_edge_index(cls, edge_index: Any, nodes: int) -> Graph:
        """The graph of an edge index of torch-geometric, as neighbour lists.

        Differs: an edge given twice is refused, where torch-geometric counts it twice.

        Args:
            edge_index: (2, E) whole numbers; node edge_index[1, e] listens to edge_index[0, e], as
                messages flow from source to target there.
            nodes: B, which an edge index does not say.

        >>> Graph.from_edge_index([[0, 1], [1, 1]], nodes=3).matrix().int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
        """
        edges = whole_numbers(edge_index, "an edge index must be (2, E) whole numbers")
        nodes = counted(nodes, "nodes")
        if edges.ndim != 2 or len(edges) != 2:
            raise ValueError(f"an edge index must be (2, E), got {tuple(edges.shape)}")
        refuse_outside(edges, 0, nodes, "an edge index")
        speaker, listener = edges[:, edges[1].argsort(stable=True)]
        return cls.from_lists(lists_of(listener, speaker, nodes))

    def __len__(self) -> int:
        """B."""
        return len(self.connected)

    def __repr__(self) -> str:
        edges = int(self.connected.sum() - self.alone.sum())
        kind = "neighbour lists" if self.speakers is not None else "matrix"
        kind = kind if self.weights is None else f"weighted {kind}"
        return f"Graph({len(self)} nodes, {edges} edges, {kind})"

    def matrix(self) -> Tensor:
        """Who listens to whom (B, B) bool; a node that is alone, to itself."""
        if self.speakers is None:
            return self.connected
        matrix = torch.zeros(len(self), len(self), dtype=torch.bool, device=self.connected.device)
        listener, place = self.connected.nonzero(as_tuple=True)
        matrix[listener, self.speakers[listener, place]] = True
        return matrix

    def to(self, device: torch.device | str) -> Graph:
        """The graph on this device."""
        given = {name: part for name, part in vars(self).items() if part is not None}
        return replace(self, **{name: part.to(device) for name, part in given.items()})

    def of_speakers(self, x: Tensor) -> Tensor:
        """x (B, ...) of the speakers in each row: (1, B, ...) of a matrix, (B, k, ...) of lists."""
        if self.speakers is None:
            return x[None]
        return x.index_select(0, self.speakers.flatten()).unflatten(0, self.speakers.shape)

    def keep_alone(self, before: Tensor, after: Tensor) -> Tensor:
        """Nodes (B, D) after a layer; those that listen to nobody as they were before it."""
        return torch.where(self.alone[:, None], before, after)


def as_graph(graph: Any, nodes: Tensor) -> Graph:
    """The graph of these nodes, of a `Graph` or of a matrix; the full graph of None."""
    if graph is None:
        return Graph.full(nodes)
    graph = graph if isinstance(graph, Graph) else Graph.from_matrix(graph)
    if len(graph) != len(nodes):
        raise ValueError(f"the graph must have the {len(nodes)} nodes that came, got {len(graph)}")
    return graph if graph.connected.device == nodes.device else graph.to(nodes.device)


def as_nodes(nodes: Any, like: Tensor | None = None) -> Tensor:
    """The features of nodes (B, D), floats; of an array or nested lists in the type of `like`."""
    wanted = "nodes must be floats (B, D), one row a node"
    given = isinstance(nodes, Tensor)
    nodes = as_tensor(nodes, wanted)
    if nodes.ndim == 3:
        raise ValueError(f"{wanted}: one graph at a time, got {tuple(nodes.shape)}")
    if nodes.ndim != 2 or not nodes.is_floating_point():
        raise ValueError(f"{wanted}, got {tuple(nodes.shape)} of {nodes.dtype}")
    if like is None:
        return nodes
    if not given:
        return nodes.to(like)
    if nodes.dtype != like.dtype and not torch.is_autocast_enabled(nodes.device.type):
        raise ValueError(f"nodes must be {like.dtype}, as the weights are, got {nodes.dtype}")
    return nodes


def neighbour_lists(matrix: Any) -> Graph:
    """The graph of a matrix as neighbour lists: few numbers where neighbours are few.

    >>> neighbour_lists(torch.tensor([[True, False], [True, True]]))
    Graph(2 nodes, 3 edges, neighbour lists)
    """
    graph = matrix if isinstance(matrix, Graph) else Graph.from_matrix(matrix)
    if graph.weights is not None:
        raise ValueError("neighbour lists have no weights, but the graph has")
    listener, speaker = graph.matrix().nonzero(as_tuple=True)
    heard = (listener != speaker) | ~graph.alone[listener]
    return Graph.from_lists(lists_of(listener[heard], speaker[heard], len(graph)))


def lists_of(listener: Tensor, speaker: Tensor, nodes: int) -> Tensor:
    """Lists (B, k), filled up with -1, of edges (E,) in the order of their listeners."""
    degree = torch.bincount(listener, minlength=nodes)
    place = torch.arange(len(listener), device=listener.device)
    place = place - (degree.cumsum(0) - degree)[listener]
    longest = int(degree.max()) if len(degree) else 0
    lists = torch.full((nodes, max(longest, 1)), -1, device=listener.device)
    lists[listener, place] = speaker
    return lists


def counted(count: Any, name: str) -> int:
    """A whole number of 0 or more, or an error that says what came."""
    try:
        found = -1 if isinstance(count, bool) else index(count)
    except TypeError:
        found = -1
    if found < 0:
        raise ValueError(f"{name} must be a whole number of 0 or more, got {count!r}")
    return found


def square(matrix: Any) -> Tensor:
    """The tensor (B, B) of what should be the matrix of a graph."""
    matrix = as_tensor(matrix, MATRIX)
    matrix = matrix if matrix.layout == torch.strided else matrix.to_dense()
    if matrix.ndim == 2 and len(matrix) == matrix.shape[1]:
        return matrix
    hint = ""
    if matrix.ndim == 2 and not matrix.is_floating_point():
        hint = ": Graph.from_lists takes neighbour lists, Graph.from_edge_index takes (2, E)"
    if matrix.ndim == 3:
        hint = ": one graph at a time"
    raise ValueError(f"{MATRIX}, got {tuple(matrix.shape)} of {matrix.dtype}{hint}")


def check_binary(matrix: Tensor) -> None:
    """Refuse numbers that are neither 0 nor 1."""
    odd = (matrix != 0) & (matrix != 1)
    if bool(odd.any()):
        first = matrix[odd][0].item()
        raise ValueError(
            f"{MATRIX}, got the number {first}: Graph.weighted takes weights, Graph.from_lists "
            "neighbour lists"
        )


def padded(lists: Any) -> Tensor:
    """Neighbour lists as whole numbers (B, k), k of 1 or more, -1 where a list is shorter."""
    wanted = "neighbour lists must be B sequences of whole numbers, or (B, k)"
    if not isinstance(lists, Tensor | np.ndarray) or lists.dtype == object:
        try:
            rows = [list(row) for row in lists]
        except TypeError:
            raise ValueError(f"{wanted}, got {type(lists).__name__}") from None
        longest = max(map(len, rows), default=0)
        lists = [row + [-1] * (longest - len(row)) for row in rows]
        lists = lists if longest else torch.full((len(rows), 1), -1)
    lists = whole_numbers(lists, wanted)
    if lists.ndim != 2:
        raise ValueError(f"{wanted}, got {tuple(lists.shape)}")
    return lists if lists.shape[1] else lists.new_full((len(lists), 1), -1)


def whole_numbers(x: Any, wanted: str) -> Tensor:
    """x as int64; refused where it holds anything but whole numbers."""
    x = as_tensor(x, wanted)
    whole = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    if x.numel() and not whole:
        raise ValueError(f"{wanted}, got {x.dtype}")
    return x.long()


def refuse_outside(nodes: Tensor, low: int, count: int, what: str) -> None:
    """Refuse numbers of nodes outside low..count - 1."""
    if nodes.numel() and not low <= int(nodes.min()) <= int(nodes.max()) < count:
        raise ValueError(
            f"{what} of {count} nodes must hold {low}..{count - 1}, "
            f"got {int(nodes.min())}..{int(nodes.max())}"
        )
