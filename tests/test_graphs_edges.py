"""Edges start as cosine and distance, and the graph-network block equals its equations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nearkin import graphs
from nearkin.graphs import Graph, GraphNetwork, edge_features
from nearkin.graphs.graph_network import AGGREGATES


def batch(size: int = 7, dim: int = 5):
    return torch.randn(size, dim, dtype=torch.double, generator=torch.Generator().manual_seed(0))


def slow_edges(x):
    edges = torch.zeros(len(x), len(x), 2, dtype=torch.double)
    for i in range(len(x)):
        for j in range(len(x)):
            edges[i, j, 0] = x[i] @ x[j] / (x[i].norm() * x[j].norm())
            edges[i, j, 1] = (x[i] - x[j]).norm()
    return edges


def test_edges_start_as_cosine_and_distance():
    x = batch()
    torch.testing.assert_close(edge_features(x, graphs.full(x)), slow_edges(x))
    adjacency = graphs.threshold(x, threshold=0.1)
    lists = graphs.neighbour_lists(adjacency)
    found = edge_features(x, lists)
    assert lists.speakers is not None
    for i, (row, real) in enumerate(zip(lists.speakers, lists.connected, strict=True)):
        torch.testing.assert_close(found[i, real], slow_edges(x)[i, row[real]])


@pytest.mark.parametrize("lists", [False, True])
def test_equal_points_have_a_finite_gradient(lists):
    x = torch.ones(3, 4, dtype=torch.double, requires_grad=True)
    adjacency = graphs.full(x)
    edge_features(x, graphs.neighbour_lists(adjacency) if lists else adjacency).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("edge_in", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_equations_node_by_node(aggregate, edge_in, weighted):
    torch.manual_seed(0)
    block = GraphNetwork(5, edge_in=edge_in, edge_dim=4, aggregate=aggregate).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = batch()
    edges = torch.randn(7, 7, edge_in, dtype=torch.double)
    adjacency = graphs.knn(x, k=3)
    weight = adjacency * torch.rand(7, 7, dtype=torch.double) if weighted else adjacency.double()
    pooled, updated = [], torch.zeros(7, 7, 4, dtype=torch.double)
    for i in range(len(x)):
        for j in range(len(x)):
            hidden = block.listener.weight @ x[i] + block.speaker.weight @ x[j]
            hidden = hidden + block.listener.bias + block.edge_in.weight @ edges[i, j]
            value = block.keep(edges[i, j]) + block.edge_out(hidden.clamp_min(0))
            value = (value - value.mean()) / (value.var(correction=0) + 1e-5).sqrt()
            updated[i, j] = value * block.norm_edges.weight + block.norm_edges.bias
        w, mine = weight[i, adjacency[i], None], updated[i, adjacency[i]]
        total = (w * mine).sum(0)
        lowered = (mine + w.log()).amax(0)
        pooled.append({"sum": total, "mean": total / w.sum(), "max": lowered}[aggregate])
    message = block.out(torch.stack(pooled))
    u = block.update.norm_attention(x + message)
    hidden = F.relu(block.update.feedforward_in(u))
    expected = block.update.norm_feedforward(u + block.update.feedforward_out(hidden))
    nodes, found = block(x, Graph.weighted(weight) if weighted else adjacency, edges)
    torch.testing.assert_close(nodes, expected)
    torch.testing.assert_close(found, updated)
    assert weighted or torch.equal(block(x, Graph.weighted(weight), edges)[0], nodes)


def test_without_edges_they_start_by_themselves():
    block = GraphNetwork(5).double()
    x = batch()
    adjacency = graphs.knn(x, k=3)
    torch.testing.assert_close(
        block(x, adjacency)[0], block(x, adjacency, edge_features(x, adjacency))[0]
    )


def test_blocks_can_be_stacked():
    x = batch()
    layers = [GraphNetwork(5, edge_dim=8), GraphNetwork(5, edge_in=8, edge_dim=8)]
    refined = graphs.Refiner(graphs.full, layers).double().refine(x)
    assert refined.edges is not None
    assert refined.edges.shape == (7, 7, 8)
    assert refined.nodes[-1].shape == x.shape
