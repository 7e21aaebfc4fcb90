"""A refiner is its graph and its layers, one after the other; at test time it sees no labels."""

from functools import partial
from typing import Any

import pytest
import torch

from nearkin import graphs
from nearkin.graphs import LAYERS, Refiner
from nearkin.graphs.refiner import LISTS_FROM
from nearkin.names import resolve

LEARNED: dict[str, dict[str, Any]] = {
    "learned": {"name": "learned"},
    "knn by a learned similarity": {"name": "knn", "k": 3, "similarity": "learned"},
    "label-guided by a learned similarity": {"name": "label-guided", "similarity": "learned"},
}


def batch(size: int = 12, dim: int = 8):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, dim, dtype=torch.double, generator=generator)


def test_layers_follow_one_another_over_one_graph():
    torch.manual_seed(0)
    layers = [graphs.GAT(8, edges="bias"), graphs.GATv2(8, edges="gate"), graphs.DotProduct(8)]
    first = torch.nn.Linear(8, 8)
    refiner = Refiner(partial(graphs.knn, k=3), layers, input_linear=first, concat=True).double()
    x = batch()
    adjacency = graphs.knn(x, k=3)
    edges = graphs.edge_features(x, adjacency)
    nodes, outputs, weights = first(x), [], []
    for layer in layers:
        weights.append(layer.attention(nodes, adjacency, edges))
        nodes, _ = layer(nodes, adjacency, edges)
        outputs.append(nodes)
    torch.testing.assert_close(refiner(x), torch.cat(outputs, 1))
    refiner.concat = False
    torch.testing.assert_close(refiner(x), nodes)
    for found, expected in zip(refiner.attention(x, adjacency), weights, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_a_large_sparse_batch_is_walked_as_lists_to_the_same_numbers(name):
    torch.manual_seed(0)
    layer = resolve(LAYERS[name])(8).double()
    refiner = Refiner(partial(graphs.knn, k=4), [layer])
    x = batch(LISTS_FROM)
    refined = refiner.refine(x)
    assert refined.graph.speakers is not None
    adjacency = graphs.knn(x, k=4)
    dense, _ = layer(x, adjacency, graphs.edge_features(x, adjacency))
    torch.testing.assert_close(refined.nodes[-1], dense)
    assert Refiner(graphs.full, [layer]).refine(x).graph.speakers is None


def test_labels_reach_the_builder_in_training_alone():
    refiner = Refiner(partial(graphs.label_guided, k=3, bonus=3), [graphs.Mean(8)]).double()
    x, labels = batch(), torch.arange(12) // 4
    refiner(x, labels)
    assert (refiner.graph(x, labels).matrix() == (labels[:, None] == labels)).all()
    with pytest.raises(ValueError, match="training only"):
        refiner.eval()(x, labels)


@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"no-edges"}))
@pytest.mark.parametrize("graph", LEARNED)
def test_a_learned_graph_learns_through_every_layer_that_listens(graph, name):
    torch.manual_seed(0)
    learned: Any = graphs.make_builder(dim=8, **LEARNED[graph])
    refiner = Refiner(learned, [resolve(LAYERS[name])(8)]).double()
    (refiner(batch(), torch.arange(12) // 4) * batch().flip(0)).sum().backward()
    assert learned.project.weight.grad is not None
    assert learned.project.weight.grad.abs().max() > 1e-6


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("graph", [*graphs.BUILDERS, "knn by a learned similarity"])
def test_batches_of_no_node_and_of_one(size, name, graph):
    builder = graphs.make_builder(dim=8, **LEARNED.get(graph, {"name": graph}))
    refiner = Refiner(builder, [resolve(LAYERS[name])(8)]).double()
    x = batch(size).requires_grad_()
    refined = refiner(x, torch.zeros(size, dtype=torch.int64))
    assert refined.shape == (size, 8)
    refined.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
