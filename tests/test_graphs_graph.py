"""A graph is told by its type: a matrix of booleans or 0 and 1, weights, lists, an edge index."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from nearkin import graphs
from nearkin.graphs import LAYERS, Graph
from nearkin.names import resolve

NUMBERS = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "float32", "float64"]
MATRIX = [[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]]
DIM = 8
NONE: Any = None
FLOAT: Any = 2.0
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"edges": edges}) for name in ("dot-product", "gat", "gatv2", "mean")
      for edges in ("none", "bias", "gate")),
    ("dot-product", {"null_neighbour": True}),
    ("gat", {"shared_projection": True}),
    *(("graph-network", {"aggregate": name}) for name in ("sum", "mean", "max")),
    ("no-edges", {}),
]  # fmt: skip


def batch(size: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, DIM, generator=generator, dtype=torch.double)


def make(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    layer = resolve(LAYERS[name])(DIM, **options).double()
    for parameter in layer.parameters():  # biases too, which start at 0
        nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("module", ["numpy", "torch", "lists"])
def test_0_and_1_of_any_type_are_the_booleans(name, kind, module):
    layer, x = make(name), batch()
    expected, _ = layer(x, torch.tensor(MATRIX).bool())
    matrix: Any = np.array(MATRIX).astype(kind)
    if module == "torch":
        matrix = torch.from_numpy(matrix)
    if module == "lists":
        matrix = matrix.tolist()
    torch.testing.assert_close(layer(x, matrix)[0], expected)
    torch.testing.assert_close(graphs.neighbour_lists(matrix).matrix(), torch.tensor(MATRIX).bool())


def test_two_nodes_that_could_be_lists_are_a_matrix():
    identity = torch.tensor([[0, 1], [1, 0]])  # as lists: everybody listens to both
    assert Graph.from_matrix(identity).matrix().tolist() == [[False, True], [True, False]]


def as_lists(matrix: torch.Tensor) -> Graph:
    return Graph.from_lists([row.nonzero()[:, 0].tolist() for row in matrix])


def as_edge_index(matrix: torch.Tensor) -> Graph:
    edges = matrix.nonzero().T.flip(0)  # (speaker, listener)
    return Graph.from_edge_index(edges[:, torch.randperm(edges.shape[1])].numpy(), len(matrix))


@pytest.mark.parametrize("make_graph", [as_lists, as_edge_index, graphs.neighbour_lists])
@pytest.mark.parametrize("name", LAYERS)
def test_every_form_of_a_graph_gives_the_same_numbers(name, make_graph):
    x, layer = batch(9), make(name)
    matrix = torch.rand(9, 9, generator=torch.Generator().manual_seed(1)) < 0.3
    matrix[2], matrix[4, 4] = False, False  # a node that listens to nobody, one not to itself
    graph = make_graph(matrix)
    assert torch.equal(graph.matrix(), Graph.from_matrix(matrix).matrix())
    assert torch.equal(graph.alone, ~matrix.any(1))
    torch.testing.assert_close(layer(x, graph)[0], layer(x, matrix)[0])


def test_lists_may_be_padded_and_an_edge_index_empty():
    padded = Graph.from_lists(np.array([[0, 1, -1], [-1, 2, 0], [-1, -1, -1]], dtype=np.int32))
    assert padded.matrix().int().tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 1]]
    assert padded.alone.tolist() == [False, False, True]
    for empty in (Graph.from_lists([[], []]), Graph.from_edge_index(np.zeros((2, 0)), 2)):
        assert empty.alone.all()
        torch.testing.assert_close(make("gat")(batch(2), empty)[0], batch(2))
    assert len(Graph.from_lists([])) == len(Graph.from_edge_index(torch.zeros(2, 0), 0)) == 0


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("form", ["matrix", "lists", "weights"])
def test_a_node_that_listens_to_nobody_keeps_its_features(name, options, form):
    layer = make(name, **options)
    x = batch(7).requires_grad_()
    matrix = graphs.knn(x, k=2) & ~torch.eye(7, dtype=torch.bool)
    matrix[3] = matrix[5] = False
    weights = (matrix * torch.rand(7, 7, dtype=torch.double)).requires_grad_()
    graph = {
        "matrix": matrix,
        "lists": graphs.neighbour_lists(matrix),
        "weights": Graph.weighted(weights),
    }[form]
    nodes, _ = layer(x, graph)
    if name != "no-edges":  # where everybody listens to itself
        assert torch.equal(nodes[3], x[3])
        assert torch.equal(nodes[5], x[5])
        assert not torch.isclose(nodes[[0, 1, 2, 4, 6]], x[[0, 1, 2, 4, 6]]).any(1).all()
    (nodes * batch(7, seed=1)).sum().backward()
    for tensor in (nodes, x.grad, *(p.grad for p in layer.parameters())):
        assert tensor is None or tensor.isfinite().all()
    if weights.grad is not None:
        assert weights.grad.isfinite().all()
    if hasattr(layer, "attention"):
        assert layer.attention(x, graph).isfinite().all()


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_others_do_not_notice_a_node_that_is_alone(name, options):
    layer, x = make(name, **options), batch(6)
    matrix = graphs.knn(x, k=2)
    matrix[:, 5] = matrix[5] = False
    torch.testing.assert_close(layer(x, matrix)[0][:5], layer(x[:5], matrix[:5, :5])[0])


def test_weights_of_0_are_no_edges_and_weights_of_1_are_plain_edges():
    x, layer = batch(), make("gatv2")
    weights = torch.tensor(MATRIX, dtype=torch.double)
    torch.testing.assert_close(layer(x, Graph.weighted(weights))[0], layer(x, MATRIX)[0])
    assert torch.equal(Graph.weighted(weights / 3).matrix(), weights > 0)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_stand_in_a_sequence(name):
    torch.manual_seed(0)
    layers = [resolve(LAYERS[name])(DIM).double() for _ in range(2)]
    x = batch()
    nodes = x
    for layer in layers:
        nodes, _ = layer(nodes, graphs.full(nodes))
    sequence = nn.Sequential(layers[0], nn.Identity(), layers[1])
    torch.testing.assert_close(sequence(x), nodes)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_can_be_exported(name):
    sequence, x = nn.Sequential(make(name)).eval(), batch()
    exported = torch.export.export(sequence, (x,)).module()
    torch.testing.assert_close(exported(x), sequence(x))


@pytest.mark.parametrize("edges", ["none", "bias", "gate"])
def test_edges_that_do_not_come_start_as_cosine_and_distance(edges):
    layer, x = make("gat", edges=edges), batch()
    start = graphs.edge_features(x, MATRIX)
    torch.testing.assert_close(layer(x, MATRIX)[0], layer(x, MATRIX, start)[0])


@pytest.mark.parametrize("name", LAYERS)
def test_numpy_nodes_are_taken_in_the_layers_precision(name):
    layer, x = make(name).float(), batch()
    expected, _ = layer(x.float(), MATRIX)
    for nodes in (x.numpy(), x.tolist()):
        torch.testing.assert_close(layer(nodes, np.array(MATRIX))[0], expected)
    refiner = graphs.Refiner(graphs.full, [layer])
    torch.testing.assert_close(refiner(x.numpy()), refiner(x.float()))


@pytest.mark.parametrize("name", sorted(set(graphs.BUILDERS) - {"learned"}))
def test_builders_take_numpy(name):
    build, x = resolve(graphs.BUILDERS[name]), batch(12)
    labels: Any = None if build is not graphs.label_guided else np.arange(12) // 3
    torch.manual_seed(0)
    found = build(x.numpy(), labels)
    torch.manual_seed(0)
    assert torch.equal(found, build(x, None if labels is None else torch.from_numpy(labels)))


def test_layers_are_classes():
    for name in LAYERS:
        layer = resolve(LAYERS[name])
        assert isinstance(layer, type)
        assert isinstance(layer(DIM), layer)
        assert layer.__doc__, name

    class Mine(graphs.GAT):
        pass

    assert isinstance(Mine(DIM), graphs.GAT)
    assert not isinstance(graphs.GATv2(DIM), graphs.GAT)
    assert repr(Mine(DIM)) == "Mine(8)"


def test_a_layer_prints_as_its_call():
    assert repr(graphs.GAT(8)) == "GAT(8)"
    gate = graphs.DotProduct(8, heads=2, edges="gate", without=["out"])
    assert repr(gate) == "DotProduct(8, heads=2, without=('out',), edges='gate')"
    assert repr(eval(repr(gate), dict(vars(graphs)))) == repr(gate)
    assert repr(graphs.GraphNetwork(8, aggregate="max")) == "GraphNetwork(8, aggregate='max')"
    assert repr(graphs.NoEdges(8, dropout=0.5)) == "NoEdges(8, dropout=0.5)"
    assert "(0): GAT(8)" in repr(graphs.Refiner(graphs.full, [graphs.GAT(8)]))


def test_an_own_score_makes_an_own_layer():
    class Nearest(nn.Module):
        biases: ClassVar[dict[str, bool]] = {"query": True, "key": True}
        shared: ClassVar[tuple[str, ...]] = ()

        def __init__(self, heads, features):
            super().__init__()

        def terms(self, query, key):
            return query, key

        def forward(self, query, key):
            return -torch.cdist(query, key)

    class NearestFirst(graphs.AttentionBlock):
        score_type: Any = Nearest

    torch.manual_seed(0)
    x = batch()
    layer: Any = NearestFirst(DIM, heads=1).double()
    query, key = layer.query(x), layer.key(x)
    expected = (-torch.cdist(query, key)).softmax(1)
    torch.testing.assert_close(layer.attention(x)[0], expected)
    torch.testing.assert_close(
        layer(x, graphs.neighbour_lists(graphs.full(x)))[0], layer(x, graphs.full(x))[0]
    )


def test_a_builder_of_ones_own_may_give_any_graph_and_learn_it():
    x = batch(6)
    weights = torch.rand(6, 6, dtype=torch.double).requires_grad_()
    for builder, learns in (
        (lambda x, labels=None: np.eye(6, dtype=int), False),
        (lambda x, labels=None: Graph.from_lists([[0, 1], [1], [2], [3, 0], [4], []]), False),
        (lambda x, labels=None: Graph.weighted(weights), True),
    ):
        refined = graphs.Refiner(builder, [make("gat"), make("gatv2", edges="bias")])(x)
        refined.square().sum().backward()
        assert refined.isfinite().all()
        assert (weights.grad is not None) == learns


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (torch.full((4, 4), 0.5), "got the number 0.5: Graph.weighted takes weights"),
        (np.full((4, 4), 2), "got the number 2: .* Graph.from_lists neighbour lists"),
        (torch.tensor(MATRIX) - 1, "got the number -1"),
        (torch.full((4, 4), torch.nan), "got the number nan"),
        (torch.ones(4, 4, requires_grad=True), "numbers with a gradient: Graph.weighted"),
        (torch.zeros(4, 2, dtype=torch.int64), "Graph.from_lists takes neighbour lists"),
        (torch.zeros(2, 9, dtype=torch.int64), r"Graph.from_edge_index takes \(2, E\)"),
        (torch.ones(2, 4, 4), r"got \(2, 4, 4\) of torch.float32: one graph at a time"),
        (torch.ones(4), r"a \(B, B\) matrix of booleans or of 0 and 1, got \(4,\)"),
        ("full", "a graph must be .* got str"),
        (torch.ones(3, 3), "must have the 4 nodes that came, got 3"),
        (Graph.from_matrix(torch.ones(5, 5)), "must have the 4 nodes that came, got 5"),
    ],
)
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_no_graph_is_refused(name, graph, message):
    with pytest.raises(ValueError, match=message):
        make(name)(batch(), graph)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Graph.weighted([[1.0, -1.0], [0.0, 1.0]]), "finite numbers of 0 or more"),
        (lambda: Graph.weighted(torch.full((2, 2), torch.inf)), "finite numbers of 0 or more"),
        (lambda: Graph.from_lists([[0, 2], [1]]), r"of 2 nodes must hold -1..1, got -1..2"),
        (lambda: Graph.from_lists([[0, 0], [1]]), "name each neighbour once"),
        (lambda: Graph.from_lists([[0.5], [1.0]]), "whole numbers"),
        (lambda: Graph.from_lists(3), "B sequences of whole numbers"),
        (lambda: Graph.from_lists(torch.zeros(3).long()), "B sequences of whole numbers"),
        (lambda: Graph.from_edge_index([[0, 1], [1, 5]], nodes=3), r"hold 0..2, got 0..5"),
        (lambda: Graph.from_edge_index([[0, 0], [1, 1]], nodes=3), "name each neighbour once"),
        (lambda: Graph.from_edge_index([[0, 1, 1]], nodes=3), r"\(2, E\), got \(1, 3\)"),
        (lambda: Graph.from_edge_index([[0], [1]], nodes=NONE), "nodes must be a whole number"),
        (lambda: Graph.from_edge_index([[0], [1]], nodes=FLOAT), "nodes must be .* got 2.0"),
        (lambda: Graph.from_edge_index([[0], [1]], nodes=-1), "nodes must be .* got -1"),
        (lambda: Graph.from_edge_index(np.ones((2, 3)), nodes=3), "whole numbers, got"),
        (lambda: graphs.neighbour_lists(Graph.weighted(torch.eye(2))), "have no weights"),
    ],
)
def test_what_cannot_be_made_a_graph_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (torch.ones(2, 4, DIM).double(), r"one graph at a time, got \(2, 4, 8\)"),
        (torch.ones(4, DIM).long(), "floats .* of torch.int64"),
        (torch.ones(DIM).double(), r"floats \(B, D\), one row a node, got \(8,\)"),
        (torch.ones(4, DIM), "must be torch.float64, as the weights are, got torch.float32"),
    ],
)
@pytest.mark.parametrize("name", LAYERS)
def test_nodes_are_floats_one_row_a_node(name, nodes, message):
    with pytest.raises(ValueError, match=message):
        make(name)(nodes)


def test_edges_fit_the_graph():
    layer, x = make("gat", edges="bias"), batch()
    for edges in (
        torch.ones(4, 4, 3).double(),
        torch.ones(4, 2, 2).double(),
        torch.ones(4, 4, 2).long(),
    ):
        with pytest.raises(ValueError, match=r"edges must be floats \(4, 4, 2\), .* got"):
            layer(x, MATRIX, edges)
    with pytest.raises(ValueError, match="got none"):
        make("gat", edges="bias", edge_in=5)(x)
